"""Exact small-sample statistics: estimates, intervals and tests that stay honest with ten seeds."""

from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, comb
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MARGIN = float(np.log(1.05))  # the smallest effect of interest: 5 % of the score
ALPHA = 0.05
FEWEST_PAIRS = 6  # with fewer, no two-sided exact test can reach .05
WILCOXON = 1.05  # what the signed-rank test costs against the paired t test that power is computed by
MANY = 200  # pairs: beyond, the normal approximation of a sample size is off by less than one
TINY = 1e-12  # a Fréchet distance of identical sets may print as -5e-16; its logarithm must exist


class Estimate(NamedTuple):
    """An estimate with its interval; `low` and `high` are infinite where n is too small for one."""

    estimate: float
    low: float
    high: float


@cache
def signed_rank_cdf(n: int) -> NDArray[np.float64]:
    """Return P(W <= w) for w = 0 .. n(n+1)/2, W the signed-rank sum of n untied differences; read-only."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        chances = _add_rank(chances, rank)
    chances = np.cumsum(chances)
    chances.flags.writeable = False
    return chances


def _add_rank(chances: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Convolve a distribution of rank sums with one more rank, whose sign is a fair coin."""
    longer = np.zeros(len(chances) + rank)
    longer[: len(chances)] += chances / 2
    longer[rank:] += chances / 2
    return longer


@cache
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices i <= j of all pairs of n values."""
    return np.triu_indices(n)


@cache
def _limit(n: int, confidence: float) -> int:
    """Return k of STATISTICS.md section 4.1: the limits are the k-th pairwise mean from either end."""
    return int(np.argmax(signed_rank_cdf(n) > (1 - confidence) / 2))


def hodges_lehmann(differences: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the median of all pairwise means, with the interval that inverts the exact signed-rank test.

    differences: (n,) finite. Five differences have no 95 % interval: both limits are infinite.
    Source: STATISTICS.md section 4.1; Hollander, Wolfe and Chicken 2014, section 3.2 and 3.3.
    """
    d = np.asarray(differences, dtype=float)
    return _estimate(_pairwise_means(d), len(d), confidence)


