"""Symptoms against failures: does a run that shows a symptom fail more often?"""

import pandas as pd

from bench import stats
from bench.detect import SYMPTOMS
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results

NEEDS = {  # the figure in curves.csv without which a symptom cannot be seen
    "d_win": "d_accuracy",
    "d_loss_zero": "d_floor",
    "d_dead": "d_accuracy",
    "g_vanish": "g_signal",
    "blowup": "d_gradient",
    "d_overfit": "d_overfit",
    "oscillation": "fd_spread",
    "duplicates": "duplicates",
    "memorise": "nearest_trained",
    "collapse_class_partial": "classes",
}
POINTS = 5  # of the second half of the budget: oscillation


def concordance(results: Results) -> pd.DataFrame:
    """Return symptom x failure, one row a symptom, over all runs that the machine did not lose and that it was looked
    for in.

    Columns: symptom; with_failed, with_ok, without_failed, without_ok (numbers of runs with and without the
    symptom); failed_with, failed_with_low, failed_with_high, failed_without, ..._low, ..._high (share of failed
    runs with Wilson's 95 % interval, NaN where there is no run); p (Barnard's exact test, uncorrected). Runs of
    all arms are pooled, so an arm that has both more symptoms and more failures shows up here too. Where a symptom was
    looked for in no run, all four numbers are 0. `collapse_class_partial` is there beside `collapse_class` too.
    """
    runs = results.runs[~results.runs["status"].isin(MACHINE_FAILURES)]
    failed = runs["status"].isin(METHOD_FAILURES)
    codes = runs["detectors"].fillna("").str.split(";").map(lambda x: {code.strip() for code in x})
    rows = []
    for symptom in SYMPTOMS:
        shown = codes.map(lambda x, symptom=symptom: symptom in x).astype(bool)
        seen = runs["run"].isin(_looked(results, symptom))
        seen = seen | (shown if seen.any() else shown.any())  # older folders have codes without their figures
        k, n = int((failed & shown).sum()), int(shown.sum())
        k0, n0 = int((failed & ~shown & seen).sum()), int((~shown & seen).sum())
        shares = *stats.wilson(k, n), *stats.wilson(k0, n0)
        rows.append((symptom, k, n - k, k0, n0 - k0, *shares, stats.barnard(k, n, k0, n0)))
    sides = [f"failed_{side}{end}" for side in ("with", "without") for end in ("", "_low", "_high")]
    counts = ["with_failed", "with_ok", "without_failed", "without_ok"]
    return pd.DataFrame(rows, columns=["symptom", *counts, *sides, "p"])


def _looked(results: Results, symptom: str) -> pd.Series:
    """Return the ids of the runs in which a symptom could be seen."""
    curves = results.curves
    has = curves.loc[curves["metric"] == NEEDS[symptom], "run"]
    if symptom != "oscillation":
        return has
    points = curves[(curves["metric"] == "fd") & (curves["readout"] == "raw-eval")]
    late = points[points["images"] >= points.groupby("run", observed=True)["images"].transform("max") / 2]
    counts = late.groupby("run", observed=True).size()
    return has[has.isin(counts.index[counts >= POINTS])]
