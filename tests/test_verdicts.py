"""Laws of the verdict algorithm (STATISTICS.md section 2.4) and of what is built around it."""

import itertools
import json
import shutil
import time
from fractions import Fraction
from math import comb

import fake_results
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bench import pages, stats, verdicts
from bench.analyse import analyse, best_of, caveats, last_to_best, verdict_table
from bench.concordance import SYMPTOMS, concordance
from bench.errors import Refused
from bench.pages import Table
from bench.qualify import CONTEXT, axes_table
from bench.results import load
from bench.sections import _power as power_sentence
from bench.sections import best_first, light, words
from bench.sections import verdict_table as report_table
from bench.survival import failure_rates
from bench.together import across
from bench.verdicts import Case, judge


def case(ratio=1.0, spread=0.02, n=10, failures=(0, 10), before=(0, 10), seed=0, **more):
    random = np.random.default_rng(seed)
    reference = random.normal(3, 0.1, n)
    treated = reference + np.log(ratio) + random.normal(0, spread, n)
    return Case(stats.compare(treated, reference, more.pop("both_failed", 0)), failures, before, **more)


def one(*args, **kwargs):
    return judge([case(*args, **kwargs)])[0]


# --- Barnard, Wilson


def plain_barnard(k, n, j, m):
    """Barnard's p with the region in exact fractions and the supremum on a fine grid."""

    def wald(a, b):
        pooled = Fraction(a + b, n + m)
        return 0 if pooled in (0, 1) else (Fraction(a, n) - Fraction(b, m)) ** 2 / (pooled * (1 - pooled))

    region = [(a, b) for a in range(n + 1) for b in range(m + 1) if wald(a, b) >= wald(k, j)]
    x = np.linspace(0, 1, 4001)
    chances = [comb(n, a) * comb(m, b) * x ** (a + b) * (1 - x) ** (n + m - a - b) for a, b in region]
    return sum(chances).max()


@pytest.mark.parametrize(("n", "m"), [(5, 5), (10, 10), (7, 12), (10, 20)])
def test_barnard_is_the_plain_sum_over_tables_and_never_below_scipys(n, m):
    agree = []
    for k in range(0, n + 1, 2):
        for j in range(0, m + 1, 3):
            p = stats.barnard(k, n, j, m)
            assert p == pytest.approx(plain_barnard(k, n, j, m), abs=1e-6), (k, n, j, m)
            if 0 < k + j < n + m:  # scipy's search can end in a local maximum: .0580 for .0618 at 0/5, 3/5
                oracle = scipy.stats.barnard_exact([[k, j], [n - k, m - j]]).pvalue
                assert oracle < p + 1e-9, (k, n, j, m)
                agree.append(p == pytest.approx(oracle, abs=1e-6))
    assert sum(agree) >= len(agree) / 2


def test_barnard_does_not_care_which_side_is_which_nor_what_is_counted():
    for k, n, j, m in [(4, 10, 0, 10), (3, 7, 5, 20), (0, 9, 2, 12)]:
        p = stats.barnard(k, n, j, m)
        assert stats.barnard(j, m, k, n) == pytest.approx(p, rel=1e-6)
        assert stats.barnard(n - k, n, m - j, m) == pytest.approx(p, rel=1e-6)
    assert stats.barnard(4, 10, 0, 10) == pytest.approx(0.042, abs=5e-4)  # STATISTICS.md section 2.3
    assert stats.barnard(0, 0, 3, 10) == stats.barnard(0, 10, 0, 10) == stats.barnard(5, 5, 8, 8) == 1


def test_the_fewest_failures_that_are_surely_too_many_are_those_of_section_2_4():
    for n, fewest in ((5, 2), (10, 2), (16, 3), (20, 3), (30, 4)):
        assert verdicts.unstable(fewest, n)
        assert not verdicts.unstable(fewest - 1, n)


# --- the steps in their order


def test_step_1_too_little_data_comes_before_everything():
    assert one(0.5, n=5).reason == "data: 5 pairs of runs, a verdict needs 6"
    assert one(0.5, n=0).reason.startswith("data: no seed")
    assert one(0.5, failures=(10, 10), lost_with=(2, 12)).reason.startswith("data: 2 of 12 runs with it")
    assert one(0.5, lost_without=(2, 12)).reason.startswith("data: 2 of 12 runs without it")
    assert one(1.0, 0.001, both_failed=6).reason.startswith("data: 6 of 10 pairs failed on both sides")
    assert one(0.5, lost_with=(1, 10)).word == "helps"  # one in ten is not more than a tenth


