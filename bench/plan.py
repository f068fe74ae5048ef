"""From a grid to runs, from runs to programs, from programs to arrays."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from bench.data import SETS
from bench.errors import Refused
from bench.grid import Arm, Budget, DataSpec, Grid
from bench.networks import Network, discriminator, generator
from bench.recipe import Recipe
from bench.step import Nets
from bench.trick import Trick


@dataclass(frozen=True)
class Program:
    """Everything that shapes the computation; runs of one program may share an array."""

    data: DataSpec
    nets: Nets
    batch_size: int
    noise_length: int
    budget: Budget
    points: tuple[float, ...]
    dtype: str


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    data: DataSpec
    recipe: Recipe
    tricks: tuple[Trick, ...]  # none of them off
    budget: Budget
    seed: int
    dtype: str
    points: tuple[float, ...]

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What is computed, as plain data: no names, no score settings."""
        return {
            "data": asdict(self.data),
            "recipe": asdict(self.recipe),
            "tricks": {trick.name(): trick.values for trick in self.tricks},
            "budget": asdict(self.budget),
            "seed": self.seed,
            "dtype": self.dtype,
        }

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON of `spec`."""
        text = json.dumps(self.spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def effective(self) -> Recipe:
        """The recipe after every trick's `recipe` hook."""
        recipe = self.recipe
        for trick in self.tricks:
            if "recipe" in vars(type(trick)):
                recipe = trick.recipe(recipe)
        return recipe

    @cached_property
    def program(self) -> Program:
        """The program this run is one of; raises `Refused` where the arm's layers do not fit."""
        recipe, colours = self.effective, SETS[self.data.set].channels
        image = (colours, self.data.size, self.data.size)
        tables = {"g_layers": generator(recipe, self.data.size, colours)}
        tables["d_layers"] = discriminator(recipe, self.data.size, colours)
        for trick in self.tricks:
            for hook in tables:
                if hook in vars(type(trick)):
                    tables[hook] = getattr(trick, hook)(tables[hook])
        g = Network(tables["g_layers"], (recipe.noise_length, 1, 1))
        d = Network(tables["d_layers"], image)
        for what, net, wanted in (("G", g, image), ("D", d, (1, 1, 1))):
            if net.output() != wanted:
                raise Refused(f"arm {self.arm}: {what} makes {net.output()}, not {wanted}")
        return Program(
            self.data,
            Nets(d=d, g=g),
            recipe.batch_size,
            recipe.noise_length,
            self.budget,
            self.points,
            self.dtype,
        )

    @property
    def dial_tricks(self) -> tuple[Trick, ...]:
        """The tricks that act inside the training step."""
        return tuple(trick for trick in self.tricks if trick.dials())


@dataclass(frozen=True)
class Array:
    """Runs of one program that train together."""

    runs: tuple[Run, ...]

    @property
    def program(self) -> Program:
        """The program of its runs."""
        return self.runs[0].program

    @property
    def label(self) -> str:
        """Its arms and seeds, for people."""
        arms = list(dict.fromkeys(run.arm for run in self.runs))
        seeds = [run.seed for run in self.runs]
        few = "+".join(arms) if len(arms) < 3 else f"{arms[0]} and {len(arms) - 1} more arms"
        return f"{few}, seed{'s' if len(set(seeds)) > 1 else ''} {min(seeds)}" + (
            f"-{max(seeds)}" if len(set(seeds)) > 1 else ""
        )


def runs(grid: Grid) -> list[Run]:
    """Return the runs of a grid, arm by arm; raise `Refused` where two arms compute the same thing."""
    made: dict[Any, Arm] = {}
    for arm in grid.arms:
        one = _run(grid, arm, grid.seeds[0])
        recipe = one.effective
        # What an arm computes: its program, the recipe's numbers, and the tricks that act inside the step.
        key = (one.program, recipe, frozenset(one.dial_tricks))
        if key in made:
            raise Refused(
                f"{grid.file}: arms {made[key].name} and {arm.name} compute the same thing; take one out"
            )
        made[key] = arm
    return [_run(grid, arm, seed) for arm in grid.arms for seed in grid.seeds]


def _run(grid: Grid, arm: Arm, seed: int) -> Run:
    on = tuple(trick for trick in arm.tricks if not trick.is_off)
    return Run(arm.name, grid.data, grid.recipe, on, grid.budget, seed, grid.dtype, grid.score.points)


def arrays(planned: Iterable[Run], runs_per_array: int | None, device: str) -> list[Array]:
    """Return the arrays of the whole plan, whatever is done already: program by program, arms kept together.

    An array holds several whole arms or a share of one, so that what one arm costs (D-only steps) is not paid
    by another's runs more than it must.
    """
    programs: dict[Program, dict[str, list[Run]]] = {}
    for run in planned:
        programs.setdefault(run.program, {}).setdefault(run.arm, []).append(run)
    made: list[Array] = []
    for program, arms in programs.items():
        most = runs_per_array or suggested(program, device)
        waiting: list[Run] = []
        for members in arms.values():
            if len(waiting) + len(members) > most and waiting:
                made.append(Array(tuple(waiting)))
                waiting = []
            if len(members) <= most:
                waiting += members
                continue
            pieces = -(-len(members) // most)
            cuts = [len(members) * i // pieces for i in range(pieces + 1)]
            made += [Array(tuple(members[a:b])) for a, b in itertools.pairwise(cuts)]
        if waiting:
            made.append(Array(tuple(waiting)))
    return made


def suggested(program: Program, device: str) -> int:
    """Return how many runs share an array where the user does not say.

    A rule, not a measurement, so that a resumed grid cuts the same arrays. On two CPU cores arrays paid below
    about two million multiply-adds per image (1.3 to 1.8 times one run after the other) and not above; on a
    GPU 16 runs are an estimate.
    """
    if device != "cpu":
        return 16
    work = program.nets.g.multiply_adds() + program.nets.d.multiply_adds()
    return 5 if work < 2_000_000 else 1
