"""How much the failures of a results folder hang on where the detectors' limits lie."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import pandas as pd

from bench.detect import FAILURES, Limits, detect, failed_since, slack
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results

FACTORS = (0.5, 1.0, 2.0)  # stricter, as run, more lenient
# The other limits are shares that half or double has no meaning for: how much is black, how late, how well D guesses,
# how far apart features lie (the double is what healthy images reach).
FIRES_ABOVE = ("untrained", "divergence", "partial", "blowup", "large", "harm", "overfit", "swing")
FIRES_BELOW = (
    "flat", "alike", "classes", "spread", "within", "recall", "coverage", "zero", "even", "vanish", "level", "memory",
)  # fmt: skip


def scaled(limits: Limits, factor: float) -> Limits:
    """Return limits that are all stricter (factor below 1: a detector needs less to fire) or all more lenient."""
    up = {name: getattr(limits, name) * factor for name in FIRES_ABOVE}
    down = {name: getattr(limits, name) / factor for name in FIRES_BELOW}
    # How much worse than its best: of this limit the part beyond 1 is what scales.
    return replace(limits, worse=1 + factor * (limits.worse - 1), **up, **down)


def own_limits(results: Results) -> Limits:
    """Return the limits that a results folder was judged by."""
    return Limits(**dict(results.environment["score"].get("limits") or ()))


FIGURES = ("flat", "spread", "saturated", "saturated_real")  # without which no sample is judged
OF_CLASSES = ("classes", "classes_real", "kl")  # all or none: not every extractor tells classes


def judgeable(results: Results) -> set[str]:
    """Return the runs that can be judged again: those with all figures in curves.csv at each of their points, but what
    diverged has no samples."""
    runs, curves = results.runs, _own(results.curves)
    figures = curves[curves["metric"].isin((*FIGURES, *OF_CLASSES))]
    if figures.empty:
        return set()
    points = figures.groupby(["run", "images", "metric"], observed=True).size().unstack()
    there = points.reindex(columns=[*FIGURES, *OF_CLASSES]).notna().groupby("run")
    every, some = there.all(), there.any()
    classes = every[list(OF_CLASSES)].all(axis=1) | ~some[list(OF_CLASSES)].any(axis=1)
    whole = every[list(FIGURES)].all(axis=1) & classes
    never = runs["status"].isin((*MACHINE_FAILURES, "diverged"))
    return set(whole.index[whole]) & set(runs.loc[~never, "run"])


def _own(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the values that a run is judged by: there, and not of a read-out."""
    return curves[(curves["readout"].isna() | (curves["readout"] == "raw-eval")) & curves["value"].notna()]


def statuses(results: Results, limits: Limits, of: Collection[str] | None = None) -> pd.Series:
    """Return the status that each run (or each `of` these) would have under other limits, by run id.

    A run whose samples were never judged (diverged, or the machine's fault) keeps its own; so does every run of a
    folder that is older than the figures in its curves.csv.
    """
    runs = results.runs.set_index("run")
    if of is not None:
        runs = runs[runs.index.isin(of)]
    found = runs["status"].astype(str).to_dict()
    for run, own, cap, room in _lines(results, found.keys()):
        found[run] = _status(own, cap, room, limits)
    return pd.Series(found, index=runs.index, dtype=object)


def failed_at(results: Results, of: Collection[str]) -> dict[str, int | None]:
    """Return what column failed_at must be by curves.csv, for those `of` the runs that can be judged again."""
    found, limits = {}, own_limits(results)
    for run, own, cap, room in _lines(results, of):
        states = []
        for images, _ in own["flat"]:
            so_far = {key: [point for point in points if point[0] <= images] for key, points in own.items()}
            so_far = {key: points for key, points in so_far.items() if points}
            states.append((images, _status(so_far, cap, room, limits) != "ok"))
        found[run] = failed_since(states)
    return found


Line = dict[str, list[tuple[int, float]]]  # (images shown, value) by metric


def _lines(results: Results, of: Collection[str]) -> Iterator[tuple[str, Line, float | None, float]]:
    """Yield each judgeable run `of` these: its values along the budget, the cap, and detect's slack."""
    lines: dict[str, Line] = {run: {} for run in judgeable(results) & set(of)}
    curves, cap = results.curves, (results.environment.get("cap") or {}).get("fd")
    raw = _own(curves[curves["run"].isin(lines)])
    # One pass over plain lists: a data frame for every run would take minutes for tens of thousands.
    columns = (raw[name].tolist() for name in ("run", "metric", "images", "value"))
    for run, metric, images, value in zip(*columns, strict=True):
        lines[run].setdefault(metric, []).append((images, value))
    extractors = results.runs.set_index("run")["extractor"].astype(str)
    rooms = {extractor: slack(extractor, cap) for extractor in extractors.unique()}
    extractors = extractors.to_dict()
    for run, own in lines.items():
        for points in own.values():
            points.sort(key=lambda point: point[0])
        yield run, own, cap, rooms[extractors[run]]


def _status(own: Line, cap: float | None, room: float, limits: Limits) -> str:
    figures = {metric: points[-1][1] for metric, points in own.items()}
    return detect(figures, own, cap, room, limits)[0]


def doubtful(results: Results, of: Collection[str] | None = None) -> list[tuple[str, str, str]]:
    """Return (run, its status, what curves.csv or its own detectors say) where the two are not the same.

    of: look at these runs' curves only, all by default; what stands in one row must agree in every one.
    """
    runs = results.runs[~results.runs["status"].isin(MACHINE_FAILURES)].set_index("run")
    own = runs["status"].astype(str)
    told = pd.Series(
        [_by_detectors(codes) or status for codes, status in zip(runs["detectors"], own, strict=True)],
        runs.index,
    )
    again = (
        statuses(results, own_limits(results), own.index if of is None else of).reindex(own.index).fillna(own)
    )
    wanted = again.where(again != own, told)
    return [(str(run), own[run], wanted[run]) for run in own.index[wanted != own]]


def _by_detectors(codes: str | None) -> str:
    """Return the status that goes with a row's detectors, "" where none of them is a failure's."""
    fired = (
        set() if pd.isna(codes) else set(codes.split(";")) - {"collapse_prdc"}
    )  # which counts beside another only
    return next((status for status, own in FAILURES.items() if fired & set(own)), "")


def lenient(results: Results) -> Limits:
    """Return the limits of a results folder, all twice as lenient."""
    return scaled(own_limits(results), FACTORS[-1])


def sensitivity(results: Results) -> pd.DataFrame:
    """Return how many runs of each arm fail with all limits stricter, as run, and more lenient.

    One row an arm, in the grid's order: runs, then a column for each of FACTORS; empty where curves.csv has no figures
    to judge again by.
    """
    if not (results.curves["metric"] == "flat").any():
        return pd.DataFrame()
    usual = own_limits(results)
    arms = results.runs.set_index("run")["arm"]
    table = pd.DataFrame({"runs": arms.groupby(arms, observed=True).size()})
    for factor in FACTORS:
        failed = statuses(results, scaled(usual, factor)).isin(METHOD_FAILURES)
        table[f"{factor:g}"] = failed.groupby(arms, observed=True).sum()
    return table