def test_step_2_many_more_failures_are_unstable_however_good_the_rest_is():
    found = one(0.5, failures=(6, 10))
    assert found.word == "unstable"
    assert found.reason.startswith("6 of 10 runs failed with it, 0 of 10 without (Barnard")
    assert one(0.5, failures=(3, 10)).word == "helps"  # Wilson says so, Barnard (p = .09) does not
    assert one(0.5, failures=(10, 10), before=(3, 10)).word == "unstable"  # both are, this one more
    assert one(0.5, failures=(1, 10), before=(0, 1000)).word == "helps"  # Barnard says so, Wilson does not


def test_step_2_barnard_is_corrected_over_the_family():
    quiet = [case(1.0, 0.01, seed=i) for i in range(11)]
    assert judge([case(0.5, failures=(5, 10)), *quiet])[0].word == "helps"
    assert judge([case(0.5, failures=(7, 10)), *quiet])[0].word == "unstable"
    assert judge([case(0.5, failures=(5, 10), in_family=False), *quiet])[0].word == "unstable"


def test_step_2_a_trick_can_stabilise_an_unstable_baseline():
    assert one(0.5, before=(7, 10)).tags == ("stabilises", "large")
    assert one(0.5, failures=(2, 10), before=(9, 10)).tags == ("stabilises", "large")
    assert one(0.5, failures=(4, 10), before=(4, 10)).tags == ("baseline unstable", "large")


def test_step_3_equivalence_comes_before_significance():
    found = one(0.98, 0.002)
    assert found.p_holm < 0.05
    assert found.word == "equivalent"
    assert found.reason == ""


def test_step_4_a_size_is_large_where_the_interval_excludes_the_margin():
    assert one(0.7).tags == one(1.4).tags == ("large",)
    d = np.arange(0.02, 0.12, 0.01)  # around .065; its interval begins at .04, inside the margin
    for sign, word in ((-1, "helps"), (1, "hurts")):
        [found] = judge([Case(stats.compare(sign * d, np.zeros(10)), (0, 10), (0, 10))])
        assert found[:3] == (word, "", ("size uncertain",))


def test_step_5_what_is_left_says_what_it_would_take():
    found = one(0.97, 0.25, seed=1)
    assert found.word == "inconclusive"
    assert found.reason.startswith("power: could see a factor of ")
    assert f"about {found.needed:,} seeds would show the observed" in found.reason
    few = judge([case(0.5, n=8, seed=i) for i in range(12)])[0]
    assert (
        few.reason == "power: 8 pairs are too few for 12 contrasts: no exact test can call anything below 9"
    )


def test_a_second_look_asks_for_more():
    assert one(0.5, n=6).word == "helps"
    assert judge([case(0.5, n=6)], alpha=0.025)[0].word == "inconclusive"
    wide, narrow = (stats.compare(np.arange(20.0), np.zeros(20), alpha=a).effect for a in (0.025, 0.05))
    assert wide.low < narrow.low
    assert wide.high > narrow.high


# --- properties


def random_comparisons():
    random = np.random.default_rng(4)
    for _ in range(60):
        n = int(random.integers(6, 20))
        yield random.normal(random.normal(0, 0.1), random.choice([0.01, 0.05, 0.2]), n).round(2), random


def word(d, **more):
    comparison = stats.compare(d, np.zeros(len(d)), **more)
    return stats.verdict(comparison, comparison.p)


def test_swapping_the_sides_swaps_helps_and_hurts_and_nothing_else():
    swapped = {"helps": "hurts", "hurts": "helps"}
    for d, _ in random_comparisons():
        assert word(-d) == swapped.get(word(d), word(d))


def test_the_order_of_the_seeds_does_not_matter():
    for d, random in random_comparisons():
        mixed = random.permutation(d)
        assert stats.signed_rank(mixed) == pytest.approx(stats.signed_rank(d))
        assert word(mixed) == word(d)


def test_a_wider_margin_only_makes_more_equivalent(monkeypatch):
    before = [word(d) for d, _ in random_comparisons()]
    monkeypatch.setattr(stats, "MARGIN", np.log(1.2))
    after = [word(d) for d, _ in random_comparisons()]
    assert all(b in (a, "equivalent") for a, b in zip(before, after, strict=True))
    assert before.count("equivalent") < after.count("equivalent")


# --- sizes of samples


def test_the_seeds_needed_are_the_inverse_of_the_detectable_effect():
    for effect, spread, family in [(0.1, 0.1, 12), (0.05, 0.1, 1), (0.3, 0.1, 7), (0.2, 0.3, 30)]:
        n = stats.needed(effect, spread, family)
        assert stats.detectable(spread, n, family) <= effect
        assert n == stats.fewest(family) or stats.detectable(spread, n - 1, family) > effect
        assert stats.needed(-effect, spread, family) == n
    assert stats.needed(0.0, 0.1) is None
    assert stats.needed(np.nan, np.nan) is None


