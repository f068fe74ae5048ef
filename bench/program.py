"""A run and its program: what is computed, and what shapes the computation.

A run's id needs no torch, its program does: torch is imported with the first program.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from bench.data import SETS
from bench.errors import Refused
from bench.recipe import Recipe
from bench.spec import Budget, DataSpec
from bench.trick import IN_STEP, Trick

if TYPE_CHECKING:  # it imports torch
    from bench.step import Nets


def held_in(dtype: str) -> str:
    """Return the dtype of parameters, moments and losses in a precision: bfloat16 is for maps and products only."""
    return "float32" if dtype == "bfloat16" else dtype


@dataclass(frozen=True)
class Program:
    """Everything that shapes the computation; runs of one program may share an array."""

    data: DataSpec
    nets: "Nets"
    batch_size: int
    noise_length: int
    budget: Budget
    points: tuple[float, ...]
    dtype: str
    length: float = 1.0  # times the budget
    tricks: frozenset[tuple] = frozenset()  # what of the tricks inside the step is no number

    def steps(self, images: int) -> int:
        """Return the number of adversarial steps on a set of `images`."""
        return max(1, round(self.length * self.budget.steps(self.batch_size, images)))

    @property
    def labelled(self) -> bool:
        """Whether a network wants to know the images' labels."""
        return self.nets.d.labelled or self.nets.g.labelled


def _of_arm(make: Callable[["Run"], Any]) -> Any:
    """Return a property that no seed can change, so that the runs of an arm work it out once."""

    @property
    @wraps(make)
    def read(run: "Run") -> Any:
        if make.__name__ not in run.shared:
            run.shared[make.__name__] = make(run)
        return run.shared[make.__name__]

    return read


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
    shared: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_seed(self, seed: int) -> "Run":
        """Return the run of the same arm with another seed."""
        other = replace(self, seed=seed)
        object.__setattr__(other, "shared", self.shared)
        return other

    @property
    def spec(self) -> dict[str, Any]:
        """What is computed, as plain data: no names, no score settings."""
        return {
            "data": asdict(self.data),
            "recipe": self.recipe.spec,
            "tricks": {trick.name(): trick.values for trick in self.tricks},
            "budget": asdict(self.budget),
            "seed": self.seed,
            "dtype": self.dtype,
        }

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON of `spec`."""
        before, after = self._around_seed
        return hashlib.sha256(f"{before}{self.seed}{after}".encode()).hexdigest()[:16]

    @_of_arm
    def _around_seed(self) -> tuple[str, str]:
        """The canonical JSON of `spec` before and after the seed."""
        text = json.dumps(self.spec, sort_keys=True, separators=(",", ":"))
        key = '"seed":'  # no text inside can hold it: there a quotation mark has a backslash in front
        before, _, after = text.partition(f"{key}{self.seed}")
        return before + key, after

    @_of_arm
    def effective(self) -> Recipe:
        """The recipe after every trick's `recipe` hook."""
        recipe = self.recipe
        for trick in self.tricks:
            if trick.fills("recipe"):
                recipe = trick.recipe(recipe)
        return recipe

    @_of_arm
    def program(self) -> Program:
        """The program this run is one of; raises `Refused` where the arm's layers do not fit."""
        from bench.networks import Network, discriminator, generator
        from bench.step import Nets

        recipe, colours = self.effective, SETS[self.data.set].channels
        image = (colours, self.data.size, self.data.size)
        tables = {"g_layers": generator(recipe, self.data.size, colours)}
        tables["d_layers"] = discriminator(recipe, self.data.size, colours)
        for trick in self.tricks:
            for hook in tables:
                if trick.fills(hook):
                    tables[hook] = getattr(trick, hook)(tables[hook])
        compute = "" if held_in(self.dtype) == self.dtype else self.dtype
        g = Network(tables["g_layers"], (recipe.noise_length, 1, 1), compute)
        d = Network(tables["d_layers"], image, compute)
        for what, net, wanted in (("G", g, image), ("D", d, (1, 1, 1))):
            if net.output() != wanted:
                raise Refused(f"arm {self.arm}: {what} makes {net.output()}, not {wanted}")
        return Program(
            self.data,
            Nets(d, g, recipe.d_optimizer, recipe.g_optimizer, recipe.mixed),
            recipe.batch_size,
            recipe.noise_length,
            self.budget,
            self.points,
            self.dtype,
            recipe.length,
            frozenset(filter(None, (trick.shape for trick in self.step_tricks))),
        )

    @property
    def step_tricks(self) -> tuple[Trick, ...]:
        """The tricks that act inside the training step."""
        return tuple(trick for trick in self.tricks if trick.fills(*IN_STEP))
