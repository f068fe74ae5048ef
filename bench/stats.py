"""Exact small-sample statistics: estimates, intervals and tests that stay honest with ten seeds."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MARGIN = float(np.log(1.05))  # the smallest effect of interest: 5 % of the score
ALPHA = 0.05
FEWEST_PAIRS = 6  # with fewer, no two-sided exact test can reach .05
TINY = 1e-12  # a Fréchet distance of identical sets may print as -5e-16; its logarithm must exist


class Estimate(NamedTuple):
    """An estimate with its interval; `low` and `high` are infinite where n is too small for one."""

    estimate: float
    low: float
    high: float


def signed_rank_cdf(n: int) -> NDArray[np.float64]:
    """Return P(W <= w) for w = 0 .. n(n+1)/2, W the signed-rank sum of n untied differences."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        chances = _add_rank(chances, rank)
    return np.cumsum(chances)


def _add_rank(chances: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Convolve a distribution of rank sums with one more rank, whose sign is a fair coin."""
    longer = np.zeros(len(chances) + rank)
    longer[: len(chances)] += chances / 2
    longer[rank:] += chances / 2
    return longer


def hodges_lehmann(differences: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the median of all pairwise means, with the interval that inverts the exact signed-rank test.

    differences: (n,) finite. Five differences have no 95 % interval: both limits are infinite.
    Source: STATISTICS.md section 4.1; Hollander, Wolfe and Chicken 2014, section 3.2 and 3.3.
    """
    d = np.asarray(differences, dtype=float)
    if not len(d):
        return Estimate(np.nan, -np.inf, np.inf)
    first, second = np.triu_indices(len(d))
    walsh = np.sort((d[first] + d[second]) / 2)
    k = int(np.argmax(signed_rank_cdf(len(d)) > (1 - confidence) / 2))
    low, high = (walsh[k - 1], walsh[-k]) if k else (-np.inf, np.inf)
    return Estimate(float(np.median(walsh)), float(low), float(high))


def signed_rank(differences: ArrayLike) -> float:
    """Return the two-sided exact p of Wilcoxon's signed-rank test, for any ties and zeros.

    Zeros are ranked and their ranks split between the signs (zsplit), ties get their mean rank, and the null
    distribution is the one of these very ranks, built by dynamic programming over doubled ranks (integers).
    No difference at all gives 1.
    """
    d = np.asarray(differences, dtype=float)
    sizes = np.abs(d)
    ordered = np.sort(sizes)
    # twice the mean rank of a tied group = its first rank + its last rank
    doubled = np.searchsorted(ordered, sizes, side="left") + 1 + np.searchsorted(ordered, sizes, side="right")
    chances = np.ones(1)
    for rank in doubled[d != 0]:  # a zero adds half its rank to both sides: a constant, left out of both
        chances = _add_rank(chances, int(rank))
    observed = int(doubled[d > 0].sum())
    tail = min(chances[: observed + 1].sum(), chances[observed:].sum())
    return float(min(1.0, 2 * tail))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's adjusted p values, in the order given: (m,) in [0, 1]."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return the share `successes / n` with Wilson's score interval, all in [0, 1]."""
    if n == 0:
        return Estimate(np.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def capped_log(scores: ArrayLike, failed: ArrayLike, cap: float) -> NDArray[np.float64]:
    """Return log scores in which a failed run has the worst rank: the cap, which no score exceeds.

    scores: (n,) lower is better, NaN where there is none; failed: (n,) bool. A run without a score that did
    not fail (the machine's fault) stays NaN: its pair is left out, and counted.
    """
    scores = np.where(np.asarray(failed, dtype=bool), cap, np.asarray(scores, dtype=float))
    return np.log(np.clip(scores, TINY, cap))


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean without the lowest and highest quarter (rounded down) of the values; NaN for none."""
    values = np.sort(np.asarray(values, dtype=float))
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean()) if len(values) else np.nan


def robust_spread(values: ArrayLike) -> float:
    """Return the standard deviation as the median absolute deviation sees it; NaN for fewer than two."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Pearson's correlation, or NaN where either side is constant or there are fewer than 3 pairs."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def detectable(spread: float, n: int, family: int = 1, power: float = 0.8) -> float:
    """Return the smallest true effect that n pairs find with this power, in units of `spread`'s.

    spread: standard deviation of the paired differences (of logs: the effect is a log ratio). family: number
    of tricks corrected for. Infinite where the exact test cannot reach .05 / family at all. The paired t
    test is the guide, 5 % is added for the signed-rank test (STATISTICS.md section 2.5).
    """
    if np.isnan(spread) or n < 2 or 2.0 ** (1 - n) >= ALPHA / family:
        return np.inf
    from scipy.optimize import brentq  # here, because importing scipy takes a second
    from scipy.stats import nct, t

    critical = t.ppf(1 - ALPHA / family / 2, n - 1)

    def surplus(effect: float) -> float:
        return float(nct.sf(critical, n - 1, effect * np.sqrt(n))) - power

    return float(1.05 * spread * brentq(surplus, 1e-6, 100))


class Comparison(NamedTuple):
    """What paired log scores say about one treatment; effects are differences of logs, negative is better."""

    n: int  # pairs with a score or a failure on both sides
    effect: Estimate  # with its 95 % interval
    effect90: Estimate  # with its 90 % interval, for equivalence
    p: float  # exact, two-sided, uncorrected; 1 without pairs
    both_failed: int
    spread: float  # of the differences
    correlation: float  # of the two arms over seeds


def compare(treated: ArrayLike, reference: ArrayLike, both_failed: int = 0) -> Comparison:
    """Compare log scores paired by position: (n,) each, finite."""
    treated, reference = np.asarray(treated, dtype=float), np.asarray(reference, dtype=float)
    d = treated - reference
    return Comparison(
        n=len(d),
        effect=hodges_lehmann(d, 0.95),
        effect90=hodges_lehmann(d, 0.90),
        p=signed_rank(d) if len(d) else 1.0,
        both_failed=both_failed,
        spread=robust_spread(d),
        correlation=correlation(treated, reference),
    )


VERDICTS = ("helps", "hurts", "equivalent", "inconclusive")


def verdict(comparison: Comparison, p: float) -> str:
    """Return one of VERDICTS; `p` is the comparison's p, corrected where it belongs to a family.

    Equivalence comes before significance: a real effect inside the margin is equivalent. Where more than
    half of the pairs failed on both sides, their zero differences would read as equivalence: inconclusive.
    Source: STATISTICS.md section 2.4, without `unstable` and the qualifiers.
    """
    c = comparison
    if c.n < FEWEST_PAIRS or 2 * c.both_failed > c.n:
        return "inconclusive"
    if max(-c.effect90.low, c.effect90.high) < MARGIN:
        return "equivalent"
    if p < ALPHA and c.effect.estimate != 0:
        return "helps" if c.effect.estimate < 0 else "hurts"
    return "inconclusive"


def quartiles(values: Sequence[float]) -> Estimate:
    """Return the median with the lower and upper quartile; NaN for no values."""
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan)
    low, middle, high = np.quantile(np.asarray(values, dtype=float), [0.25, 0.5, 0.75])
    return Estimate(float(middle), float(low), float(high))