def test_the_rough_sample_size_joins_the_exact_one():
    for n in (150, 190):  # just below where the approximation takes over
        effect = stats.detectable(1.0, n, 12)
        exact, rough = stats.needed(effect * 1.0001, 1.0, 12), stats.needed(effect / 2, 1.0, 12)
        assert exact == n
        assert rough == pytest.approx(4 * n, rel=0.03)


def test_equivalence_needs_the_seeds_of_section_2_5():
    for sigma, expected in ((0.01, 3), (0.02, 5), (0.03, 9), (0.05, 20), (0.1, 74)):
        spread = 2**0.5 * sigma
        assert next(n for n in range(2, 99) if stats.equivalence_power(spread, n) >= 0.8) == expected
    assert stats.needed_for_equivalence(2**0.5 * 0.05) == pytest.approx(20 * 1.05**2, abs=1)


def test_equivalence_is_found_as_often_as_promised():
    random, found = np.random.default_rng(2), 0
    n = stats.needed_for_equivalence(0.1)
    for _ in range(300):
        found += max(np.abs(stats.hodges_lehmann(random.normal(0, 0.1, n), 0.9)[1:])) < stats.MARGIN
    assert 0.8 - 0.07 < found / 300 < 0.8 + 0.07  # three Monte-Carlo standard errors


# --- improvement, best of k


def test_the_probability_of_improvement_is_counted_with_ties_as_halves():
    assert stats.improvement([-1, -2, 0, 3]) == 2.5 / 4
    assert np.isnan(stats.improvement([]))
    random = np.random.default_rng(1)
    a, b = random.normal(0, 1, 9).round(1), random.normal(0.3, 1, 12).round(1)
    oracle = scipy.stats.mannwhitneyu(b, a).statistic / (9 * 12)
    assert stats.improvement_of_any(a, b) == pytest.approx(oracle)


def test_best_of_k_is_that_of_section_2_6_and_of_all_subsets():
    curve = stats.best_of([40, 42, 41, 45, 44, 43, 300, 41.5, 46, 39])
    assert curve[[0, 2, 9]] == pytest.approx([68.15, 40.52, 39], abs=0.005)
    values = np.random.default_rng(0).normal(0, 1, 6)
    for k in range(1, 7):
        subsets = [min(s) for s in itertools.combinations(values, k)]
        assert stats.best_of(values)[k - 1] == pytest.approx(np.mean(subsets))
    assert len(stats.best_of([])) == 0


# --- whole results

FEW = {k: fake_results.ARMS[k] for k in ("baseline", "label_smoothing", "pooling.kind=max", "placebo")}


def study(tmp_path, change=None, name="x", **more):
    """Write fake results, let `change` edit (runs, curves, environment), and analyse what is there then."""
    folder = fake_results.write(tmp_path / name, **({"arms": FEW, "samples": False} | more))
    if change:
        runs, curves = (
            pd.read_csv(folder / f"{f}.csv", dtype=str, na_filter=False) for f in ("runs", "curves")
        )
        environment = json.loads((folder / "environment.json").read_text())
        runs, curves = change(runs, curves, environment) or (runs, curves)
        runs.to_csv(folder / "runs.csv", index=False)
        curves.to_csv(folder / "curves.csv", index=False)
        (folder / "environment.json").write_text(json.dumps(environment))
    return load(folder)


def effects(results, **more):
    return {e.arm.name: e for e in analyse(results, **more).effects}


def test_the_fields_of_an_effect_agree_with_its_pairs(tmp_path):
    for e in effects(study(tmp_path, arms=None)).values():
        d = e.pairs["with"] - e.pairs["without"]
        assert e.poi == stats.improvement(d)
        assert e.conditional == stats.hodges_lehmann(d[~e.pairs["failed"]])
        assert e.standardised == pytest.approx(e.comparison.effect.estimate / stats.robust_spread(d))
        assert 0 <= e.poi_of_any <= 1


