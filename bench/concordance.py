"""Symptoms against failures: does a run that shows a symptom fail more often?"""

import pandas as pd

from bench import stats
from bench.detect import SYMPTOMS
from bench.effects import Analysis
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results


def concordance(results: Results) -> pd.DataFrame:
    """Return symptom x failure, one row a symptom, over all runs that the machine did not lose.

    Columns: symptom; with_failed, with_ok, without_failed, without_ok (numbers of runs with and without the
    symptom); failed_with, failed_with_low, failed_with_high, failed_without, ..._low, ..._high (share of failed
    runs with Wilson's 95 % interval, NaN where there is no run); p (Barnard's exact test, uncorrected). Runs of
    all arms are pooled, so an arm that has both more symptoms and more failures shows up here too. A symptom that no
    run shows may not have been looked for; `collapse_class_partial` is by its definition not severe, so it never
    stands beside `collapse_class`.
    """
    runs = results.runs[~results.runs["status"].isin(MACHINE_FAILURES)]
    failed = runs["status"].isin(METHOD_FAILURES)
    codes = runs["detectors"].fillna("").str.split(";").map(lambda x: {code.strip() for code in x})
    rows = []
    for symptom in SYMPTOMS:
        shown = codes.map(lambda x, symptom=symptom: symptom in x).astype(bool)
        k, n = int((failed & shown).sum()), int(shown.sum())
        k0, n0 = int((failed & ~shown).sum()), int((~shown).sum())
        shares = *stats.wilson(k, n), *stats.wilson(k0, n0)
        rows.append((symptom, k, n - k, k0, n0 - k0, *shares, stats.barnard(k, n, k0, n0)))
    sides = [f"failed_{side}{end}" for side in ("with", "without") for end in ("", "_low", "_high")]
    counts = ["with_failed", "with_ok", "without_failed", "without_ok"]
    return pd.DataFrame(rows, columns=["symptom", *counts, *sides, "p"])


def failure_rates(analysis: Analysis) -> pd.DataFrame:
    """Return each arm's failures with Wilson's 95 % interval: arm, failures, n, share, low, high."""
    rows = [(a.name, a.failures, a.n, *stats.wilson(a.failures, a.n)) for a in analysis.arms]
    return pd.DataFrame(rows, columns=["arm", "failures", "n", "share", "low", "high"])
