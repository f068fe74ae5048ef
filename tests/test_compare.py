"""`bench compare`: equal sets are equivalent, different ones are told, other experiments are refused."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import fake_results
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from click.testing import CliRunner

from bench import stats
from bench.cli import main
from bench.compare import _two_samples, compare, document, lines, newcombe, rank_sum_cdf, table
from bench.errors import Refused
from bench.results import load

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return load(fake_results.write(folder / "a", samples=False, curves=False))


def changed(results, arm: str = "", factor: float = 1.0, noise: float = 0.0, seed: int = 0):
    """The same results with other scores: all arms noisy, one arm times a factor."""
    runs = results.runs.copy()
    random = np.random.default_rng(seed)
    runs["fd"] = runs["fd"] * np.exp(random.normal(0, noise, len(runs)))
    runs.loc[runs["arm"] == arm, "fd"] *= factor
    return replace(results, runs=runs, name="b")


def one(found, arm: str):
    return next(a for a in found.arms if a.arm == arm)


def test_a_set_equals_itself_run_by_run(made):
    found = compare(made, made)
    assert found.exit_code == 0
    assert all(arm.verdict == "identical" and arm.identical == arm.n for arm in found.arms)
    assert one(found, "pooling.kind=max").failures == (3, 3)
    assert found.overall.ratio == (1, 1, 1)
    assert found.differs == ()
    assert lines(found)[-1] == "overall, 10 arms, 10 seeds: identical to the last digit"


def test_a_changed_arm_is_found_and_named_and_no_other(made):
    found = compare(made, changed(made, "input_noise", 1.3, noise=0.01))
    verdicts = {arm.arm: arm.verdict for arm in found.arms}
    assert verdicts.pop("input_noise") == "different"
    assert set(verdicts.values()) <= {"equivalent", "inconclusive"}
    assert found.overall.verdict == "different"
    assert found.exit_code == 1
    low, estimate, high = (one(found, "input_noise").ratio[i] for i in (1, 0, 2))
    assert 1.2 < low < estimate < high < 1.4


def test_one_changed_arm_does_not_read_as_if_all_differed(made):
    found = compare(made, changed(made, "input_noise", 1.3, noise=0.001))
    assert (found.overall.pooled, found.overall.verdict) == ("equivalent", "different")
    whole, pooled = lines(found)[-2:]
    assert whole.startswith("overall, 10 arms: different, in 1 of 10: input_noise; the others: ")
    assert "ratio" not in whole
    assert pooled.startswith("  the median over the arms, 10 seeds: ratio 1.000 (")
    assert pooled.endswith("by itself equivalent")


@pytest.mark.parametrize("unpaired", [False, True])
def test_the_last_lines_name_exactly_the_arms_that_differ(made, unpaired):
    for factor in (1.0, 1.5):
        runs = made.runs.assign(fd=made.runs["fd"] * factor)
        found = compare(made, replace(made, runs=runs, name="b"), unpaired=unpaired)
        said = next(line for line in lines(found) if line.startswith("overall"))
        for arm in found.arms:
            assert (arm.arm in said) == (arm.verdict == "different")
        assert found.overall.verdict in said


def test_small_noise_is_equivalent_and_large_noise_is_not_shown_to_be(made):
    assert compare(made, changed(made, noise=0.02)).exit_code == 0
    loud = compare(made, changed(made, noise=0.5))
    assert loud.exit_code == 1
    assert one(loud, "baseline").verdict == "inconclusive"


def test_a_wider_margin_makes_equivalent_what_a_narrow_one_does_not(made):
    other = changed(made, noise=0.08, seed=4)
    assert one(compare(made, other, margin=0.5), "baseline").verdict == "equivalent"
    assert one(compare(made, other, margin=0.001), "baseline").verdict != "equivalent"


def test_an_arm_that_fails_in_one_set_only_is_different(made):
    runs = made.runs.copy()
    bad = runs["arm"] == "label_smoothing"
    runs.loc[bad, "status"] = "collapsed"
    found = one(compare(made, replace(made, runs=runs)), "label_smoothing")
    assert found.failures == (0, 10)
    assert found.p_failures < 0.05
    assert found.verdict == "different"


def test_arms_that_fail_on_both_sides_with_other_scores_are_inconclusive(made):
    sets = []
    for factor in (1.0, 1.1):
        runs = made.runs.copy()
        runs.loc[runs["arm"] == "placebo", "status"] = "collapsed"
        sets.append(changed(replace(made, runs=runs), "placebo", factor))
    whole = compare(*sets)
    found = one(whole, "placebo")
    assert (found.ratio.estimate, found.verdict) == (1, "inconclusive")
    # Of the sets too: it is not pooled, and where there is no other arm nothing is said.
    assert whole.overall.pooled == "identical" or whole.overall.ratio.estimate == pytest.approx(1)
    alone = [replace(s, runs=s.runs[s.runs["arm"] == "placebo"]) for s in sets]
    assert compare(*alone).overall.verdict == "inconclusive"


def test_the_machines_failures_count_as_no_run(made):
    found = one(compare(made, made), "batch_size.size=16")
    assert (found.n, found.runs, found.failures) == (9, (9, 9), (0, 0))


def test_other_seeds_are_compared_without_pairs(made):
    runs = made.runs.copy()
    runs["seed"] += 100
    runs["run"] = "other" + runs["run"]
    found = compare(made, replace(made, runs=runs))
    assert not any(arm.paired for arm in found.arms)
    assert one(found, "baseline").ratio.estimate == pytest.approx(1)
    assert found.overall.n == sum(arm.n for arm in found.arms)
    assert all(arm.identical == 0 for arm in found.arms)


def test_seeds_of_one_set_only_are_left_out_of_the_pairs_and_counted(made):
    fewer = replace(made, runs=made.runs[made.runs["seed"] < 7])
    found = one(compare(made, fewer), "baseline")
    assert (found.paired, found.n, found.unshared, found.runs) == (True, 7, 3, (10, 7))


@pytest.mark.parametrize("kept", [1, 7, 9])
def test_seeds_of_a_that_b_lacks_are_told_loudly_and_end_with_1(made, kept):
    fewer = replace(made, runs=made.runs[made.runs["seed"] < kept])
    found = compare(made, fewer)
    assert (found.overall.verdict, found.exit_code) == ("identical", 1)
    assert one(found, "baseline").missing == tuple(range(kept, 10))
    said = "\n".join(lines(found))
    assert "NOT WHOLE: B has no score for seeds that A has" in said
    assert "inf" not in said
    assert compare(fewer, made).exit_code == 0  # more seeds than asked for do no harm


def test_a_set_that_contradicts_itself_is_compared_with_a_warning_and_ends_with_1():
    whole = load(RESULTS / "precision-float32")
    edited = whole.runs.copy()
    edited.loc[0, "fd"] = 0.0
    found = compare(whole, replace(whole, runs=edited, name="b"))
    assert found.exit_code == document(found)["exit_code"] == 1
    assert lines(found)[0].startswith(
        "NOT TO BE TRUSTED: b: runs.csv and curves.csv disagree on the last distance"
    )
    assert compare(whole, whole).doubts == ()


def test_too_few_seeds_say_nothing_unless_the_runs_are_identical(made):
    few = replace(made, runs=made.runs[made.runs["seed"] < 3])
    assert one(compare(few, few), "baseline").verdict == "identical"
    assert one(compare(few, changed(few, noise=1e-9)), "baseline").verdict == "inconclusive"


@pytest.mark.parametrize(
    ("key", "inner", "value"),
    [
        ("data", "checksum", "beef"),
        ("recipe", "lr", 1e-3),
        ("budget", "amount", 1),
        ("protocols", "samples", 9),
    ],
)
def test_another_experiment_is_refused_by_the_key_that_differs(made, key, inner, value):
    environment = json.loads(json.dumps(made.environment))
    (environment["protocols"]["aaaabbbbcccc"] if key == "protocols" else environment[key])[inner] = value
    with pytest.raises(Refused, match=f"{key.removesuffix('s')} differs in {inner} "):
        compare(made, replace(made, environment=environment))


def test_what_is_compared_is_listed(made):
    environment = json.loads(json.dumps(made.environment))
    environment["environments"]["env1"]["torch"] = "2.16.0"
    environment["arms"][1]["tricks"]["label_smoothing"]["target"] = 0.8
    runs = made.runs.assign(dtype="bfloat16")
    found = compare(made, replace(made, environment=environment, runs=runs))
    assert ("torch", "2.15.0", "2.16.0") in found.differs
    assert ("dtype", "float32", "bfloat16") in found.differs
    assert any(what == "tricks of label_smoothing" for what, *_ in found.differs)


def test_arms_of_one_set_only_are_named_and_no_common_arm_is_refused(made):
    only = replace(made, runs=made.runs[made.runs["arm"] != "placebo"])
    assert compare(made, only).only == (("placebo",), ("placebo",))
    assert (compare(made, made).exit_code, compare(made, only).exit_code) == (0, 1)
    halves = [replace(made, runs=made.runs[made.runs["arm"] == arm]) for arm in ("placebo", "input_noise")]
    with pytest.raises(Refused, match="share no arm"):
        compare(*halves)


def test_the_checked_in_precision_sets_give_the_published_number():
    found = compare(load(RESULTS / "precision-float32"), load(RESULTS / "precision-bfloat16"))
    assert [round(x, 3) for x in found.arms[0].ratio] == [0.998, 0.990, 1.005]
    assert found.arms[0].ratio == found.overall.ratio
    assert found.exit_code == 0


# --- statistics, against other ways to the same number


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (4, 4), (6, 2)])
def test_the_rank_sums_distribution_is_that_of_all_arrangements(n, m):
    sums = [sum(ranks) - n * (n + 1) // 2 for ranks in itertools.combinations(range(1, n + m + 1), n)]
    counts = np.bincount(sums, minlength=n * m + 1)
    assert rank_sum_cdf(n, m) == pytest.approx(np.cumsum(counts / len(sums)))


def test_the_two_sample_interval_holds_the_shifts_that_the_test_does_not_reject():
    random = np.random.default_rng(3)
    a, b = random.normal(0, 1, 8), random.normal(0.5, 1, 7)
    (estimate, low, high), p = _two_samples(b, a)
    for shift in np.sort(np.subtract.outer(b, a), axis=None) + 1e-9:
        kept = scipy.stats.mannwhitneyu(b - shift, a, method="exact").pvalue > 0.10
        assert kept == (low <= shift < high)
    assert low < estimate < high
    assert p == scipy.stats.mannwhitneyu(b, a).pvalue


@pytest.mark.slow
def test_the_two_sample_interval_covers_as_it_says():
    random = np.random.default_rng(0)
    hit = 0
    for _ in range(2000):
        (_, low, high), _ = _two_samples(random.standard_t(3, 9) + 1, random.standard_t(3, 8))
        hit += low <= 1 <= high
    assert 0.885 < hit / 2000 < 0.94  # 90 % or the next that 9 and 8 allow


def test_newcombes_interval_is_that_of_his_paper():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 and 9/10 - 3/10
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert newcombe(9, 10, 3, 10) == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)


def test_false_alarms_over_many_equal_sets_are_rare(made):
    """Chaos alone (8 % a run) must not be called a difference: at most the nominal share of 60 comparisons."""
    alarms = 0
    for seed in range(60):
        found = compare(changed(made, noise=0.08, seed=seed), changed(made, noise=0.08, seed=1000 + seed))
        alarms += any(arm.verdict == "different" for arm in found.arms)
    assert alarms <= 6  # 5 % of 60 = 3; seven or more have a chance of 2 %


# --- the command


def run(*words: str):
    return CliRunner().invoke(main, ["compare", *words, "--results", str(RESULTS)])


def test_the_command_speaks_text_json_and_csv_and_ends_with_its_code():
    names = ("precision-float32", "precision-bfloat16")
    text = run(*names)
    assert text.exit_code == 0
    assert "overall, 1 arm, 20 seeds: ratio 0.998 (0.990 to 1.005): equivalent" in text.output
    found = json.loads(run(*names, "--json").output)
    assert found["exit_code"] == 0
    assert found["arms"][0]["verdict"] == "equivalent"
    assert run(*names, "--csv").output.splitlines()[1].startswith("baseline,True,20,0.9975")
    assert run(*names, "--margin", "0.004").exit_code == 1
    refused = run(names[0], "digits")
    assert refused.exit_code == 2
    assert "data differs in checksum" in refused.output
    assert run(names[0], "digit").exit_code == 2
    assert run(*names, "--margin", "5").exit_code == 2


def test_infinite_limits_are_null_in_json_and_the_table_has_all_arms(made):
    few = replace(made, runs=made.runs[made.runs["seed"] < 3])
    found = compare(few, changed(few, noise=0.1))
    assert document(found)["arms"][0]["ratio"]["high"] is None
    json.dumps(document(found), allow_nan=False)
    assert list(table(found)["arm"]) == [*(arm.arm for arm in found.arms), "(all)"]
    assert isinstance(table(found), pd.DataFrame)
    assert math.isinf(stats.hodges_lehmann([1.0, 2.0]).high)
