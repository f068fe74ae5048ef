"""What the cells of a design say together, against ordinary least squares and against effects that were put in."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from fake_results import write

from bench import design as designs
from bench import factorial, stats
from bench.analyse import analyse
from bench.design import Factor, make
from bench.errors import Refused
from bench.factorial import interactions, main_effects, screened
from bench.qualify import CONTEXT
from bench.results import load
from bench.sections import findings, verdict_table
from bench.stats import Estimate

TRICKS = ("label_smoothing", "input_noise", "pooling", "batch_size", "noise_length")
VALUES = {"pooling": {"kind": "average"}, "batch_size": {"size": 16}, "noise_length": {"length": 32}}
FACTORS = [Factor(name, ("off", name)) for name in TRICKS]


def results(tmp_path, design, truth, seeds=8, spread=0.05, bad=None, detail=True, looks=()):
    """Results of a design in which the log score is a sum of effects: {(trick, ...): added where all are on}."""
    arms = {}
    for name, cell in zip(design.names, design.cells, strict=True):
        on = {factor.name for factor, level in zip(design.factors, cell, strict=True) if level}
        log = sum(size for tricks, size in truth.items() if set(tricks) <= on)
        values = {trick: VALUES.get(trick, {}) for trick in TRICKS if trick in on}
        role = "baseline" if name == design.reference else "trick"
        arms[name] = (role, values, float(np.exp(log)), (bad or {}).get(name, {}), 1.0, 1.0)
    folder = write(tmp_path / "g", arms=arms, seeds=seeds, spread=spread, samples=False, curves=False)
    path = folder / "environment.json"
    described = json.loads(path.read_text()) | {"design": design.kind}
    if detail:
        described["design_detail"] = design.detail(looks)
    path.write_text(json.dumps(described))
    return load(folder)


def frame(found, design) -> pd.DataFrame:
    """The runs with +-1 columns and the capped log score, for a plain regression."""
    code = {
        name: {f.name: 1 if level else -1 for f, level in zip(design.factors, cell, strict=True)}
        for name, cell in zip(design.names, design.cells, strict=True)
    }
    rows = found.runs.assign(logfid=np.log(found.runs["fd"].clip(upper=found.environment["cap"]["fd"])))
    for factor in design.factors:
        rows[factor.name] = [code[arm][factor.name] for arm in rows["arm"]]
    return rows[["logfid", "seed", *(f.name for f in design.factors)]].astype(float)


@pytest.fixture
def means(monkeypatch):
    """Means in the place of Hodges-Lehmann estimates, as least squares has them."""
    real = stats.compare

    def compare(a, b, *more, **named):
        return real(a, b, *more, **named)._replace(
            effect=Estimate(float(np.mean(np.subtract(a, b))), -np.inf, np.inf)
        )

    monkeypatch.setattr(stats, "compare", compare)


@pytest.mark.parametrize(
    ("count", "kind", "more"), [(3, designs.FULL, {}), (5, designs.FRACTIONAL, {"resolution": 5})]
)
def test_least_squares_with_seeds_as_blocks_gives_the_same_means(count, kind, more, means, tmp_path):
    from statsmodels.formula.api import ols

    design = make(kind, FACTORS[:count], **more)
    names = [f.name for f in design.factors]
    truth = {(names[0],): -0.2, (names[1],): 0.1, (names[0], names[1]): 0.3}
    there = results(tmp_path, design, truth)
    pairs = [f"{a}:{b}" for a, b in combinations(names, 2)]
    fit = ols(f"logfid ~ C(seed) + {' + '.join([*names, *pairs])}", frame(there, design)).fit()
    for effect in main_effects(analyse(there)):
        assert effect.comparison.effect.estimate == pytest.approx(2 * fit.params[effect.name])
        assert effect.aliases == ()
    assert [":".join(i.pair) for i in interactions(analyse(there))] == pairs
    for found in interactions(analyse(there)):
        assert found.comparison.effect.estimate == pytest.approx(4 * fit.params[":".join(found.pair)])
        assert found.named


def test_uneven_cells_are_least_squares_too(means, tmp_path):
    from statsmodels.formula.api import ols

    design = make(designs.RANDOM, FACTORS, cells=12, seed=5)
    if design.reference not in design.names:  # the reference has to be an arm, if not a cell
        design = designs.known(
            design.kind, design.factors, (*design.cells, (0,) * 5), (*design.names, "baseline"), "baseline"
        )
    there = results(tmp_path, design, {("pooling",): -0.3, ("batch_size",): 0.2}, seeds=6)
    fit = ols(f"logfid ~ C(seed) + {' + '.join(TRICKS)}", frame(there, design)).fit()
    for effect in main_effects(analyse(there)):
        assert effect.comparison.effect.estimate == pytest.approx(2 * fit.params[effect.name])


def test_verdicts_find_what_was_put_in_and_nothing_else(tmp_path):
    design = make(designs.FRACTIONAL, FACTORS, resolution=5)
    there = results(
        tmp_path,
        design,
        {("pooling",): -0.3, ("batch_size",): 0.4, ("pooling", "batch_size"): -0.4},
        seeds=10,
    )
    mains = {e.name: e for e in main_effects(analyse(there))}
    assert {name: e.verdict for name, e in mains.items()} == {
        "label_smoothing": "equivalent",
        "input_noise": "equivalent",
        "pooling": "helps",
        "batch_size": "hurts",
        "noise_length": "equivalent",
    }
    # averaged over contexts: half of the cells have the partner, so half of the interaction is in it
    assert np.log(mains["pooling"].ratio.estimate) == pytest.approx(-0.5, abs=0.05)
    assert mains["pooling"].failures_on == (0, 80)
    found = sorted(interactions(analyse(there)), key=lambda i: (i.p_bh, -abs(i.comparison.effect.estimate)))
    assert (found[0].label, found[0].found) == ("pooling:batch_size", True)
    assert max(abs(i.comparison.effect.estimate) for i in found[1:]) < 0.1
    assert found[0].comparison.effect.estimate == pytest.approx(-0.4, abs=0.1)
    assert len(interactions(analyse(there))) == 10


def test_what_each_of_a_pair_does_without_and_with_its_partner(tmp_path):
    design = make(designs.FULL, FACTORS[:3])
    put_in = {("label_smoothing",): -0.3, ("input_noise",): 0.2, ("label_smoothing", "input_noise"): 0.5}
    analysis = analyse(results(tmp_path, design, put_in, seeds=10))
    pair = next(i for i in interactions(analysis) if i.pair == ("label_smoothing", "input_noise"))
    assert pair.found
    assert [c.effect.estimate for c in pair.single] == pytest.approx([-0.3, 0.2, 0.2, 0.7], abs=0.07)
    dependent = [e.name for e in main_effects(analysis) if "context-dependent" in e.qualifiers]
    assert dependent == ["label_smoothing", "input_noise"]
    assert any("`label_smoothing:input_noise` +" in point for point in findings(analysis))


def test_what_a_main_effect_costs_is_the_mean_over_its_cells(tmp_path):
    there = results(tmp_path, make(designs.FULL, FACTORS[:3]), {}, seeds=6)
    on = (there.runs["pooling.kind"] == "average").fillna(False).to_numpy(bool)
    others = there.runs["arm"].astype(str).str.contains("label_smoothing|all")
    seconds = np.where(on, np.where(others, 8.0, 2.0), np.where(others, 2.0, 1.0))  # x 2 alone, x 4 beside it
    runs = there.runs.assign(train_seconds=seconds, steps=np.where(on, 100, 200))
    cost = {e.name: e.cost for e in main_effects(analyse(replace(there, runs=runs)))}
    assert cost["pooling"].seconds == pytest.approx(8**0.5)
    assert (cost["pooling"].steps, cost["input_noise"].steps) == pytest.approx((0.5, 1.0))
    runs.loc[0, "threads"] = 7  # timed on other terms
    unequal = {e.name: e.cost for e in main_effects(analyse(replace(there, runs=runs)))}
    assert np.isnan(unequal["pooling"].seconds)
    assert unequal["pooling"].steps == cost["pooling"].steps


def test_arms_that_shared_an_array_have_no_cost_in_time_and_unfinished_runs_none_at_all(tmp_path):
    there = results(tmp_path, make(designs.FULL, FACTORS[:2]), {}, seeds=6)
    of_noise = there.runs["arm"] == "input_noise"
    runs = there.runs.assign(train_seconds=1.0)
    half = of_noise & (there.runs["seed"] < 4)
    runs.loc[half, ["status", "train_seconds", "steps"]] = ["diverged", 0.01, 1]
    cost = main_effects(analyse(replace(there, runs=runs)))[1].cost
    assert (cost.seconds, cost.steps) == pytest.approx((1, 1))
    shared = runs.assign(runs_per_array=12, train_seconds=1.0)
    cost = main_effects(analyse(replace(there, runs=shared)))[1].cost
    assert np.isnan(cost.seconds)
    assert cost.steps == pytest.approx(1)


def test_runs_lost_to_the_machine_leave_a_main_effect_open(tmp_path):
    design = make(designs.FULL, FACTORS[:2])
    bad = {"input_noise": {0: "failed", 1: "timeout", 2: "failed"}}
    smoothing, noise = main_effects(analyse(results(tmp_path, design, {}, bad=bad, seeds=10)))
    assert noise.reason == "data: 3 of 20 runs with it were lost to the machine, more than 10 %"
    assert smoothing.reason == "data: 3 of 20 runs without it were lost to the machine, more than 10 %"
    assert {smoothing.verdict, noise.verdict} == {"inconclusive"}


def test_where_most_cells_fail_on_both_sides_nothing_is_equivalent(tmp_path):
    """Two tricks that always break the training leave a quarter of any other's contrast: the rest is 0."""
    design = make(designs.FULL, FACTORS[:3])
    names = {name for name in design.names if {"label_smoothing", "input_noise"} & set(name.split("+"))} | {
        "all"
    }
    bad = {name: dict.fromkeys(range(8), "collapsed") for name in names}
    assert len(bad) == 6
    pooling = main_effects(analyse(results(tmp_path, design, {("pooling",): 0.08}, bad=bad)))[2]
    assert pooling.reason == "data: 6 of 8 pairs failed on both sides, so they cannot differ"


