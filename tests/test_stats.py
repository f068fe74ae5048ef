"""Laws of the statistics, with scipy and brute force as oracles."""

import itertools

import numpy as np
import pytest
import scipy.stats

from bench import stats

RANDOM = np.random.default_rng(7)
SAMPLES = [RANDOM.normal(0.3, 1, n) for n in (1, 2, 5, 8, 13, 20, 30)]
TIED = [
    [0.0, 1, 1, -1, 2, 2, -3],
    [0.0, 0.0, 0.0, 1, -1, 2],
    [1.0, 1, 1, 1, 1],
    [-2.0, 0, 0, 0],
    [0.5, -0.5, 0.5, -0.5, 0.5, 0.25, 0, 3],
]


@pytest.mark.parametrize("d", SAMPLES, ids=len)
def test_signed_rank_equals_scipys_exact_test_without_ties(d):
    assert stats.signed_rank(d) == pytest.approx(scipy.stats.wilcoxon(d, method="exact").pvalue, rel=1e-12)


@pytest.mark.parametrize("d", TIED, ids=str)
def test_signed_rank_equals_all_sign_flips_with_ties_and_zeros(d):
    method = scipy.stats.PermutationMethod(n_resamples=np.inf)
    oracle = scipy.stats.wilcoxon(d, zero_method="zsplit", method=method).pvalue
    assert stats.signed_rank(d) == pytest.approx(oracle, rel=1e-12)


def test_no_difference_at_all_gives_p_one():
    assert stats.signed_rank([0.0] * 7) == 1.0


def test_signed_rank_does_not_care_about_the_sign_the_order_or_the_unit():
    for d in [*SAMPLES, *map(np.array, TIED)]:
        p = stats.signed_rank(d)
        assert stats.signed_rank(-d) == p
        assert stats.signed_rank(d[::-1]) == p
        assert stats.signed_rank(4 * d) == p


def test_the_smallest_p_halves_with_every_pair():
    assert [stats.signed_rank(np.arange(1, n + 1)) for n in (5, 6, 10)] == [1 / 16, 1 / 32, 1 / 512]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_the_null_distribution_is_that_of_all_signs(n):
    sums = [sum(r for r, on in enumerate(signs, 1) if on) for signs in itertools.product((0, 1), repeat=n)]
    counted = np.bincount(sums, minlength=n * (n + 1) // 2 + 1).cumsum() / 2**n
    np.testing.assert_allclose(stats.signed_rank_cdf(n), counted, rtol=1e-12)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("d", SAMPLES[3:], ids=len)
def test_the_interval_holds_exactly_the_shifts_that_the_test_does_not_reject(d, confidence):
    interval = stats.hodges_lehmann(d, confidence)
    nudge = 1e-9
    for inside in (interval.low + nudge, interval.high - nudge, interval.estimate):
        assert stats.signed_rank(d - inside) > 1 - confidence
    for outside in (interval.low - nudge, interval.high + nudge):
        if np.isfinite(outside):
            assert stats.signed_rank(d - outside) <= 1 - confidence


def test_five_pairs_have_no_95_percent_interval_and_six_have():
    assert stats.hodges_lehmann([1, 2, 3, 4, 5]) == (3, -np.inf, np.inf)
    assert stats.hodges_lehmann([1, 2, 3, 4, 5, 6]) == (3.5, 1, 6)
    assert stats.hodges_lehmann([1, 2, 3, 4, 5], 0.9) == (3, 1, 5)


def test_one_and_no_difference_have_infinite_intervals():
    assert stats.hodges_lehmann([0.3]) == (0.3, -np.inf, np.inf)
    assert np.isnan(stats.hodges_lehmann([]).estimate)


def test_the_estimate_shifts_scales_and_mirrors_with_the_data():
    for d in SAMPLES:
        e = np.array(stats.hodges_lehmann(d))
        np.testing.assert_allclose(stats.hodges_lehmann(d + 2), e + 2)
        np.testing.assert_allclose(stats.hodges_lehmann(4 * d), 4 * e)
        np.testing.assert_allclose(stats.hodges_lehmann(-d), -e[[0, 2, 1]])


def test_more_confidence_widens_the_interval():
    for d in SAMPLES[3:]:
        narrow, wide = stats.hodges_lehmann(d, 0.9), stats.hodges_lehmann(d, 0.99)
        assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high


@pytest.mark.parametrize("draw", ["normal", "t3", "collapses"])
def test_the_interval_covers_the_truth_in_95_of_100_studies(draw):
    # symmetric noise: coverage is at least nominal, whatever the tails (STATISTICS.md section 2.2)
    random, studies, covered = np.random.default_rng(11), 800, 0
    for _ in range(studies):
        d = random.standard_t(3, 10) if draw == "t3" else random.normal(0, 1, 10)
        if draw == "collapses":
            d += random.choice([0, 10, -10], 10, p=[0.9, 0.05, 0.05])
        _, low, high = stats.hodges_lehmann(d)
        covered += low <= 0 <= high
    error = (0.95 * 0.05 / studies) ** 0.5  # Monte-Carlo standard error: .0077
    assert 0.95 - 3 * error < covered / studies < 0.96 + 3 * error


def test_holm_equals_the_textbook_and_keeps_the_order_given():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(stats.holm([0.9, 0.9]), [1, 1])
    assert len(stats.holm([])) == 0


def test_holm_lies_between_the_raw_p_and_bonferroni():
    p = RANDOM.uniform(0, 0.2, 12)
    adjusted = stats.holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, 12 * p) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (2, 10), (5, 10), (10, 10), (0, 1), (7, 30)])
def test_wilson_equals_scipys(k, n):
    oracle = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    assert stats.wilson(k, n) == pytest.approx((k / n, oracle.low, oracle.high), abs=1e-12)


