"""The same contrast along the budget, and at equal time, equal steps and equal images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.cells import Cells, Matrix
from bench.results import Results
from bench.stats import Comparison

FRACTIONS = (0.25, 0.5, 0.75)  # of the budget; its end is the primary comparison
AXES = {
    "images": "images",
    "steps": "steps",
    "seconds": "train_seconds",
}  # name: column of its total in a run
READOUT = "raw-eval"  # what the row of a run is sampled by


class Path(NamedTuple):
    """The capped log score of one run along its images."""

    images: NDArray[np.float64]
    logs: NDArray[np.float64]


Paths = dict[tuple[int, int], Path]  # by row and column of the cells


def paths(results: Results, cells: Cells) -> Paths:
    """Return the paths of all runs that have points in curves.csv."""
    curves = results.curves
    points = curves[(curves["metric"] == "fd") & (curves["readout"] == READOUT) & curves["value"].notna()]
    if points.empty:
        return {}
    points = points.sort_values(["run", "images"])
    number = dict(zip(cells.names, zip(*(x.tolist() for x in cells.place), strict=True), strict=True))
    runs, first = np.unique(points["run"].to_numpy(dtype=object), return_index=True)
    images = np.split(points["images"].to_numpy(dtype=float), first[1:])
    logs = np.split(np.log(np.clip(points["value"].to_numpy(dtype=float), stats.TINY, cells.cap)), first[1:])
    return {number[run]: Path(x, y) for run, x, y in zip(runs, images, logs, strict=True) if run in number}


def along(cells: Cells, of: Paths) -> dict[float, Matrix]:
    """Return the log scores at each of FRACTIONS of the budget, interpolated along images.

    A run that stopped has the cap from its last point on; before that it counts as what it was then. NaN before
    a run's first point.
    """
    images = np.where(cells.stopped, np.nan, cells.columns["images"])
    whole = np.fmax.reduce(images, axis=1, initial=np.nan)
    whole = np.where(np.isnan(whole), np.fmax.reduce(images, axis=None, initial=np.nan), whole)
    worst = np.log(cells.cap)
    out = np.full((len(FRACTIONS), *cells.logs.shape), np.nan)
    out[:, cells.failed & cells.stopped] = worst  # until it turns out to have a path
    for (i, j), path in of.items():
        if not cells.lost[i, j]:
            beyond = worst if cells.stopped[i, j] else path.logs[-1]
            at = np.array(FRACTIONS) * whole[i]
            first = path.images[0]  # of whole batches: a little off the fraction
            at = np.where(np.abs(at / first - 1) < 0.01, first, at)
            out[:, i, j] = np.interp(at, *path, left=np.nan, right=beyond)
    return dict(zip(FRACTIONS, out, strict=True))


def at_equal(cells: Cells, of: Paths, axis: str, treated: int, without: int) -> tuple[Matrix, Matrix]:
    """Return both arms' log scores by seed, (seeds,) each, at the end of the run of the pair that ends first.

    axis: one of AXES; treated, without: rows of the cells. Time and steps are taken as linear in images within a
    run, since only their totals are known, and an arm's time for an image as the median over its seeds: what a single
    run took besides is the machine's noise. A pair in which a run failed keeps its capped scores. NaN where nothing can
    be compared: the other run has no point so early, or the two were timed on unequal terms or not apart.
    """
    pair = (treated, without)
    images = {i: cells.columns["images"][i] for i in pair}
    total = {i: cells.columns[AXES[axis]][i] for i in pair}
    if axis == "seconds":
        total = {i: images[i] * _median(total[i] / images[i]) for i in pair}
    sides = [cells.logs[i].copy() for i in pair]
    failed = cells.failed[treated] | cells.failed[without]
    end = np.minimum(total[treated], total[without])
    fair = np.full(end.shape, True)
    if axis == "seconds":
        fair = cells.timing[treated] == cells.timing[without]
    for side, i in zip(sides, pair, strict=True):
        side[~fair | (~failed & np.isnan(end))] = np.nan
        for j in np.flatnonzero(~failed & np.isfinite(side) & (total[i] > end * (1 + 1e-9))):
            path = of.get((i, int(j)))
            at = images[i][j] * end[j] / total[i][j]
            side[j] = np.interp(at, *path, left=np.nan) if path else np.nan
    return sides[0], sides[1]


def _median(row: Matrix) -> float:
    """Return the median of what is known of a row, NaN where nothing is."""
    known = row[np.isfinite(row)]
    return float(np.median(known)) if len(known) else np.nan


def comparisons(
    cells: Cells, of: Paths, budget: dict[float, Matrix], i: int, j: int, alpha: float
) -> dict[str, Comparison]:
    """Return row i against row j along the budget and at equal images, steps and seconds, by name."""
    sides = {f"{100 * f:.0f} % of the budget": (logs[i], logs[j]) for f, logs in budget.items()}
    sides |= {f"equal {axis}": at_equal(cells, of, axis, i, j) for axis in AXES}
    return {name: paired(a, b, alpha, np.log(cells.cap)) for name, (a, b) in sides.items()}


def paired(treated: Matrix, without: Matrix, alpha: float, worst: float = np.inf) -> Comparison:
    """Compare two rows by seed where both have a value; pairs at `worst` on both sides failed together."""
    both = np.isfinite(treated) & np.isfinite(without)
    a, b = treated[both], without[both]
    return stats.compare(a, b, int(((a >= worst) & (b >= worst)).sum()), alpha)