def test_the_verdict_table_has_the_columns_of_the_design_first(tmp_path):
    analysis = analyse(study(tmp_path, arms=None))
    table = verdict_table(analysis)
    design = "arm trick values n ratio low high p_holm failures failures_baseline cost verdict qualifiers"
    assert " ".join(table).startswith(design)
    assert list(table["arm"]) == [e.arm.name for e in analysis.effects]
    row = table.set_index("arm").loc["pooling.kind=max"]
    assert (row["trick"], row["values"], row["failures"], row["runs"]) == (
        "pooling",
        "pooling.kind=max",
        3,
        10,
    )
    assert row["low"] < row["ratio"] < row["high"]
    few = verdict_table(analyse(study(tmp_path, name="few", seeds=3)))
    assert few[["low", "high"]].isna().all(axis=None)
    assert (few["reason"].str.startswith("data: 3 pairs")).all()


def test_an_analysis_of_the_first_seeds_is_that_of_a_grid_without_the_others(tmp_path):
    results = study(tmp_path, seeds=12)

    alone = study(tmp_path, without(lambda r: r["seed"].astype(int) >= 8), name="y", seeds=12)
    first = verdict_table(analyse(results, seeds=range(8), alpha=0.025))
    pd.testing.assert_frame_equal(first, verdict_table(analyse(alone, alpha=0.025)))
    assert analyse(results).seeds == tuple(range(12))


def test_seeds_and_levels_that_cannot_be_are_refused(tmp_path):
    results = study(tmp_path, seeds=2)
    with pytest.raises(Refused, match=r"seeds: 7 is not in .*runs.csv, which has 0, 1"):
        analyse(results, seeds=[0, 7])
    with pytest.raises(Refused, match="alpha: 2, allowed"):
        analyse(results, alpha=2)
    broken = study(tmp_path, lambda r, c, e: e.update(design_detail={"looks": [20, 10]}), name="y")
    with pytest.raises(Refused, match=r"design_detail.looks is .20, 10., allowed are rising"):
        analyse(broken)


def test_declared_looks_share_the_level_and_excuse_what_was_decided_at_the_first(tmp_path):
    def change(runs, curves, environment):
        environment["design_detail"] = {"looks": [10, 20]}
        decided = (runs["arm"] == "label_smoothing") & (runs["seed"].astype(int) >= 10)
        runs = runs[~decided]
        return runs, curves[curves["run"].isin(runs["run"])]

    analysis = analyse(study(tmp_path, change, seeds=20, spread=0.03))
    assert analysis.alpha == 0.025
    assert analysis.effects[0].verdict == "helps"
    assert not [note for note in caveats(analysis) if "not finished" in note or "declared" in note]
    told = pages.to_markdown(words(analysis))
    assert "p < .025, corrected" in told
    assert "two looks: each is judged at .025, with intervals of 97.5 %" in told


def test_seeds_beyond_what_was_declared_are_told(tmp_path):
    for declared in ({"seeds": list(range(10))}, {"design_detail": {"looks": [5, 10]}}):
        results = study(tmp_path, lambda r, c, e, d=declared: e.update(d), seeds=12)
        assert any("declared 10 seeds and has 12" in note for note in caveats(analyse(results)))
        shutil.rmtree(tmp_path / "x")
    assert not any("declared" in note for note in caveats(analyse(study(tmp_path, seeds=12))))


# --- equal time, equal steps, along the budget


def paths(of_arm, images=20_000, seconds=None, steps=None):
    """Give each arm a path: log scores at the five points, equal for all seeds but for a little noise."""

    def change(runs, curves, environment):
        random = np.random.default_rng(0)
        for i, run in runs.iterrows():
            noise = random.normal(0, 0.002)
            own = curves.index[(curves["run"] == run["run"]) & (curves["metric"] == "fd")]
            path = np.exp(np.array(of_arm.get(run["arm"], [4, 3, 2, 1, 0.5])) + noise)
            for at, value in zip(own, path, strict=True):
                curves.loc[at, "value"] = repr(float(value))
            runs.loc[i, "fd"] = runs.loc[i, "fd_best"] = repr(float(path[-1]))
            runs.loc[i, "train_seconds"] = str((seconds or {}).get(run["arm"], 10))
            runs.loc[i, "steps"] = str((steps or {}).get(run["arm"], 300))

    return change


TWO = {"baseline": fake_results.ARMS["baseline"], "label_smoothing": fake_results.ARMS["label_smoothing"]}


def at(results):
    table = axes_table(analyse(results))
    return table.set_index("at")


