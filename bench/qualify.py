"""What a verdict depends on: the budget, the axis, the metric, the context, the data set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench import axes, stats
from bench.cells import Cells, Matrix
from bench.effects import Analysis, Effect, is_placebo
from bench.results import METHOD_FAILURES, Results
from bench.sensitivity import lenient, statuses
from bench.stats import Comparison
from bench.verdicts import unstable

# On its own scale, so turned that lower is better: differences of KID (which may be negative), of recall, and of
# logs of the Inception score. Precision is no witness: a collapsed G can have all of it.
METRICS = {
    "kid": lambda x: x,
    "recall": lambda x: -x,
    "is": lambda x: -np.log(np.maximum(x, stats.TINY)),
}
CONTEXT = "leave-one-out minus one-at-a-time"
EQUAL_SECONDS = "equal seconds"  # as `axes.comparisons` names it
BUSY = 0.1  # by so much a placebo's time may be off before the times of a grid are called noisy


def qualified(effects: Sequence[Effect], results: Results, cells: Cells, alpha: float) -> list[Effect]:
    """Return the effects with their secondary comparisons and with what their verdicts depend on.

    Everything here is secondary: each comparison is judged by itself at alpha, uncorrected. `budget-dependent`:
    helps at one of 25, 50, 75, 100 % of the budget or at equal images, steps or seconds, and hurts at another; seconds
    count where the grid's placebo says that they can be trusted (`mistimed`).
    `metric-dependent`: KID, recall or the Inception score moves significantly against the distance.
    `context-dependent`: the trick alone and the trick on top of the others differ, by the same test.
    `limit-dependent`: unstable, but not with all limits of the failure detectors twice as lenient.
    """
    row = {arm: i for i, arm in enumerate(cells.arms)}
    paths = axes.paths(results, cells)
    budget = axes.along(cells, paths) if paths else {}
    metrics = {name: _metric(cells, name) for name in METRICS if np.isfinite(cells.columns[name]).any()}
    contexts = _contexts(effects, alpha)
    seen = []
    for effect in effects:
        i, j = row[effect.arm.name], row[effect.other.name]
        i, j = (j, i) if effect.left_out else (i, j)
        found = axes.comparisons(cells, paths, budget, i, j, alpha) if paths else {}
        others = {name: axes.paired(values[i], values[j], alpha) for name, values in metrics.items()}
        context = contexts.get(effect.arm.name, {})
        seen.append(replace(effect, secondary=found | others | context))
    untimed = {EQUAL_SECONDS} if mistimed(seen, results.tricks, alpha) else set()
    out = []
    for effect in seen:
        context = contexts.get(effect.arm.name, {})
        others = {name: c for name, c in effect.secondary.items() if name in metrics}
        found = {n: c for n, c in effect.secondary.items() if n not in {*metrics, *context, *untimed}}
        more = _words(effect.comparison, found, others, context, alpha)
        if effect.verdict == "unstable" and not _still_unstable(effect, results, alpha):
            more.append("limit-dependent")
        out.append(replace(effect, qualifiers=(*effect.qualifiers, *more)))
    return out


def mistimed(effects: Sequence[Effect], cards: Mapping[str, Any], alpha: float) -> Effect | None:
    """Return the placebo whose time, or whose score at equal time, is off, so that no time of the grid can be trusted.

    None where there is no such placebo.
    """
    for effect in effects:
        if is_placebo(effect, cards):
            at = effect.secondary.get(EQUAL_SECONDS)
            moved = at is not None and stats.verdict(at, at.p, alpha) in ("helps", "hurts")
            if moved or abs(np.log(effect.cost.seconds)) > np.log1p(BUSY):
                return effect
    return None


def _metric(cells: Cells, name: str) -> Matrix:
    """Return a metric, lower is better, failed runs as the worst of the grid."""
    values = METRICS[name](cells.columns[name])
    return np.where(cells.failed, np.nanmax(values), np.where(cells.lost, np.nan, values))


def _words(
    primary: Comparison,
    found: Mapping[str, Comparison],
    metrics: Mapping[str, Comparison],
    context: Mapping[str, Comparison],
    alpha: float,
) -> list[str]:
    words = []
    verdicts = {stats.verdict(c, c.p, alpha) for c in (primary, *found.values())}
    if {"helps", "hurts"} <= verdicts:
        words.append("budget-dependent")
    direction = {"helps": -1, "hurts": 1}.get(stats.verdict(primary, primary.p, alpha), 0)
    # the margin is one of log distances: on a metric's own scale only the sign of a significant change counts
    if any(c.p < alpha and c.effect.estimate * direction < 0 for c in metrics.values()):
        words.append("metric-dependent")
    if any(stats.verdict(c, c.p, alpha) in ("helps", "hurts") for c in context.values()):
        words.append("context-dependent")
    return words


def _still_unstable(effect: Effect, results: Results, alpha: float) -> bool:
    """Say whether failures are as many as to be unstable when their limits are twice as lenient."""
    counts = []
    for side in (effect.arm, effect.other)[:: -1 if effect.left_out else 1]:
        failed = set(side.runs["run"][side.failed])
        counts.append((int(statuses(results, lenient(results), failed).isin(METHOD_FAILURES).sum()), side.n))
    (k, n), (k0, n0) = counts
    holm = effect.p_failures / stats.barnard(*effect.failures_with, *effect.failures_without)
    return unstable(k, n) and k / n > k0 / n0 and holm * stats.barnard(k, n, k0, n0) < alpha


def _contexts(effects: Sequence[Effect], alpha: float) -> dict[str, dict[str, Comparison]]:
    """Return, for each arm whose trick is there alone and on top of the others, how the two effects differ."""
    alone = {_key(e): e for e in effects if len(e.tricks) == 1 and not e.left_out}
    out = {}
    for stacked in effects:
        one = alone.get(_key(stacked))
        if not stacked.left_out or one is None:
            continue
        seeds = one.pairs.index.intersection(stacked.pairs.index)
        inside, outside = ((e.pairs["with"] - e.pairs["without"])[seeds] for e in (stacked, one))
        out[stacked.arm.name] = out[one.arm.name] = {CONTEXT: stats.compare(inside, outside, alpha=alpha)}
    return out


def _key(effect: Effect) -> str:
    """Return the tricks with their values as one word."""
    return ";".join(settings(effect.values)) or ";".join(effect.tricks)


def settings(values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return `trick.field=value` of tricks with their values."""
    return [
        f"{trick}.{field}={value:g}" if isinstance(value, float) else f"{trick}.{field}={value}"
        for trick, fields in values.items()
        for field, value in fields.items()
    ]


def axes_table(analysis: Analysis) -> pd.DataFrame:
    """Return each effect along the budget and at equal images, steps and seconds: one row each.

    Columns: arm, at, n, ratio, low, high (of the 1 - alpha interval), p (uncorrected), verdict (by itself). NaN
    where no pair can be compared. Time and steps are taken as linear in images within a run.
    """
    metrics = {*METRICS, CONTEXT}
    rows = [
        (e.arm.name, at, c.n, *np.exp(c.effect), c.p, stats.verdict(c, c.p, analysis.alpha))
        for e in analysis.effects
        for at, c in e.secondary.items()
        if at not in metrics
    ]
    return pd.DataFrame(rows, columns=["arm", "at", "n", "ratio", "low", "high", "p", "verdict"])
