"""The verdict algorithm of STATISTICS.md section 2.4, over a family of contrasts: numbers in, words out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench import stats
from bench.stats import ALPHA, FEWEST_PAIRS, MARGIN, Comparison

TOLERATED = 0.05  # a failure rate that is surely above this makes an arm unstable
LOST = 0.1  # of an arm's runs, to the machine: beyond, nothing is concluded


class Case(NamedTuple):
    """One contrast to be judged, always `with` against `without`; counts are (k, n) of runs.

    alike: why its seeds say nothing though there are enough of them (`stats.alike`), else empty.
    """

    comparison: Comparison
    failures_with: tuple[int, int]  # failures of the training
    failures_without: tuple[int, int]
    lost_with: tuple[int, int] = (0, 0)  # to the machine
    lost_without: tuple[int, int] = (0, 0)
    in_family: bool = True  # a control keeps its own p
    alike: str = ""


class Verdict(NamedTuple):
    """What is said of one contrast.

    word: one of `stats.VERDICTS`. reason: why it is unstable or inconclusive, in words, else empty; an
    inconclusive one begins with "data: " or "power: ". tags: `large` or `size uncertain` for an effect,
    `stabilises`, `baseline unstable`. p_holm, p_failures: of the signed-rank test and of Barnard's test on
    the failures, corrected over the family. needed: pairs that would find the observed effect in 4 of 5
    grids. detectable: the smallest difference of logs that these pairs find in 4 of 5 grids.
    """

    word: str
    reason: str
    tags: tuple[str, ...]
    p_holm: float
    p_failures: float
    needed: int | None
    detectable: float


def unstable(failures: int, n: int) -> bool:
    """Say whether an arm's failure rate is surely above the tolerated one: Wilson's lower 95 % limit is."""
    return stats.wilson(failures, n).low > TOLERATED


def judge(cases: Sequence[Case], alpha: float = ALPHA) -> list[Verdict]:
    """Return the verdicts of a family of contrasts, in the order given; controls are judged by themselves."""
    family = sum(case.in_family for case in cases)
    scores = [case.comparison.p for case in cases]
    failures = [stats.barnard(*case.failures_with, *case.failures_without) for case in cases]
    p_holm, p_failures = (_corrected(cases, p) for p in (scores, failures))
    return [
        _judge(case, p, p_failed, family if case.in_family else 1, alpha)
        for case, p, p_failed in zip(cases, p_holm, p_failures, strict=True)
    ]


def _corrected(cases: Sequence[Case], p: Sequence[float]) -> list[float]:
    """Correct the family's p values by Holm and leave those of controls as they are."""
    corrected = np.array(p, dtype=float)
    inside = np.array([case.in_family for case in cases], dtype=bool)
    corrected[inside] = stats.holm(corrected[inside])
    return corrected.tolist()


def _judge(case: Case, p_holm: float, p_failures: float, family: int, alpha: float) -> Verdict:
    c = case.comparison
    can = stats.detectable(c.spread, c.n, family, alpha=alpha)
    needed = stats.needed(c.effect.estimate, c.spread, family, alpha=alpha)

    def say(word: str, reason: str = "", *more: str) -> Verdict:
        return Verdict(word, reason, (*tags, *more), p_holm, p_failures, needed, can)

    tags: tuple[str, ...] = ()
    if reason := _too_little_data(case):
        return say("inconclusive", f"data: {reason}")
    (k, n), (k0, n0) = case.failures_with, case.failures_without
    differ = p_failures < alpha
    if differ and unstable(k, n) and k / n > k0 / n0:  # also where the baseline is unstable, but less so
        counts = f"{k} of {n} runs failed with it, {k0} of {n0} without"
        return say("unstable", f"{counts} (Barnard's exact test, p = {p_failures:.2g})")
    if unstable(k0, n0):
        tags = ("stabilises",) if differ else ("baseline unstable",)
    word = stats.verdict(c, p_holm, alpha)
    if word in ("helps", "hurts"):
        large = min(abs(c.effect.low), abs(c.effect.high)) > MARGIN and c.effect.low * c.effect.high > 0
        return say(word, "", "large" if large else "size uncertain")
    return say(
        word, f"power: {_more_power(case, can, needed, family, alpha)}" if word == "inconclusive" else ""
    )


def _too_little_data(case: Case) -> str:
    """Return why nothing can be concluded whatever the numbers are, or nothing."""
    c = case.comparison
    for side, (k, n) in (("with it", case.lost_with), ("without it", case.lost_without)):
        if k > LOST * n:
            return f"{k} of {n} runs {side} were lost to the machine, more than {100 * LOST:.0f} %"
    if not c.n:
        return "no seed has a score on both sides"
    if c.n < FEWEST_PAIRS:
        return f"{c.n} pair{'s' * (c.n > 1)} of runs, a verdict needs {FEWEST_PAIRS}"
    if 2 * c.both_failed > c.n:
        return f"{c.both_failed} of {c.n} pairs failed on both sides, so they cannot differ"
    return case.alike


def _more_power(case: Case, can: float, needed: int | None, family: int, alpha: float) -> str:
    """Return what these pairs could have seen, and how many it would take."""
    c = case.comparison
    if np.isinf(can):
        least = stats.fewest(family, alpha)
        contrasts = f"{family} contrasts" if family > 1 else "one contrast"
        return f"{c.n} pairs are too few for {contrasts}: no exact test can call anything below {least}"
    parts = [f"could see a factor of {np.exp(can):.2f} (or {np.exp(-can):.2f})"]
    if needed and needed > c.n:
        parts.append(f"about {needed:,} seeds would show the observed {np.exp(c.effect.estimate):.2f}")
    same = stats.needed_for_equivalence(c.spread, alpha=alpha)
    if same and same > c.n:
        parts.append(f"about {same:,} an equivalence, if there is no effect")
    return "; ".join(parts)