def test_at_equal_time_the_slower_run_is_read_where_the_faster_one_ends(tmp_path):
    # half again as slow: when the baseline ends it is at 2/3 of its images, between the points at .6 and .8
    change = paths({"label_smoothing": [3.5, 2.5, 1.4, 0.8, 0.0]}, seconds={"label_smoothing": 15})
    table = at(study(tmp_path, change, arms=TWO))
    there = 1.4 + (2 / 3 - 0.6) / 0.2 * (0.8 - 1.4)
    assert np.log(table.loc["equal seconds", "ratio"]) == pytest.approx(there - 0.5, abs=0.01)
    assert np.log(table.loc["equal steps", "ratio"]) == pytest.approx(-0.5, abs=0.01)
    assert np.log(table.loc["equal images", "ratio"]) == pytest.approx(-0.5, abs=0.01)
    assert np.log(table.loc["25 % of the budget", "ratio"]) == pytest.approx(-0.5, abs=0.01)
    assert np.log(table.loc["50 % of the budget", "ratio"]) == pytest.approx(-0.55, abs=0.01)
    assert table.loc["equal seconds", "n"] == 10


def test_arms_that_shared_an_array_are_not_timed_apart(tmp_path):
    """Also where a run failed: its score is the cap at any time, and still nothing was compared at equal time."""

    def change(runs, curves, environment):
        paths({}, seconds={"label_smoothing": 15})(runs, curves, environment)
        runs["runs_per_array"] = "20"
        bad = (runs["arm"] == "label_smoothing") & (runs["seed"] == "3")
        runs.loc[bad, ["status", "reason", "detectors"]] = ["collapsed", "one class", "collapse_class"]

    apart = study(tmp_path, change, arms=TWO)
    assert at(apart).loc["equal seconds", "n"] == 10
    assert effects(apart)["label_smoothing"].cost.seconds == pytest.approx(1.5)

    def together(runs, curves, environment):
        change(runs, curves, environment)
        runs["train_seconds"] = "15"

    found = study(tmp_path, together, name="y", arms=TWO)
    assert at(found).loc["equal seconds", "n"] == 0
    assert np.isnan(effects(found)["label_smoothing"].cost.seconds)
    [note] = [note for note in caveats(analyse(found)) if "shared arrays" in note]
    assert note.startswith("`baseline` and `label_smoothing` shared arrays")


def test_what_the_machine_does_to_single_runs_moves_nothing_at_equal_time(tmp_path):
    def change(runs, curves, environment):
        paths({"label_smoothing": [4, 3, 2, 1, 0.5]})(runs, curves, environment)
        slow = (runs["arm"] == "label_smoothing") & runs["seed"].astype(int).isin((1, 4, 7, 8))
        runs.loc[slow, "train_seconds"] = "14"

    table = at(study(tmp_path, change, arms=TWO))
    assert table.loc["equal seconds", "n"] == 10
    assert table.loc["equal seconds", "ratio"] == pytest.approx(1, abs=0.01)
    assert table.loc["equal seconds", "high"] < 1.02


@pytest.mark.parametrize(("times", "busy"), [(1.05, False), (1.33, True), (0.73, True)])
def test_a_placebo_that_took_another_time_says_that_times_are_noisy(times, busy, tmp_path):
    arms = TWO | {"placebo": ("control", {"placebo": {}}, 1.0, {}, times, 1.0)}
    notes = [
        note for note in caveats(analyse(study(tmp_path, arms=arms))) if "the machine had other work" in note
    ]
    assert len(notes) == busy
    assert all(f"took × {times:.1f}" in note for note in notes)


def test_a_trick_that_helps_an_image_and_hurts_a_second_depends_on_the_budget(tmp_path):
    change = paths({"label_smoothing": [4, 3, 2, 1, 0.0]}, seconds={"label_smoothing": 15})
    assert "budget-dependent" in effects(study(tmp_path, change, arms=TWO))["label_smoothing"].qualifiers
    change = paths({"label_smoothing": [4, 3, 2, 1, 0.0]})
    assert effects(study(tmp_path, change, name="y", arms=TWO))["label_smoothing"].qualifiers == ("large",)


def test_at_equal_steps_a_run_of_many_steps_is_read_early(tmp_path):
    change = paths({}, steps={"label_smoothing": 600})
    table = at(study(tmp_path, change, arms=TWO))
    assert np.log(table.loc["equal steps", "ratio"]) == pytest.approx(2.5 - 0.5, abs=0.01)
    assert table.loc["equal seconds", "ratio"] == pytest.approx(1, abs=0.01)


def test_what_cannot_be_compared_has_no_ratio(tmp_path):
    def change(runs, curves, environment):
        paths({}, seconds={"label_smoothing": 100}, steps={"label_smoothing": 350})(runs, curves, environment)
        runs.loc[runs["arm"] == "baseline", "threads"] = "2"

    table = at(study(tmp_path, change, arms=TWO))
    assert table.loc["equal seconds", "n"] == 0  # timed on other terms
    assert np.isnan(table.loc["equal seconds", "ratio"])
    too_slow = at(study(tmp_path, paths({}, seconds={"label_smoothing": 100}), name="y", arms=TWO))
    assert too_slow.loc["equal seconds", "n"] == 0  # at a tenth of the budget there is no point yet
    assert axes_table(analyse(study(tmp_path, name="z", arms=TWO, curves=False))).empty