def test_cells_that_no_test_could_decide_are_not_called_inconclusive(tmp_path):
    there = results(tmp_path, make(designs.FULL, FACTORS[:4]), {("pooling",): -0.5}, seeds=6)
    [_, table] = verdict_table(analyse(there))
    assert "the literature says" not in table.header
    said = [row[-1] for row in table.rows]
    undecided = "not judged by itself: 6 pairs cannot decide so many cells"
    assert said.count(undecided) >= 8  # the cells with pooling, whose effect is large
    assert {*said} <= {undecided, "**equivalent** (within ±5 %)"}


def test_an_aliased_pair_is_named_only_with_all_that_it_may_be(tmp_path):
    design = make(designs.FRACTIONAL, FACTORS[:4], resolution=4)
    there = results(tmp_path, design, {("pooling", "batch_size"): -0.4}, seeds=10)
    pairs = interactions(analyse(there))
    assert [i.label for i in pairs] == [
        "label_smoothing:input_noise = pooling:batch_size",
        "label_smoothing:pooling = input_noise:batch_size",
        "label_smoothing:batch_size = input_noise:pooling",
    ]
    assert not any(i.named for i in pairs)
    assert [i.found for i in pairs] == [True, False, False]


def test_a_resolution_three_fraction_leaves_pairs_to_the_main_effects_that_hold_them(tmp_path):
    design = make(designs.FRACTIONAL, FACTORS[:3], resolution=3)
    there = results(tmp_path, design, {})
    assert interactions(analyse(there)) == ()
    first = main_effects(analyse(there))[0]
    assert [name for name, _ in first.aliases] == ["input_noise:pooling"]
    assert abs(first.aliases[0][1]) == 1