def _pairwise_means(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of all pairs i <= j, sorted: (n(n+1)/2,)."""
    first, second = _pairs(len(d))
    return np.sort((d[first] + d[second]) / 2)


def _estimate(means: NDArray[np.float64], n: int, confidence: float) -> Estimate:
    if not n:
        return Estimate(np.nan, -np.inf, np.inf)
    k = _limit(n, round(confidence, 9))  # 1 - 2 x .025 is not quite .95
    low, high = (means[k - 1], means[-k]) if k else (-np.inf, np.inf)
    return Estimate(_median(means), float(low), float(high))


def _median(ordered: NDArray[np.float64]) -> float:
    """Return the median of sorted values; numpy's takes ten times as long for so few."""
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def signed_rank(differences: ArrayLike) -> float:
    """Return the two-sided exact p of Wilcoxon's signed-rank test, for any ties and zeros.

    Zeros are ranked and their ranks split between the signs (zsplit), ties get their mean rank, and the null
    distribution is the one of these very ranks, built by dynamic programming over doubled ranks (integers).
    No difference at all gives 1.
    """
    d = np.asarray(differences, dtype=float)
    sizes = np.abs(d)
    ordered = np.sort(sizes)
    if len(d) and ordered[0] > 0 and (np.diff(ordered) > 0).all():  # no ties: a table that is there
        n, cdf = len(d), signed_rank_cdf(len(d))
        positive = int((np.argsort(np.argsort(sizes)) + 1)[d > 0].sum())
        return float(min(1.0, 2 * cdf[min(positive, n * (n + 1) // 2 - positive)]))
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


@cache
def barnard(failures: int, n: int, failures_other: int, n_other: int) -> float:
    """Return the two-sided p of Barnard's exact test that two shares are equal; 1 where a side has no run.

    The statistic is the pooled Wald statistic; p is the largest probability, over the unknown common share, of
    tables at least as extreme. Given the sum of both counts that probability is hypergeometric, so p is the
    maximum of a polynomial in one share, found on a grid that is refined twice.
    Source: STATISTICS.md section 2.3; Barnard 1947. `scipy.stats.barnard_exact` takes 20 times as long, and its
    search can end in a local maximum (.0580 for .0618 at 0 of 5 against 3 of 5).
    """
    total = n + n_other
    if not n or not n_other or failures + failures_other in (0, total):
        return 1.0
    a, b = np.arange(n + 1)[:, None], np.arange(n_other + 1)[None, :]
    pooled = (a + b) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        wald = np.abs(a / n - b / n_other) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / n_other))
    wald = np.nan_to_num(wald)  # nobody failed, or everybody: no difference
    extreme = wald >= wald[failures, failures_other] * (1 - 1e-9)
    log = np.cumsum(np.log(np.maximum(1, np.arange(total + 1))))  # of the factorials

    def choose(of: int, some: NDArray[np.intp]) -> NDArray[np.float64]:
        return log[of] - log[some] - log[of - some]

    given_sum = np.exp(choose(n, a) + choose(n_other, b) - choose(total, a + b)) * extreme
    sums = np.arange(total + 1)
    weights = np.bincount((a + b).ravel(), given_sum.ravel(), total + 1)
    low, high, largest = 1e-9, 1 - 1e-9, 0.0
    for points in (1001, 101, 101):
        share = np.linspace(low, high, points)
        chance = np.exp(
            choose(total, sums) + np.outer(np.log(share), sums) + np.outer(np.log1p(-share), total - sums)
        )
        p = chance @ weights
        best, step = int(p.argmax()), share[1] - share[0]
        largest = max(largest, float(p[best]))
        low, high = max(1e-9, share[best] - step), min(1 - 1e-9, share[best] + step)
    return min(1.0, largest)


def capped_log(scores: ArrayLike, failed: ArrayLike, cap: float) -> NDArray[np.float64]:
    """Return log scores in which a failed run has the worst rank: the cap, which no score exceeds.

    scores: (n,) lower is better, NaN where there is none; failed: (n,) bool. A run without a score that did
    not fail (the machine's fault) stays NaN: its pair is left out, and counted.
    """
    scores = np.where(np.asarray(failed, dtype=bool), cap, np.asarray(scores, dtype=float))
    return np.log(np.clip(scores, TINY, cap))


def alike(treated: ArrayLike, reference: ArrayLike, failed: ArrayLike, cap: float) -> str:
    """Return why paired log scores say nothing although they are there, in words; empty where they say something.

    treated, reference: (n,) capped log scores; failed: (n,) bool, either side; cap: the log score of a failure. Runs
    that train anew never give one number twice: either nothing was switched on, or the seeds are one run, copied.
    Scores at the cap are equal because they were cut off, and tell nothing of this.
    """
    sides = [np.asarray(side, dtype=float) for side in (treated, reference)]
    failed = np.asarray(failed, dtype=bool)
    sound = [side[~failed & (side < cap)] for side in sides]
    if min(map(len, sound)) > 1 and np.allclose(*sides, rtol=0, atol=1e-12):
        return "every seed gave the same number with it and without it, so nothing can be concluded"
    for side, where in zip(sound, ("with it", "without it"), strict=True):
        if len(side) > 1 and np.ptp(side) < 1e-12:
            return f"all seeds gave the same number {where}, so nothing can be concluded"
    return ""


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean without the lowest and highest quarter (rounded down) of the values; NaN for none."""
    values = np.sort(np.asarray(values, dtype=float))
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean()) if len(values) else np.nan


def improvement(differences: ArrayLike) -> float:
    """Return the share of pairs in which the treatment is better (lower), ties counting half; NaN for none."""
    d = np.asarray(differences, dtype=float)
    return float(((d < 0) + 0.5 * (d == 0)).mean()) if len(d) else np.nan


def improvement_of_any(treated: ArrayLike, reference: ArrayLike) -> float:
    """Return the share of all (treated, reference) combinations in which the treated one is better (lower)."""
    return improvement(np.subtract.outer(np.asarray(treated, float), np.asarray(reference, float)).ravel())


def best_of(values: ArrayLike) -> NDArray[np.float64]:
    """Return the expected lowest of k = 1 .. n values drawn without replacement: (n,).

    Source: STATISTICS.md section 2.6: E[min of k] = sum over i of y_(i) C(n - i, k - 1) / C(n, k).
    """
    y = np.sort(np.asarray(values, dtype=float))
    n = len(y)
    chances = [[comb(n - i, k - 1) / comb(n, k) for i in range(1, n + 1)] for k in range(1, n + 1)]
    return np.asarray(chances).reshape(n, n) @ y


def robust_spread(values: ArrayLike) -> float:
    """Return the standard deviation as the median absolute deviation sees it; NaN for fewer than two."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan
    return 1.4826 * _median(np.sort(np.abs(values - _median(np.sort(values)))))


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Pearson's correlation, or NaN where either side is constant or there are fewer than 3 pairs."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@cache
def _unit_effect(n: int, family: int, power: float, alpha: float) -> float:
    """Return the smallest effect, in standard deviations of the differences, that a paired t test finds."""
    from scipy.optimize import brentq  # here, because importing scipy takes a second
    from scipy.stats import nct, t

    critical = t.ppf(1 - alpha / family / 2, n - 1)
    return float(brentq(lambda shift: nct.sf(critical, n - 1, shift) - power, 1e-6, 100) / np.sqrt(n))


def fewest(family: int = 1, alpha: float = ALPHA) -> int:
    """Return the fewest pairs with which the exact test can reach alpha / family, and no fewer than 6."""
    return max(FEWEST_PAIRS, int(np.floor(1 + np.log2(family / alpha))) + 1)


def detectable(spread: float, n: int, family: int = 1, power: float = 0.8, alpha: float = ALPHA) -> float:
    """Return the smallest true effect that n pairs find with this power, in units of `spread`'s.

    spread: standard deviation of the paired differences (of logs: the effect is a log ratio). family: number
    of tricks corrected for. Infinite where the exact test cannot reach alpha / family at all. The paired t
    test is the guide, 5 % is added for the signed-rank test (STATISTICS.md section 2.5).
    """
    if np.isnan(spread) or n < 2 or 2.0 ** (1 - n) >= alpha / family:
        return np.inf
    return WILCOXON * spread * _unit_effect(n, family, power, alpha)


def needed(
    effect: float, spread: float, family: int = 1, power: float = 0.8, alpha: float = ALPHA
) -> int | None:
    """Return how many pairs find a true effect of this size with this power; None where it is 0 or unknown.

    effect, spread: of paired differences, as in `detectable`, whose inverse this is. Beyond 200 pairs the
    normal approximation is used.
    """
    if not np.isfinite(effect) or not np.isfinite(spread) or effect == 0:
        return None
    normal, size = NormalDist(), abs(effect)
    critical = normal.inv_cdf(1 - alpha / family / 2)
    rough = ((critical + normal.inv_cdf(power)) * WILCOXON * spread / size) ** 2 + critical**2 / 2
    if rough > MANY:
        return ceil(rough)
    return _smallest(lambda n: detectable(spread, n, family, power, alpha) <= size, fewest(family, alpha))


def equivalence_power(spread: float, n: int, alpha: float = ALPHA, margin: float = MARGIN) -> float:
    """Return the chance that n pairs of no true effect are shown equivalent by two one-sided paired t tests.

    spread: standard deviation of the paired differences. The chance is averaged over 400 equally likely values
    of the observed spread.
    """
    if not spread > 0 or n < 2:
        return float(n >= 2 and spread == 0)
    observed = _observed_spreads(n)
    room = np.sqrt(n) * margin / spread - _t_critical(n, alpha) * observed
    from scipy.special import ndtr

    return float(np.maximum(0, 2 * ndtr(room) - 1).mean())


@cache
def _observed_spreads(n: int) -> NDArray[np.float64]:
    """Return 400 equally likely observed standard deviations of n normal values, in units of the true one."""
    from scipy.stats import chi2

    return np.sqrt(chi2.ppf((np.arange(400) + 0.5) / 400, n - 1) / (n - 1))


@cache
def _t_critical(n: int, alpha: float) -> float:
    from scipy.stats import t

    return float(t.ppf(1 - alpha, n - 1))


def needed_for_equivalence(
    spread: float, power: float = 0.8, alpha: float = ALPHA, margin: float = MARGIN
) -> int | None:
    """Return how many pairs show an equivalence with this power if there is no true effect; None if unknown."""
    if not np.isfinite(spread):
        return None
    normal = NormalDist()
    critical = normal.inv_cdf(1 - alpha)
    wide = WILCOXON * spread
    rough = ((critical + normal.inv_cdf((1 + power) / 2)) * wide / margin) ** 2 + critical**2 / 2
    if rough > MANY:
        return ceil(rough)
    return _smallest(lambda n: equivalence_power(wide, n, alpha, margin) >= power, FEWEST_PAIRS)


def _smallest(enough: Callable[[int], bool], low: int) -> int:
    """Return the smallest n from `low` on for which a monotone `enough` holds."""
    high = low
    while not enough(high):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


class Comparison(NamedTuple):
    """What paired log scores say about one treatment; effects are differences of logs, negative is better."""

    n: int  # pairs with a score or a failure on both sides
    effect: Estimate  # with its 1 - alpha interval: 95 % unless a grid has two looks
    effect90: Estimate  # with its 1 - 2 alpha interval, for equivalence
    p: float  # exact, two-sided, uncorrected; 1 without pairs
    both_failed: int
    spread: float  # of the differences
    correlation: float  # of the two arms over seeds


def compare(
    treated: ArrayLike, reference: ArrayLike, both_failed: int = 0, alpha: float = ALPHA
) -> Comparison:
    """Compare log scores paired by position: (n,) each, finite."""
    treated, reference = np.asarray(treated, dtype=float), np.asarray(reference, dtype=float)
    d = treated - reference
    means = _pairwise_means(d)
    return Comparison(
        n=len(d),
        effect=_estimate(means, len(d), 1 - alpha),
        effect90=_estimate(means, len(d), 1 - 2 * alpha),
        p=signed_rank(d) if len(d) else 1.0,
        both_failed=both_failed,
        spread=robust_spread(d),
        correlation=correlation(treated, reference),
    )


VERDICTS = ("helps", "hurts", "equivalent", "unstable", "inconclusive")


def verdict(comparison: Comparison, p: float, alpha: float = ALPHA) -> str:
    """Return what one comparison says by itself; `p` is its p, corrected where it belongs to a family.

    Equivalence comes before significance: a real effect inside the margin is equivalent. Where more than
    half of the pairs failed on both sides, their zero differences would read as equivalence: inconclusive.
    What failures say beyond their rank (`unstable`) is the business of `bench.verdicts`.
    Source: STATISTICS.md section 2.4, steps 1 and 3 to 5.
    """
    c = comparison
    if c.n < FEWEST_PAIRS or 2 * c.both_failed > c.n:
        return "inconclusive"
    if max(-c.effect90.low, c.effect90.high) < MARGIN:
        return "equivalent"
    if p < alpha and c.effect.estimate != 0:
        return "helps" if c.effect.estimate < 0 else "hurts"
    return "inconclusive"


def quartiles(values: Sequence[float]) -> Estimate:
    """Return the median with the lower and upper quartile; NaN for no values."""
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan)
    low, middle, high = np.quantile(np.asarray(values, dtype=float), [0.25, 0.5, 0.75])
    return Estimate(float(middle), float(low), float(high))