def test_a_run_that_stopped_has_the_cap_only_from_there_on(tmp_path):
    stopped = dict.fromkeys(range(10), "diverged")
    arms = TWO | {"label_smoothing": ("trick", {"label_smoothing": {"target": 0.9}}, 1.0, stopped, 1, 1)}
    results = study(tmp_path, arms=arms, spread=0.02)
    table = at(results)
    assert table.loc["25 % of the budget", "ratio"] < 1.2  # its points end at 40 %
    assert table.loc["50 % of the budget", "ratio"] > 5
    whole = effects(results)["label_smoothing"].ratio
    assert table.loc["equal seconds", "ratio"] == pytest.approx(whole.estimate)


# --- metrics, context, data sets


@pytest.mark.parametrize(("metric", "better"), [("kid", -0.5), ("recall", 0.5), ("is", 2.0)])
def test_a_metric_that_moves_the_other_way_is_told(tmp_path, metric, better):
    def change(sign):
        def edit(runs, curves, environment):
            mine = runs["arm"] == "label_smoothing"
            shift = sign * better * 0.1 * np.where(mine, 1, 0)
            noise = np.random.default_rng(0).normal(0, 0.001, len(runs))
            runs[metric] = (np.where(metric == "is", 3, 0.3) + shift + noise).astype(str)

        return edit

    with_it = effects(study(tmp_path, change(1), arms=TWO, spread=0.03))["label_smoothing"]
    against = effects(study(tmp_path, change(-1), name="y", arms=TWO, spread=0.03))["label_smoothing"]
    assert with_it.verdict == against.verdict == "helps"
    assert "metric-dependent" not in with_it.qualifiers
    assert "metric-dependent" in against.qualifiers
    assert with_it.secondary[metric].effect.estimate < 0 < against.secondary[metric].effect.estimate


def both_designs(stacked):
    """Return arms of one-at-a-time and leave-one-out in one grid; `stacked`: score without input_noise."""
    every = {
        "label_smoothing": {"target": 0.9},
        "input_noise": {"sigma": 0.1},
        "pooling": {"kind": "average"},
    }
    arms = {"baseline": ("baseline", {}, 1.0, {}, 1.0, 1.0)}
    arms |= {t: ("trick", {t: v}, 0.8, {}, 1.0, 1.0) for t, v in every.items()}
    arms |= {"all": ("trick", every, 0.5, {}, 1.0, 1.0)}
    for trick in every:
        rest = {t: v for t, v in every.items() if t != trick}
        arms[f"all-{trick}"] = ("trick", rest, stacked if trick == "input_noise" else 0.62, {}, 1.0, 1.0)
    return arms


def test_a_grid_with_both_designs_compares_each_arm_with_its_own_other_side(tmp_path):
    found = effects(study(tmp_path, arms=both_designs(0.62), spread=0.03))
    assert found["input_noise"].other.name == "baseline"
    stacked = found["all-input_noise"]
    assert (stacked.other.name, stacked.left_out, stacked.tricks) == ("all", True, ("input_noise",))
    assert stacked.ratio.estimate == pytest.approx(0.5 / 0.62, abs=0.06)
    assert found["all"].other.name == "baseline"
    assert not any("context-dependent" in e.qualifiers for e in found.values())


def test_a_trick_that_helps_alone_and_hurts_on_top_depends_on_the_context(tmp_path):
    found = effects(study(tmp_path, arms=both_designs(0.4), spread=0.03))
    marked = {name for name, e in found.items() if "context-dependent" in e.qualifiers}
    assert marked == {"input_noise", "all-input_noise"}
    gap = found["input_noise"].secondary[CONTEXT].effect.estimate
    assert gap == pytest.approx(np.log(0.5 / 0.4) - np.log(0.8), abs=0.06)


