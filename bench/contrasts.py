"""From matrices of runs to arms and effects: which arm is compared with which, and what the pairs say."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench import stats, verdicts
from bench.cells import Cells
from bench.effects import Arm, Cost, Effect
from bench.stats import Estimate


def arms_of(
    described: Sequence[dict[str, Any]], runs: pd.DataFrame, table: Cells, alpha: float
) -> tuple[Arm, ...]:
    """Return the arms with their runs, in the grid's order; an arm that was not run has none."""
    runs = runs.sort_values("seed", kind="stable")
    runs = runs.set_index(runs["seed"].astype(int))
    by_arm = dict(iter(runs.groupby("arm", observed=True)))
    arms = []
    for i, arm in enumerate(described):
        own = by_arm.get(arm["arm"], runs.iloc[:0])
        logs = pd.Series(table.logs[i, np.searchsorted(table.seeds, own.index)], index=own.index)
        level = stats.hodges_lehmann(logs.dropna(), 1 - alpha)
        level = Estimate(*(float(np.exp(x)) for x in level))
        arms.append(Arm(arm["arm"], arm["role"], arm["tricks"], own, logs, level))
    return tuple(arms)


def _extra(arm: Arm, beside: Arm) -> list[str]:
    """Return the tricks that an arm sets otherwise than another."""
    return [name for name, values in arm.tricks.items() if beside.tricks.get(name) != values]


def stack_of(arms: Sequence[Arm], reference: Arm) -> Arm | None:
    """Return the arm from which others leave one trick out, where a grid has both designs.

    Such an arm adds three tricks or more to the reference, every arm that lacks just one of them is in the grid, and
    no other arm but the stack itself adds more than one.
    """
    added = {arm.name: _extra(arm, reference) for arm in arms if arm.role == "trick"}
    stack = max((a for a in arms if a.name in added), key=lambda a: len(added[a.name]), default=None)
    if stack is None or len(added[stack.name]) < 3:
        return None
    less = [a for a in arms if len(added.get(a.name, ())) > 1 and a is not stack]
    gone = [name for a in less if _is_less(a, stack) for name in set(stack.tricks) - set(a.tricks)]
    return stack if sorted(gone) == sorted(added[stack.name]) and len(less) == len(gone) else None


def _is_less(arm: Arm, stack: Arm) -> bool:
    """Say whether an arm is the stack without exactly one of its tricks."""
    return len(arm.tricks) == len(stack.tricks) - 1 and not _extra(arm, stack)


def effect_of(arm: Arm, reference: Arm, stack: Arm | None, table: Cells, alpha: float) -> Effect:
    """Compare an arm with its other side, seed by seed; the verdict waits for the family."""
    inside = stack is not None and _is_less(arm, stack) and len(_extra(arm, reference)) > 1
    other = stack if stack is not None and inside else reference
    changed, removed = _extra(arm, other), [name for name in other.tricks if name not in arm.tricks]
    left_out = bool(removed) and not changed
    treated, without = (other, arm) if left_out else (arm, other)
    i, j = (table.arms.index(side.name) for side in (treated, without))
    both = np.isfinite(table.logs[i]) & np.isfinite(table.logs[j])
    a, b, failed = table.logs[i, both], table.logs[j, both], table.failed[[i, j]][:, both]
    pairs = pd.DataFrame(
        {"with": a, "without": b, "failed": failed.any(axis=0)},
        index=pd.Index(table.seeds[both], name="seed"),
    )
    sound = ~failed.any(axis=0)
    return Effect(
        arm=arm,
        other=other,
        left_out=left_out,
        tricks=tuple(removed if left_out else changed + removed),
        comparison=stats.compare(a, b, int(failed.all(axis=0).sum()), alpha),
        pairs=pairs,
        conditional=stats.hodges_lehmann((a - b)[sound], 1 - alpha),
        failures_with=(treated.failures, treated.n),
        failures_without=(without.failures, without.n),
        cost=_cost(table, i, j),
        poi=stats.improvement(a - b),
        poi_of_any=stats.improvement_of_any(a, b),
        alike=stats.alike(a, b, failed.any(axis=0), np.log(table.cap)),
    )


def judged(effects: Sequence[Effect], alpha: float) -> list[Effect]:
    """Give the verdicts: tricks as one family, controls by themselves."""
    cases = []
    for e in effects:
        sides = (e.other, e.arm) if e.left_out else (e.arm, e.other)
        lost = [(side.lost, len(side.runs)) for side in sides]
        in_family = e.arm.role == "trick"
        case = verdicts.Case(e.comparison, e.failures_with, e.failures_without, *lost, in_family, e.alike)
        cases.append(case)
    return [
        replace(
            effect,
            p_holm=said.p_holm,
            p_failures=said.p_failures,
            verdict=said.word,
            reason=said.reason,
            qualifiers=said.tags,
            detectable=said.detectable,
            needed=said.needed,
        )
        for effect, said in zip(effects, verdicts.judge(cases, alpha), strict=True)
    ]


def _cost(table: Cells, treated: int, without: int) -> Cost:
    """Return the cost of one side against the other: medians over seeds of finished runs.

    Seconds are compared only between runs of one seed that were timed under equal conditions.
    """
    finished = ~table.stopped[treated] & ~table.stopped[without]
    alike = table.timing[treated] == table.timing[without]

    def ratio(column: str, among: Any) -> float:
        values = table.columns[column]
        top, bottom = values[treated, among], values[without, among]
        ratios = top[bottom > 0] / bottom[bottom > 0]
        ratios = ratios[np.isfinite(ratios)]
        return float(np.median(ratios)) if len(ratios) else np.nan

    return Cost(
        ratio("train_seconds", finished & alike),
        ratio("parameters", finished),
        ratio("multiply_adds", finished),
        ratio("steps", finished),
    )