def test_partial_aliases_are_shares_not_names(tmp_path):
    eight = [*FACTORS, *(Factor(f"t{i}", ("off", f"t{i}")) for i in range(3))]
    pairs = interactions(
        analyse(results(tmp_path, make(designs.PLACKETT_BURMAN, eight, foldover=True), {}, seeds=2))
    )
    assert pairs
    assert not any(i.named for i in pairs)
    assert " 0.333 " in pairs[0].label
    assert "=" not in pairs[0].label


def test_four_arms_that_were_listed_are_a_two_by_two(means, tmp_path):
    cells = {"baseline": (0, 0, 0), "a": (1, 0, 0), "b": (0, 1, 0), "a+b": (1, 1, 0), "c": (0, 0, 1)}
    design = designs.Design("arms", tuple(FACTORS[:3]), tuple(cells.values()), tuple(cells), "baseline")
    for detail in (True, False):  # results of before had no record of their design
        there = results(tmp_path, design, {("label_smoothing", "input_noise"): 0.5}, detail=detail)
        [pair] = interactions(analyse(there))
        logs = (
            frame(there, design)
            .assign(arm=there.runs["arm"].astype(str))
            .pivot(index="seed", columns="arm", values="logfid")
        )
        wanted = (logs["a+b"] - logs["a"] - logs["b"] + logs["baseline"]).mean()
        assert pair.comparison.effect.estimate == pytest.approx(wanted)
        assert (pair.label, pair.squares) == ("label_smoothing:input_noise", 1)
        assert main_effects(analyse(there)) == ()


def test_several_values_of_a_trick_are_effects_of_their_own(means, tmp_path):
    pooling = Factor("pooling", ("off", "pooling.kind=average", "pooling.kind=max"))
    design = make(designs.FULL, [FACTORS[0], pooling])
    there = results(tmp_path, design, {("label_smoothing",): -0.2})
    assert [e.name for e in main_effects(analyse(there))] == ["label_smoothing", *pooling.levels[1:]]
    logs = frame(there, design).assign(arm=there.runs["arm"].astype(str)).groupby("arm")["logfid"].mean()
    wanted = (
        logs["pooling.kind=max"]
        + logs["label_smoothing+pooling.kind=max"]
        - logs["baseline"]
        - logs["label_smoothing"]
    ) / 2
    assert main_effects(analyse(there))[2].comparison.effect.estimate == pytest.approx(wanted)
    assert [i.label for i in interactions(analyse(there))] == [
        f"label_smoothing:{v}" for v in pooling.levels[1:]
    ]