def test_result_sets_stand_side_by_side_and_opposite_signs_are_told(tmp_path):
    worse = {"label_smoothing": ("trick", {"label_smoothing": {"target": 0.9}}, 1.4, {}, 1.0, 1.0)}
    a = analyse(study(tmp_path, spread=0.03))
    b = analyse(study(tmp_path, name="y", arms=FEW | worse, spread=0.03, extractor="inception-v3-compat"))
    c = analyse(
        study(
            tmp_path, lambda r, c, e: e["data"].update(set="mnist"), name="z", arms=FEW | worse, spread=0.03
        )
    )
    table = across([a, b])
    assert len(table) == len(a.effects) + len(b.effects)
    assert set(table["trick"][table["disagree"]]) == {"label_smoothing"}
    assert table["qualifiers"][table["disagree"]].str.contains("budget-dependent").all()
    assert set(table["score"]) == {"FD, classifier features", "FID"}
    other = across([a, c])
    assert other["qualifiers"][other["disagree"]].str.contains("dataset-dependent").all()
    assert not across([a, a])["disagree"].any()
    assert across([]).empty


# --- symptoms and failures


def test_symptom_against_failure_counts_runs_and_leaves_out_the_machines(tmp_path):
    def change(runs, curves, environment):
        seeds, failed = runs["seed"].astype(int), runs["status"] == "collapsed"
        runs["detectors"] = np.where(
            failed, "collapse_class;d_win", np.where(seeds == 0, "d_win;g_vanish", "")
        )
        runs.loc[runs.index[runs["status"] == "failed"], "detectors"] = "d_win"

    results = study(tmp_path, change, arms=None)
    table = concordance(results).set_index("symptom")
    assert list(table.index) == list(SYMPTOMS)
    runs = results.runs[results.runs["status"] != "failed"]
    bad, shown = runs["status"] != "ok", runs["detectors"].fillna("").str.contains("d_win")
    row = table.loc["d_win"]
    counts = [(bad & shown).sum(), (~bad & shown).sum(), (bad & ~shown).sum(), (~bad & ~shown).sum()]
    assert list(row[["with_failed", "with_ok", "without_failed", "without_ok"]]) == counts
    assert row["failed_with"] == counts[0] / (counts[0] + counts[1])
    assert row["failed_with_low"] < row["failed_with"] < row["failed_with_high"]
    assert row["p"] == pytest.approx(scipy.stats.barnard_exact(np.reshape(counts, (2, 2)).T).pvalue, abs=1e-6)
    assert np.isnan(table.loc["blowup", "failed_with"])
    assert table.loc["blowup", "p"] == 1


def test_a_symptom_is_counted_where_it_was_looked_for(tmp_path):
    def change(runs, curves, environment):
        runs["status"], runs["detectors"], runs["reason"] = "ok", "", ""
        runs.loc[runs["seed"] == "1", "detectors"] = "d_loss_zero"
        known = runs.loc[runs["seed"].isin(["0", "1", "2"]), "run"]
        floors = pd.DataFrame({"run": known, "images": "20000", "metric": "d_floor", "value": "0.0"})
        return runs, pd.concat([curves, floors], ignore_index=True).fillna("")

    table = concordance(study(tmp_path, change, arms=TWO)).set_index("symptom")
    counts = ["with_failed", "with_ok", "without_failed", "without_ok"]
    assert list(table.loc["d_loss_zero", counts]) == [0, 2, 0, 4]  # three seeds of two arms
    assert not table.loc["oscillation", counts].any()


def test_failure_rates_are_wilsons(tmp_path):
    rates = failure_rates(analyse(study(tmp_path))).set_index("arm")
    assert tuple(rates.loc["pooling.kind=max", ["failures", "n"]]) == (3, 10)
    assert tuple(rates.loc["pooling.kind=max", ["share", "low", "high"]]) == stats.wilson(3, 10)


def test_best_of_k_and_last_to_best_of_an_arm(tmp_path):
    def change(runs, curves, environment):
        runs["fd_best"] = [repr(float(x) / 2) if x else "" for x in runs["fd"]]

    arm = analyse(study(tmp_path, change)).reference
    assert last_to_best(arm) == pytest.approx((2, 2, 2))
    assert best_of(arm)[0] == pytest.approx(np.exp(arm.logs).mean())
    assert best_of(arm)[-1] == pytest.approx(np.exp(arm.logs.min()))


# --- bad input


def without(rows):
    def change(runs, curves, environment):
        kept = runs[~rows(runs)]
        return kept, curves[curves["run"].isin(kept["run"])]

    return change


