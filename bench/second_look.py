"""Two looks: which arms get the second look's seeds is decided by the rows of the first look's seeds alone."""

from dataclasses import replace

from bench import design
from bench.analyse import analyse
from bench.factorial import main_effects
from bench.grid import Grid
from bench.results import Results


def again(results: Results, grid: Grid) -> set[str]:
    """Return the arms that the second look adds seeds to: the undecided ones, the reference and the controls.

    No arm where all are decided. Later rows, and arms that the grid has no more, change nothing.
    """
    arms = {arm.name for arm in grid.arms}
    seeds = grid.seeds[: grid.looks[0]]
    first = results.runs[results.runs["seed"].isin(seeds) & results.runs["arm"].isin(arms)]
    described = [arm for arm in results.environment["arms"] if arm["arm"] in arms]
    there = replace(
        results,
        runs=first.reset_index(drop=True),
        curves=results.curves[results.curves["run"].isin(first["run"])],
        environment=results.environment | {"arms": described},
    )
    found = undecided(there)
    return found | {arm.name for arm in grid.arms if arm.role != "trick"} if found else set()


def undecided(results: Results) -> set[str]:
    """Return the names of the arms under test that these rows leave inconclusive.

    Where effects take more arms than two, every arm of the design while one effect is inconclusive: it stays balanced.
    """
    analysis = analyse(results)
    tested = {effect.arm.name for effect in analysis.tricks}
    kind = results.environment.get("design")
    if kind in design.FACTORIAL:
        return tested if any(e.verdict == "inconclusive" for e in main_effects(analysis)) else set()
    found = {effect.arm.name for effect in analysis.tricks if effect.verdict == "inconclusive"}
    return tested if found and kind == design.BOTH else found
