"""How much the failures of a results folder hang on where the detectors' limits lie."""

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from bench.detect import Limits, detect, slack
from bench.results import METHOD_FAILURES, Results

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


def statuses(results: Results, limits: Limits, of: Collection[str] | None = None) -> pd.Series:
    """Return the status that each run (or each `of` these) would have under other limits, by run id.

    A run whose samples were never judged (diverged, or the machine's fault) keeps its own; so does every run of a
    folder that is older than the figures in its curves.csv.
    """
    runs, curves = results.runs.set_index("run"), results.curves
    if of is not None:
        runs, curves = runs[runs.index.isin(of)], curves[curves["run"].isin(of)]
    cap = (results.environment.get("cap") or {}).get("fd")
    raw = curves[curves["readout"].isna() | (curves["readout"] == "raw-eval")]
    judged = set(raw.loc[raw["metric"] == "flat", "run"]) - set(runs.index[runs["status"] == "diverged"])
    found = runs["status"].astype(str).copy()
    for run, own in raw[raw["run"].isin(judged)].groupby("run", observed=True):
        lines = {
            str(metric): list(zip(part["images"], part["value"], strict=True))
            for metric, part in own.sort_values("images").groupby("metric", observed=True)
        }
        figures = {metric: points[-1][1] for metric, points in lines.items()}
        extractor = str(runs.at[run, "extractor"])
        found[run] = detect(figures, lines, cap, slack(extractor, cap), limits)[0]
    return found


def lenient(results: Results) -> Limits:
    """Return the limits of a results folder, all twice as lenient."""
    return scaled(Limits(**dict(results.environment["score"].get("limits") or ())), FACTORS[-1])


def sensitivity(results: Results) -> pd.DataFrame:
    """Return how many runs of each arm fail with all limits stricter, as run, and more lenient.

    One row an arm, in the grid's order: runs, then a column for each of FACTORS; empty where curves.csv has no figures
    to judge again by.
    """
    if not (results.curves["metric"] == "flat").any():
        return pd.DataFrame()
    usual = Limits(**dict(results.environment["score"].get("limits") or ()))
    arms = results.runs.set_index("run")["arm"]
    table = pd.DataFrame({"runs": arms.groupby(arms, observed=True).size()})
    for factor in FACTORS:
        failed = statuses(results, scaled(usual, factor)).isin(METHOD_FAILURES)
        table[f"{factor:g}"] = failed.groupby(arms, observed=True).sum()
    return table