BAD = {
    "one seed": ({"seeds": 1}, None, "With 1 seed no exact test"),
    "all runs of an arm failed": (
        {"every": "label_smoothing"},
        None,
        "Every run of `label_smoothing` failed",
    ),
    "all runs of the baseline failed": ({"every": "baseline"}, None, "is itself unstable"),
    "the baseline was not run": (
        {},
        without(lambda r: r["arm"] == "baseline"),
        "has no runs: there is nothing",
    ),
    "no seed in common": (
        {},
        without(lambda r: (r["arm"] == "label_smoothing") == (r["seed"].astype(int) < 5)),
        "No seed of `label_smoothing` was also run",
    ),
    "all seeds are the same": (
        {},
        lambda r, c, e: r.update(pd.DataFrame({"fd": "30.0"}, index=r.index[r["arm"] == "label_smoothing"])),
        "All seeds of `label_smoothing` gave the same number",
    ),
    "an arm changes nothing": (
        {},
        lambda r, c, e: r.update(
            pd.Series(
                list(r.loc[r["arm"] == "baseline", "fd"]), r.index[r["arm"] == "label_smoothing"], name="fd"
            )
        ),
        "`baseline` and `label_smoothing` have the same scores to the last digit",
    ),
    "nothing was run": ({}, without(lambda r: r["seed"] != ""), "has no runs"),
    "no score at all": ({"metrics": ("is",)}, None, "did not ask for the metric"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_has_a_clear_caveat_and_no_crash(bad, tmp_path):
    more, change, expected = BAD[bad]
    analysis = analyse(study(tmp_path, change, **more))
    notes = " ".join(caveats(analysis))
    assert expected in notes, notes
    assert len(verdict_table(analysis)) == len(analysis.effects)
    assert {e.verdict for e in analysis.effects} <= set(stats.VERDICTS)
    for e in analysis.effects:
        assert bool(e.reason) == (e.verdict in ("inconclusive", "unstable"))
    axes_table(analysis)
    concordance(analysis.results)
    failure_rates(analysis)
    across([analysis, analysis])


def test_an_unstable_baseline_is_a_flag_of_the_study(tmp_path):
    assert analyse(study(tmp_path, every="baseline")).unstable_baseline
    assert not analyse(study(tmp_path, name="y")).unstable_baseline


@pytest.mark.parametrize("size", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_two_thousand_arms_take_less_than_30_seconds(tmp_path, size):
    arms = {"baseline": FEW["baseline"]}
    for i in range(size - 1):
        bad = {0: "collapsed"} if i % 3 == 0 else {}
        arms[f"t{i}"] = ("trick", {"label_smoothing": {"target": i / size}}, 0.8 + 0.4 * i / size, bad, 1, 1)
    results = study(tmp_path, arms=arms, seeds=20)
    analyse(study(tmp_path, name="warm", seeds=7))  # imports scipy
    start = time.process_time()
    analysis = analyse(results)
    verdict_table(analysis)
    assert len(analysis.effects) == size - 1
    assert time.process_time() - start < max(30 * size / 2000, 3)


@pytest.mark.parametrize(
    ("bad", "why"), [("all seeds are the same", "with it"), ("an arm changes nothing", "every seed")]
)
def test_numbers_that_are_all_the_same_conclude_nothing_and_say_so(bad, why, tmp_path):
    more, change, _ = BAD[bad]
    analysis = analyse(study(tmp_path, change, **more))
    [smooth] = [e for e in analysis.effects if e.arm.name == "label_smoothing"]
    assert smooth.verdict == "inconclusive"
    assert smooth.reason == f"data: {smooth.alike}"
    assert why in smooth.alike
    assert smooth.alike.endswith("nothing can be concluded")
    assert all(not e.alike for e in analysis.effects if e is not smooth)


def test_seeds_that_are_copies_of_one_run_judge_nothing_and_the_report_says_so(tmp_path):
    analysis = analyse(study(tmp_path, None, spread=0.0))
    assert {e.verdict for e in analysis.effects} <= {"inconclusive", "unstable"}
    [first, *_] = [block for block in report_table(analysis) if isinstance(block, Table)]
    for effect, row in zip(best_first(analysis.tricks), first.rows, strict=False):
        assert (row[2] == effect.alike) == bool(effect.alike)
    assert light(analysis).kind == "note"
    assert "nothing checks the harness" in light(analysis).text
    assert "1.00" not in power_sentence(analysis)


def test_failures_and_scores_at_the_cap_are_equal_without_being_copies():
    d = np.array([1.0, 1.2, 0.9, 1.1])
    none = np.zeros(4, dtype=bool)
    assert stats.alike(d, d, none, 5.0)
    assert stats.alike(d, d[::-1], none, 5.0) == ""
    assert stats.alike(np.full(4, 5.0), d, none, 5.0) == ""
    assert stats.alike(np.full(4, 5.0), np.full(4, 5.0), ~none, 5.0) == ""
    assert "without it" in stats.alike(d, np.full(4, 2.0), none, 5.0)
    assert stats.alike(d[:1], d[:1], none[:1], 5.0) == ""  # one seed is told for what it is