def test_the_stack_against_the_trick_alone_tells_whether_context_matters(tmp_path):
    design = make(designs.BOTH, FACTORS)
    there = results(tmp_path, design, {("pooling",): -0.3, ("pooling", "batch_size"): 0.6}, seeds=10)
    analysis = analyse(there)
    assert main_effects(analysis) == ()
    assert interactions(analysis) == ()
    alone = {e.arm.name: e for e in analysis.effects if len(e.tricks) == 1 and not e.left_out}
    inside = {e.tricks[0]: e for e in analysis.effects if e.left_out}
    assert set(alone) == set(inside) == set(TRICKS)
    surely = {name for name, effect in alone.items() if effect.secondary[CONTEXT].p < 0.01}
    assert surely == {"pooling", "batch_size"}
    assert all("context-dependent" in alone[name].qualifiers for name in surely)
    assert alone["pooling"].comparison.effect.estimate == pytest.approx(-0.3, abs=0.1)
    assert inside["pooling"].comparison.effect.estimate == pytest.approx(0.3, abs=0.1)


def test_failures_are_the_worst_rank_and_a_machines_fault_leaves_its_seed_out(tmp_path):
    design = make(designs.FULL, FACTORS[:2])
    bad = {"input_noise": {0: "collapsed", 1: "diverged"}, "all": {2: "failed"}}
    there = results(tmp_path, design, {}, bad=bad, seeds=10)
    smoothing, noise = main_effects(analyse(there))
    assert (noise.failures_on, noise.failures_off) == ((2, 19), (0, 20))
    assert smoothing.failures_on == (0, 19)
    assert noise.left_out == (2,)
    assert noise.comparison.n == 9
    assert noise.ratio.high > 1.5  # two seeds at the cap
    assert interactions(analyse(there))[0].comparison.n == 9


def test_with_two_looks_a_verdict_pays_for_both(tmp_path):
    design = make(designs.FULL, FACTORS[:2])
    truth = {("input_noise",): -0.5}
    once = main_effects(analyse(results(tmp_path, design, truth, seeds=7)))
    assert once[1].p_holm == pytest.approx(2 * 2**-6)  # .03: below .05, not below .025
    assert once[1].verdict == "helps"
    twice = main_effects(analyse(results(tmp_path, design, truth, seeds=7, looks=(7, 14))))
    assert twice[1].verdict == "inconclusive"


def test_one_seed_gives_a_half_normal_plot_and_no_verdict(tmp_path):
    design = make(designs.FRACTIONAL, FACTORS, resolution=5)
    there = results(tmp_path, design, {("pooling",): -0.8}, seeds=1)
    found = screened(analyse(there))
    assert len(found) == 15
    assert found[-1].name == "pooling"
    assert found[-1].lenth > 4
    assert max(s.lenth for s in found[:-1]) < 4
    assert [s.quantile for s in found] == sorted(s.quantile for s in found)
    assert all(e.verdict == "inconclusive" and e.comparison.p == 1 for e in main_effects(analyse(there)))
    assert not any(i.found for i in interactions(analyse(there)))
    assert screened(analyse(results(tmp_path, design, {}, seeds=2))) == ()


def test_lenths_error_is_that_of_the_noise_whatever_a_few_effects_are():
    random = np.random.default_rng(0)
    errors = [factorial.lenth(random.normal(0, 2, 31)) for _ in range(2000)]
    assert np.mean(errors) == pytest.approx(2, rel=0.05)
    large = [factorial.lenth([*random.normal(0, 2, 27), 30, -40, 50, 60]) for _ in range(2000)]
    assert np.mean(large) == pytest.approx(2, rel=0.15)
    # by hand: median size 2.5, so 3.75; 100 is beyond 9.4; the median of 1, 2, 2, 3, 4 is 2, so 3
    assert factorial.lenth([1, -2, 2, 3, -4, 100]) == pytest.approx(3)
    assert np.isnan(factorial.lenth([1, 2]))


def test_benjamini_and_hochberg_agree_with_scipy():
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(1).uniform(size=50) ** 3
    assert factorial.benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))
    assert len(factorial.benjamini_hochberg([])) == 0


def test_a_broken_record_is_refused_in_one_line(tmp_path):
    there = results(tmp_path, make(designs.FULL, FACTORS[:2]), {}, seeds=2)
    there.environment["design_detail"]["cells"]["all"] = {"label_smoothing": "onn"}
    with pytest.raises(Refused, match=r"environment\.json: design_detail is broken"):
        main_effects(analyse(there))
