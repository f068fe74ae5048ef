"""From a grid to runs, from runs to programs, from programs to arrays."""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench import compat
from bench.errors import Refused
from bench.grid import Arm, Grid
from bench.program import Program, Run


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


def runs(grid: Grid, there: Container[str] = ()) -> list[Run]:
    """Return the runs of a grid, arm by arm; raise `Refused` where an arm cannot be, or two compute the same thing.

    Neither is asked where every run's id (of the first look) is in `there`: it takes the arms' programs, and so torch.
    """
    first = first_runs(grid)
    planned = [run.with_seed(seed) for _, run in first for seed in grid.seeds]
    if not all(run.id in there for run in looks(grid, planned)[0]):
        _refuse_impossible_arms(grid, first)
    return planned


def first_runs(grid: Grid) -> list[tuple[Arm, Run]]:
    """Return every arm with its run of the first seed."""
    return [(arm, _run(grid, arm, grid.seeds[0])) for arm in grid.arms]


def _refuse_impossible_arms(grid: Grid, first: list[tuple[Arm, Run]]) -> None:
    made: dict[Any, Arm] = {}
    for arm, one in first:
        if found := compat.impossible(arm.tricks, grid.data, one.program.nets):
            raise Refused(f"{grid.where(arm, found.trick)}: arm {arm.name}: {found.text}")
        # What an arm computes: its program, the recipe's numbers, and the tricks that act inside the step.
        key = (one.program, one.effective, frozenset(one.step_tricks))
        if key in made:
            raise Refused(
                f"{grid.where(arm)}: arms {made[key].name} and {arm.name} compute the same thing; take one out"
            )
        made[key] = arm


def _run(grid: Grid, arm: Arm, seed: int) -> Run:
    on = tuple(trick for trick in arm.tricks if not trick.is_off)
    return Run(arm.name, grid.data, grid.recipe, on, grid.budget, seed, grid.dtype, grid.score.points)


def by_program(planned: Iterable[Run]) -> dict[Program, list[list[Run]]]:
    """Return the runs of a grid by program, arm by arm."""
    arms: dict[str, list[Run]] = {}
    for run in planned:
        arms.setdefault(run.arm, []).append(run)
    programs: dict[Program, list[list[Run]]] = {}
    for members in arms.values():  # all of one program, which is dear to compare
        programs.setdefault(members[0].program, []).append(members)
    return programs


def arrays(planned: Iterable[Run], most: Callable[[Program], int]) -> list[Array]:
    """Return the arrays of the whole plan, whatever is done already: program by program, arms kept together.

    `most` says how many runs of a program share an array.

    An array holds several whole arms or a share of one, so that what one arm costs (D-only steps) is not paid
    by another's runs more than it must.
    """
    made: list[Array] = []
    for program, arms in by_program(planned).items():
        room = most(program)
        waiting: list[Run] = []
        for members in arms:
            if len(waiting) + len(members) > room and waiting:
                made.append(Array(tuple(waiting)))
                waiting = []
            if len(members) <= room:
                waiting += members
                continue
            pieces = -(-len(members) // room)
            cuts = [len(members) * i // pieces for i in range(pieces + 1)]
            made += [Array(tuple(members[a:b])) for a, b in pairwise(cuts)]
        if waiting:
            made.append(Array(tuple(waiting)))
    return made


def looks(grid: Grid, planned: Iterable[Run]) -> list[list[Run]]:
    """Return the planned runs look by look: those of the seeds that each look adds; one list where none are declared.

    Arrays are cut look by look, so that the second look cannot change the first one's.
    """
    cuts = [0, *(grid.looks or (len(grid.seeds),))]
    blocks = [set(grid.seeds[a:b]) for a, b in pairwise(cuts)]
    planned = list(planned)
    return [[run for run in planned if run.seed in block] for block in blocks]


def seed_major(arrays: Iterable[Array]) -> list[Array]:
    """Return arrays in the order in which they train: low seeds of all arms first.

    Seeds are blocks: stopped anywhere, arms differ by the seeds of one array at most, where no array holds an arm with
    all its seeds; such arms are there whole or not at all.
    """
    return sorted(arrays, key=lambda array: sorted({run.seed for run in array.runs}))


def suggested(program: Program, device: str) -> int:
    """Return how many runs share an array where nobody says and nothing was measured (see bench.tune).

    On two CPU cores arrays paid below about two million multiply-adds per image (1.3 to 1.8 times one run after the
    other) and not above; on an NVIDIA H200 32 runs took 1.1 to 1.5 times as many run-steps a second as 8.
    """
    if device != "cpu":
        return 32
    work = program.nets.g.multiply_adds() + program.nets.d.multiply_adds()
    return 5 if work < 2_000_000 else 1
