"""When runs fail: how many of each arm do, and after how much training."""

import numpy as np
import pandas as pd
from scipy.stats import CensoredData, ecdf

from bench import stats
from bench.effects import Analysis, Arm


def failure_rates(analysis: Analysis) -> pd.DataFrame:
    """Return each arm's failures, with Wilson's 95 % interval of their share, and when they came.

    Columns: arm, failures, n, share, low, high; then of the failed runs whose time is known (rows made since it is
    recorded): timed (how many these are), never_sound (failed at the first point of the budget already), first, middle,
    last (images shown when they had failed for good: the earliest, the median, the latest; NaN where timed is 0).
    """
    earliest = min(analysis.results.environment["score"].get("points") or (0.0,))
    rows = []
    for arm in analysis.arms:
        times = _times(arm)[arm.failed].dropna()
        batch = arm.runs["images"] / arm.runs["steps"]  # points of the budget are whole steps
        start = (earliest * arm.runs["images"] + batch).reindex(times.index)
        spread = (times.min(), times.median(), times.max()) if len(times) else (np.nan,) * 3
        never = int((times <= start).sum())
        rows.append(
            (arm.name, arm.failures, arm.n, *stats.wilson(arm.failures, arm.n), len(times), never, *spread)
        )
    columns = [
        "arm",
        "failures",
        "n",
        "share",
        "low",
        "high",
        "timed",
        "never_sound",
        "first",
        "middle",
        "last",
    ]
    return pd.DataFrame(rows, columns=columns)


def sound(arm: Arm) -> pd.DataFrame:
    """Return the share of an arm's runs that were still sound after so many images: Kaplan & Meier's estimate (1958).

    Columns images (0, every time of a failure, and the end), sound. Empty where a run's time is not known. What
    the machine lost is left out.
    """
    told = arm.runs[arm.failed | (arm.runs["status"] == "ok")]
    times = _times(arm).reindex(told.index)
    failed = arm.failed.reindex(told.index)
    ends = told["images"].astype("float64")
    if told.empty or times[failed].isna().any() or ends[~failed].isna().any():
        return pd.DataFrame({"images": [], "sound": []})
    survived = ecdf(CensoredData(uncensored=times[failed].to_numpy(), right=ends[~failed].to_numpy())).sf
    steps = dict(zip(survived.quantiles, survived.probabilities, strict=True))
    last = max(float(ends.max()), *steps)
    steps = {0.0: 1.0} | steps
    return pd.DataFrame({"images": [*steps, last], "sound": [*steps.values(), list(steps.values())[-1]]})


def _times(arm: Arm) -> pd.Series:
    """Return by seed after how many images a run had failed for good, NaN for the others."""
    return arm.runs["failed_at"].astype("float64")
