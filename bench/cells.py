"""A results folder as matrices, arms x seeds: what makes two thousand arms fast to compare."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bench import stats
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results

Matrix = NDArray[np.float64]
Place = tuple[NDArray[np.int64], NDArray[np.int64]]
COLUMNS = (
    *("images", "steps", "train_seconds", "parameters", "multiply_adds"),
    *("kid", "is", "recall"),
)
OF_ARRAY = ("train_seconds", "score_seconds", "peak_memory_mb")
CONDITIONS = ("mode", "dtype", "runs_per_array", "threads", "device", "environment")  # of a fair timing


@dataclass(frozen=True)
class Cells:
    """The runs of a grid by arm (rows, in the grid's order) and seed (columns); NaN where there is none.

    logs: capped log scores. failed, lost, stopped: failures of the training, of the machine, and runs that did
    not reach the end of the budget. timing: a number that is equal where two runs were timed on equal terms,
    NaN where a run was not timed apart from other arms.
    cap: the score of a failed run. columns: COLUMNS of runs.csv.
    """

    arms: tuple[str, ...]
    seeds: NDArray[np.int64]
    names: tuple[str, ...]  # of the runs, in the order of `place`
    place: Place = field(repr=False)  # row and column of each run
    logs: Matrix
    failed: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    stopped: NDArray[np.bool_]
    timing: Matrix
    cap: float
    columns: dict[str, Matrix] = field(repr=False)


def cells(results: Results, cap: float, scored: bool) -> Cells:
    """Lay out the runs of a results folder; `scored` = whether they were to have the primary score at all."""
    runs = results.runs
    arms = tuple(arm["arm"] for arm in results.environment["arms"])
    number = {arm: i for i, arm in enumerate(arms)}
    of_run = runs["seed"].to_numpy(dtype=np.int64)
    seeds = np.unique(of_run)
    place = (np.array([number[arm] for arm in runs["arm"]], dtype=np.int64), np.searchsorted(seeds, of_run))
    shape = (len(arms), len(seeds))
    machine = runs["status"].isin(MACHINE_FAILURES).to_numpy()
    failed = runs["status"].isin(METHOD_FAILURES).to_numpy()
    stopped = machine | (runs["status"] == "diverged").to_numpy()
    scores = runs["fd"].astype("float64").mask(machine)
    timing = runs.groupby(list(CONDITIONS), dropna=False, observed=True).ngroup().astype("float64")
    timing = timing.mask(in_company(runs))
    return Cells(
        arms=arms,
        seeds=seeds,
        names=tuple(runs["run"]),
        place=place,
        logs=_laid(place, shape, stats.capped_log(scores, failed & scored, cap), np.nan),
        failed=_laid(place, shape, failed, False),
        lost=_laid(place, shape, machine, False),
        stopped=_laid(place, shape, stopped, False),
        timing=_laid(place, shape, timing, np.nan),
        cap=cap,
        columns={name: _laid(place, shape, runs[name].astype("float64"), np.nan) for name in COLUMNS},
    )


def in_company(runs: pd.DataFrame) -> pd.Series:
    """Return which rows shared their array with another arm: a run's seconds are its array's in equal parts, so arms in
    one array are not timed apart. An array is known by what its rows have in common."""
    alike = runs.groupby([*CONDITIONS, *OF_ARRAY], dropna=False, observed=True)["arm"].transform("nunique")
    return (alike > 1) & (runs["runs_per_array"] > 1)


def _laid(place: Place, shape: tuple[int, int], values: ArrayLike, empty: Any) -> NDArray[Any]:
    out = np.full(shape, empty)
    out[place] = np.asarray(values, dtype=out.dtype)
    return out