def test_wilson_of_nothing_is_anything():
    share, low, high = stats.wilson(0, 0)
    assert np.isnan(share)
    assert (low, high) == (0, 1)


def test_a_failed_run_has_the_worst_rank_and_no_score_is_beyond_the_cap():
    logs = stats.capped_log([30.0, np.nan, 9000.0, 20.0], [False, True, False, True], cap=600)
    np.testing.assert_allclose(np.exp(logs), [30, 600, 600, 600])


def test_a_run_lost_by_the_machine_has_no_score_and_a_negative_zero_has_one():
    logs = stats.capped_log([np.nan, -5e-16], [False, False], cap=600)
    assert np.isnan(logs[0])
    assert np.isfinite(logs[1])


def test_a_pair_that_failed_on_both_sides_differs_by_zero():
    both = stats.capped_log([np.nan, 50.0], [True, True], cap=600)
    assert stats.compare(both, both, both_failed=2).effect.estimate == 0


def test_the_interquartile_mean_is_scipys_trimmed_mean():
    for n in (1, 3, 4, 5, 10, 17):
        x = RANDOM.normal(size=n)
        assert stats.interquartile_mean(x) == pytest.approx(scipy.stats.trim_mean(x, 0.25))
    assert np.isnan(stats.interquartile_mean([]))


def test_the_robust_spread_ignores_one_collapse():
    x = np.r_[RANDOM.normal(0, 1, 199), 1000]
    assert 0.7 < stats.robust_spread(x) < 1.3
    assert np.isnan(stats.robust_spread([1.0]))


@pytest.mark.parametrize(
    ("n", "family", "table"), [(10, 1, 1.41), (20, 1, 0.93), (10, 12, 2.16), (16, 12, 1.52), (20, 12, 1.32)]
)
def test_the_detectable_effect_equals_the_table_of_section_2_5(n, family, table):
    # the table is in standard deviations of a run at no correlation: the differences' is sqrt(2) of it
    assert stats.detectable(2**0.5, n, family) / 1.05 == pytest.approx(table, abs=0.006)


def test_too_few_pairs_for_the_family_detect_nothing():
    # n > 1 + log2(m / .05)
    for family, enough in ((1, 6), (5, 8), (7, 9), (12, 9), (20, 10), (30, 11)):
        assert np.isinf(stats.detectable(0.1, enough - 1, family))
        assert np.isfinite(stats.detectable(0.1, enough, family))


def test_the_stated_power_is_reached_in_simulated_studies():
    random, found = np.random.default_rng(3), 0
    effect = stats.detectable(1.0, 10)
    for _ in range(400):
        found += stats.signed_rank(random.normal(effect, 1, 10)) < 0.05
    assert 0.8 - 0.06 < found / 400 < 0.8 + 0.06  # three Monte-Carlo standard errors


def paired(ratio, spread, n=10, seed=0):
    random = np.random.default_rng(seed)
    reference = random.normal(3.6, 0.1, n)
    return stats.compare(reference + np.log(ratio) + random.normal(0, spread, n), reference)


def verdict_of(comparison):
    return stats.verdict(comparison, comparison.p)


def test_verdicts_are_what_the_numbers_say():
    assert verdict_of(paired(0.7, 0.05)) == "helps"
    assert verdict_of(paired(1.4, 0.05)) == "hurts"
    assert verdict_of(paired(1.0, 0.01)) == "equivalent"
    assert verdict_of(paired(1.0, 0.3)) == "inconclusive"
    assert verdict_of(paired(0.5, 0.01, n=5)) == "inconclusive"  # five pairs can never say
    assert verdict_of(stats.compare([], [])) == "inconclusive"


def test_a_real_effect_smaller_than_the_margin_is_equivalent():
    comparison = paired(0.98, 0.002)
    assert comparison.p < 0.05
    assert verdict_of(comparison) == "equivalent"


def test_pairs_that_failed_together_do_not_read_as_equivalence():
    assert verdict_of(stats.compare(np.ones(10), np.ones(10))) == "equivalent"
    assert verdict_of(stats.compare(np.ones(10), np.ones(10), both_failed=6)) == "inconclusive"


def test_a_correction_can_take_a_verdict_back():
    d = -0.05 * np.arange(1, 11) * np.where(np.arange(1, 11) == 3, -1, 1)  # rank 3 has the other sign
    comparison = stats.compare(d, np.zeros(10))
    assert comparison.p == 2 * 5 / 2**10  # W <= 3: {}, 1, 2, 3, 1 + 2
    assert verdict_of(comparison) == "helps"
    assert stats.verdict(comparison, stats.holm([comparison.p] * 12)[0]) == "inconclusive"


def test_a_family_of_nothing_is_rarely_called_anything():
    # 7 tricks that do nothing, 10 seeds: P(any is called) <= .05 (Monte-Carlo standard error .0126)
    random, studies, false_calls = np.random.default_rng(5), 300, 0
    for _ in range(studies):
        reference = random.normal(0, 0.1, 10)
        comparisons = [stats.compare(reference + random.normal(0, 0.2, 10), reference) for _ in range(7)]
        corrected = stats.holm([c.p for c in comparisons])
        calls = [stats.verdict(c, p) for c, p in zip(comparisons, corrected, strict=True)]
        false_calls += any(call in ("helps", "hurts") for call in calls)
    assert false_calls / studies < 0.05 + 3 * 0.0126


def test_correlation_of_a_constant_or_of_two_pairs_is_unknown():
    assert np.isnan(stats.correlation([1, 1, 1], [1, 2, 3]))
    assert np.isnan(stats.correlation([1, 2], [1, 2]))
    assert stats.correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
