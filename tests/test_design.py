"""Designs: what is generated is as strong as was asked, by a check of its own, and nothing weaker is run."""

import json
from itertools import combinations, product

import numpy as np
import pydoe
import pytest
from fake_results import ARMS, write

from bench import design as designs
from bench import grid as grids
from bench import plan, second_look
from bench.design import Factor, make
from bench.errors import Refused
from bench.results import load
from bench.run import Options, run

HEAD = "name: g\ndata: digits\nbudget: {steps: 4}\n"
SEVEN = (
    "tricks: {label_smoothing: , input_noise: , pooling: , label_noise: , pretraining: , batch_size: 16, "
    "noise_length: 32}\n"
)
THREE = "tricks: {label_smoothing: [0.9, 0.8, 0.95], input_noise: {sigma: [0.1, 0.3, 0.2]}, batch_size: [8, 16, 32]}\n"


def read(text: str) -> grids.Grid:
    return grids.read(HEAD + text, "g.yaml")


def names(grid: grids.Grid) -> list[str]:
    return [arm.name for arm in grid.arms]


def factors(count: int, levels: int = 2) -> list[Factor]:
    return [Factor(f"t{i}", ("off", *(f"t{i}.{j}" for j in range(1, levels)))) for i in range(count)]


def strength(cells, at_most: int) -> int:
    """The largest t for which any t columns hold every combination of two levels equally often.

    An orthogonal array of strength t is a design of resolution t + 1.
    """
    x = np.array(cells)
    for t in range(1, at_most + 1):
        for chosen in combinations(range(x.shape[1]), min(t, x.shape[1])):
            counts = np.bincount(x[:, chosen] @ (1 << np.arange(len(chosen))), minlength=2 ** len(chosen))
            if len(set(counts)) > 1:
                return t - 1
    return at_most


@pytest.mark.parametrize("resolution", [3, 4, 5])
@pytest.mark.parametrize("count", range(2, 21))
def test_a_fraction_is_the_orthogonal_array_that_its_resolution_says(count, resolution):
    design = make(designs.FRACTIONAL, factors(count), resolution=resolution)
    assert strength(design.cells, resolution - 1) == resolution - 1
    assert design.resolution >= resolution
    assert design.cells[0] == (0,) * count
    assert len(set(design.names)) == len(design.cells)
    assert design.resolution == min(5, strength(design.cells, 4) + 1) or resolution == 5


@pytest.mark.parametrize(
    ("count", "resolution"), [(k, 4) for k in range(3, 21)] + [(k, 5) for k in range(4, 21)]
)
def test_a_weaker_fraction_than_asked_is_refused(count, resolution, monkeypatch):
    weaker = pydoe.fracfact_by_res(count, resolution - 1)
    assert strength(weaker > 0, resolution - 1) < resolution - 1
    monkeypatch.setattr(pydoe, "fracfact_by_res", lambda n, r: weaker)
    with pytest.raises(
        Refused, match=rf"resolution {designs.ROMAN[resolution]} was asked, but the \d+ cells"
    ):
        make(designs.FRACTIONAL, factors(count), resolution=resolution)


def test_a_design_whose_columns_were_spoilt_proves_nothing_and_is_refused_where_it_stands(monkeypatch):
    good = pydoe.fracfact_by_res(7, 4)
    good[3, 2] *= -1
    monkeypatch.setattr(pydoe, "fracfact_by_res", lambda n, r: good)
    with pytest.raises(Refused, match=r"g.yaml:5: design.kind: .* prove no resolution: "):
        read(SEVEN + "design: {kind: fractional, resolution: 3}")


@pytest.mark.parametrize("count", range(2, 24))
def test_plackett_burman_has_clear_main_effects_and_from_eight_tricks_on_hides_none_whole(count):
    design = make(designs.PLACKETT_BURMAN, factors(count))
    assert strength(design.cells, 2) == 2
    assert (0,) * count in design.cells
    mains = [abs(a.value) for a in design.aliases if ":" not in a.one and ":" in a.other]
    if count >= 8:
        assert max(mains) == pytest.approx(0.333 if count < 12 or count >= 20 else 0.6)
    folded = make(designs.PLACKETT_BURMAN, factors(count), foldover=True)
    assert strength(folded.cells, 3) == 3
    assert (1,) * count in folded.cells


def test_run_counts_are_those_of_the_table():
    counts = {
        7: (8, 8, 16, 128, 8, 16, 8, 16, 64),
        12: (13, 13, 26, 4096, 20, 32, 16, 32, 256),
        20: (21, 21, 42, None, 24, 48, 32, 64, 512),
    }
    for k, wanted in counts.items():
        f = factors(k)
        made = [
            *(make(kind, f) for kind in (designs.ONE_AT_A_TIME, designs.LEAVE_ONE_OUT, designs.BOTH)),
            make(designs.FULL, f) if k < 20 else None,
            *(make(designs.PLACKETT_BURMAN, f, foldover=fold) for fold in (False, True)),
            *(make(designs.FRACTIONAL, f, resolution=r) for r in (3, 4, 5)),
        ]
        assert tuple(d and len(d.cells) for d in made) == wanted
    with pytest.raises(Refused, match="full-factorial over 20 tricks has 1048576 cells; use one-at-a-time"):
        make(designs.FULL, factors(20))


@pytest.mark.parametrize("count", range(2, 13))
def test_definitive_screening_keeps_main_effects_clear_of_pairs_and_curvature(count):
    three = [Factor(f"t{i}", (f"t{i}.a", f"t{i}.b", f"t{i}.c"), True) for i in range(count)]
    design = make(designs.SCREENING, three)
    x = np.array(design.cells) - 1.0
    second = np.array([x[:, i] * x[:, j] for i in range(count) for j in range(i, count)])
    assert not (second @ x).any()
    assert not (x.T @ x - np.diag(np.diag(x.T @ x))).any()
    assert design.names[0] == design.reference == "centre"
    assert not x[0].any()


def test_the_alias_matrix_is_the_formula():
    design = make(designs.FRACTIONAL, factors(5), resolution=3)
    x = np.array(design.cells) * 2.0 - 1
    columns = {f.levels[1]: x[:, i] for i, f in enumerate(design.factors)}
    columns |= {f"{a}:{b}": columns[a] * columns[b] for a, b in combinations(list(columns), 2)}
    wanted = {(a, b, round(columns[a] @ columns[b] / len(x), 3)) for a, b in combinations(columns, 2)} - {
        (a, b, 0.0) for a, b in combinations(columns, 2)
    }
    assert set(design.aliases) == wanted


def test_a_full_factorial_over_several_values_has_no_aliases():
    design = make(designs.FULL, [*factors(2), *factors(2, levels=4)[1:], Factor("x", ("off", "x=1", "x=2"))])
    assert design.aliases == ()
    assert design.resolution == 5
    assert design.contrasts == 1 + 1 + 3 + 2


def test_random_contexts_follow_their_seed_and_what_is_possible():
    def possible(cell):
        return not (cell[0] and cell[1])

    one = make(designs.RANDOM, factors(8), cells=20, seed="g", possible=possible)
    assert one == make(designs.RANDOM, factors(8), cells=20, seed="g", possible=possible)
    assert one.cells != make(designs.RANDOM, factors(8), cells=20, seed="h", possible=possible).cells
    assert len(set(one.cells)) == 20
    assert all(map(possible, one.cells))
    free = np.array(make(designs.RANDOM, factors(8), cells=40, seed=1).cells)
    assert 0.4 < free.mean() < 0.6
    assert np.linalg.matrix_rank(designs.main_model(factors(8), free)) == 9


def test_random_contexts_that_cannot_be_are_refused():
    with pytest.raises(Refused, match="8 random contexts for 8 tricks: 9 or more tell 8 effects apart"):
        make(designs.RANDOM, factors(8), cells=8)
    with pytest.raises(Refused, match="that are possible and tell 3 effects apart were not found"):
        make(designs.RANDOM, factors(3), cells=6, possible=lambda cell: not cell[0])


@pytest.mark.parametrize(
    ("form", "arms", "reference"),
    [
        ("both", 16, "baseline"),
        ("{kind: fractional, resolution: 4}", 16, "baseline"),
        ("{kind: plackett-burman, foldover: true}", 16, "baseline"),
        ("{kind: plackett-burman}", 8, "baseline"),
        ("{kind: random, cells: 16, seed: 3}", 17, "baseline"),
        ("leave-one-out", 8, "all"),
    ],
)
def test_every_design_has_one_reference_and_its_controls_upon_it(form, arms, reference):
    grid = read(SEVEN + "controls: [placebo]\ndesign: " + form)
    assert [a.name for a in grid.arms if a.role == "baseline"] == [reference]
    assert len(grid.arms) == arms + 1
    control = grid.arms[-1]
    assert (control.role, control.name) == (
        "control",
        "placebo" if reference == "baseline" else "all+placebo",
    )
    first = next(a for a in grid.arms if a.role == "baseline")
    assert {t.name() for t in control.tricks} == {"placebo"} | {t.name() for t in first.tricks}
    on = {a.name: {t.name() for t in a.tricks} for a in grid.arms}
    for name, levels in grid.cells.detail()["cells"].items():
        assert on[name] == {trick for trick, level in levels.items() if level != "off"}


def test_both_is_one_at_a_time_and_leave_one_out_in_one_grid():
    grids_ = {kind: read(SEVEN + f"design: {kind}") for kind in ("one-at-a-time", "leave-one-out", "both")}
    made = {kind: {r.id for r in map_runs(grid)} for kind, grid in grids_.items()}
    assert made["both"] == made["one-at-a-time"] | made["leave-one-out"]
    assert names(grids_["both"])[8:10] == ["all", "all-label_smoothing"]
    two = read("tricks: [label_smoothing, pooling]\ndesign: both")
    assert names(two) == ["baseline", "label_smoothing", "pooling", "all"]


def map_runs(grid: grids.Grid):
    return [plan._run(grid, arm, seed) for arm in grid.arms for seed in grid.seeds]


def test_a_baseline_with_tricks_lies_under_every_cell():
    form = "design: {kind: fractional, resolution: 3, baseline: {batch_norm: {d: false, g: true}}}"
    grid = read(SEVEN + form)
    assert all("batch_norm" in {t.name() for t in arm.tricks} for arm in grid.arms)
    assert len(grid.arms) == 8


def test_screening_takes_three_values_in_order_and_centres_on_the_middle():
    grid = read(THREE + "controls: [placebo]\ndesign: definitive-screening")
    assert names(grid)[0] == "centre"
    assert names(grid)[-1] == "centre+placebo"
    assert [next(iter(t.values.values())) for t in grid.arms[0].tricks] == [16, 0.2, 0.9]
    assert grid.cells.factors[0].levels == tuple(f"label_smoothing.target={v}" for v in (0.8, 0.9, 0.95))
    with pytest.raises(Refused, match=r"g.yaml:5: design: .* three values of one number .*; pooling has not"):
        read(
            "tricks: {pooling: {kind: [average, max]}, label_smoothing: [0.7, 0.8, 0.9]}\ndesign: definitive-screening"
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "design: fractionl",
            r"g.yaml:5: design: 'fractionl' is not allowed \(did you mean \"fractional\"\?\)",
        ),
        ("design: {kind: plackett-burmann}", r'g.yaml:5: design.kind: .*did you mean "plackett-burman"'),
        (
            "design: fractional",
            r"g.yaml:5: design: resolution is missing, as in {kind: fractional, resolution: 4}",
        ),
        ("design: {kind: random}", "cells is missing"),
        (
            "design: {kind: random, resolution: 4}",
            "resolution belongs to the design fractional, not to random",
        ),
        (
            "design: {kind: fractional, resolution: 6}",
            "design.resolution: 6 is not a whole number from 3 to 5",
        ),
        ("design: {kind: fractional, resolutoin: 4}", r'no such key \(did you mean "resolution"'),
        ("design: {kind: plackett-burman, foldover: 2}", "design.foldover: 2 is not true or false"),
        ("design: {kind: random, cells: 4}", "8 or more tell 7 effects apart"),
        ("seeds: {looks: [10]}", r"g.yaml:5: seeds.looks: \[10\] are not two rising numbers"),
        ("seeds: {looks: [10, 15, 20]}", "are not two rising numbers"),
        ("seeds: {looks: [20, 10]}", "are not two rising numbers"),
        ("seeds: {looks: [10, 20], count: 3}", "give count or looks, not both"),
        ("seeds: {looks: [8, 20]}", "the first look, at 8 seeds, cannot reject anything: over 7 contrasts"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text, said):
    with pytest.raises(Refused, match=said):
        read(SEVEN + text)


def test_one_value_a_trick_where_the_design_needs_it():
    for form in ("both", "{kind: fractional, resolution: 4}", "plackett-burman"):
        with pytest.raises(Refused, match=r"g.yaml:5: .* needs one value of each trick; pooling has 2"):
            read(f"tricks: {{pooling: {{kind: [average, max]}}, label_smoothing: }}\ndesign: {form}")
    with pytest.raises(Refused, match="needs two tricks or more; there is one"):
        read("tricks: [pooling]\ndesign: both")


# --- looks


def test_thirteen_contrasts_are_too_many_for_ten_seeds_at_the_first_look():
    values = ", ".join(f"{0.5 + i / 100}" for i in range(12))
    grid = read(f"tricks: {{label_smoothing: [{values}]}}\nseeds: {{looks: [10, 20], first: 100}}")
    assert (grid.looks, grid.seeds) == ((10, 20), tuple(range(100, 120)))
    with pytest.raises(Refused, match=r"over 13 contrasts Holm's correction leaves no p below 0\.0254"):
        read(f"tricks: {{label_smoothing: [{values}, 0.7]}}\nseeds: {{looks: [10, 20]}}")
    assert read(f"tricks: {{label_smoothing: [{values}, 0.7]}}\nseeds: {{count: 2}}").looks == ()


def test_a_factorial_counts_its_effects_not_its_cells():
    grid = read(SEVEN + "design: {kind: fractional, resolution: 4}\nseeds: {looks: [10, 20]}")
    assert grid.cells.contrasts == 7


def test_arrays_are_cut_look_by_look_and_train_low_seeds_first():
    grid = read("tricks: [label_smoothing, pooling]\nrecipe: {channels: 4}\nseeds: {looks: [8, 11]}")
    planned = plan.runs(grid)
    first, second = plan.looks(grid, planned)
    assert {r.seed for r in first} == set(range(8))
    assert {r.seed for r in second} == set(range(8, 11))
    assert sorted(r.id for r in [*first, *second]) == sorted(r.id for r in planned)
    cut = plan.arrays(first, lambda program: 4)
    ordered = plan.seed_major(cut)
    assert {a.runs for a in ordered} == {a.runs for a in cut}
    for done in range(len(ordered) + 1):  # stopped after any array: no arm is more than one array ahead
        counts = [sum(r.arm == arm.name for a in ordered[:done] for r in a.runs) for arm in grid.arms]
        assert max(counts) - min(counts) <= 4
    assert plan.looks(read("tricks: [pooling]\nseeds: 3"), []) == [[]]


def decided_grid(seeds: str) -> grids.Grid:
    return grids.read(
        "name: g\ndata: digits\ntricks: {label_smoothing: 0.9, input_noise: {sigma: 0.1}}\ncontrols: [placebo]\n"
        f"seeds: {seeds}",
        "g.yaml",
    )


def test_the_second_look_is_for_the_undecided_and_known_from_the_first_looks_rows_alone(tmp_path):
    arms = {name: ARMS[name] for name in ("baseline", "label_smoothing", "input_noise", "placebo")}
    arms["input_noise"] = (*arms["input_noise"][:2], 0.95, *arms["input_noise"][3:])
    grid = decided_grid("{looks: [10, 20]}")
    folder = write(tmp_path / "g", arms=arms, seeds=20, samples=False)
    wanted = {"baseline", "input_noise", "placebo"}
    there = load(folder)
    assert second_look.again(there, grid) == wanted
    there.runs.loc[there.runs["seed"] >= 10, "fd"] = 1.0  # later rows change nothing
    assert second_look.again(there, grid) == wanted
    there.environment["design"] = "both"  # balanced: all or none
    assert second_look.again(there, grid) == wanted | {"label_smoothing"}
    arms["input_noise"] = (*arms["input_noise"][:2], 0.5, *arms["input_noise"][3:])
    assert second_look.again(load(write(tmp_path / "h", arms=arms, samples=False)), grid) == set()


RUN = """
name: small
data: digits
recipe: {channels: 4, batch_size: 8}
tricks: {label_smoothing: 0.9, input_noise: {sigma: 0.1}}
controls: [placebo]
seeds: {looks: [8, 10]}
budget: {steps: 2}
score: {samples: 16, points: 1, metrics: [fid]}
"""


def test_a_run_makes_the_second_look_of_the_undecided_only_and_resumes_to_the_same(tmp_path, monkeypatch):
    from bench.slots import Slots
    from bench.worker import Result, stamp

    trained = []

    def supervise(self, array, job, slot):  # nothing is trained here
        trained.append(array)
        own = {"status": "failed", "reason": "not tried"}
        return array, Result(rows=[stamp(r) | own | job(array, slot).stamps[r.id] for r in array.runs])

    monkeypatch.setattr(Slots, "_supervise", supervise)
    monkeypatch.setattr(second_look, "undecided", lambda results: {"input_noise"})
    grid, said = grids.read(RUN, "small.yaml"), []
    options = Options(results=tmp_path, cache=tmp_path / "cache", device="cpu", slots=1, runs_per_array=4)
    assert run(grid, options, said.append) == 1
    assert [a.label for a in trained] == [
        *(f"{arm.name}, seeds 0-3" for arm in grid.arms),
        *(f"{arm.name}, seeds 4-7" for arm in grid.arms),
        "baseline+input_noise, seeds 8-9",
        "placebo, seeds 8-9",
    ]
    runs = load(tmp_path / "small").runs
    counts = runs.groupby("arm", observed=True)["seed"].count().to_dict()
    assert counts == {"baseline": 10, "label_smoothing": 8, "input_noise": 10, "placebo": 10}
    assert "looks: 2 more seeds, as declared, for arms baseline, input_noise, placebo" in said
    before = (tmp_path / "small" / "runs.csv").read_bytes()
    assert run(grid, options, lambda line: None) == 1
    assert len(trained) == 10
    assert (tmp_path / "small" / "runs.csv").read_bytes() == before
    described = json.loads((tmp_path / "small" / "environment.json").read_text())
    assert described["design"] == "one-at-a-time"
    assert described["design_detail"]["looks"] == [8, 10]
    assert described["design_detail"]["cells"]["input_noise"] == {
        "label_smoothing": "off",
        "input_noise": "input_noise",
    }


@pytest.mark.parametrize(
    ("at", "more", "code", "made"),
    [
        ("baseline, seeds 0-3", False, 130, 1),
        ("placebo, seeds 4-7", False, 130, 8),  # the first look is whole, the second does not begin
        ("placebo, seeds 8-9", False, 1, 10),  # nothing is left to do
        ("placebo, seeds 8-9", True, 130, 10),  # but another grid
    ],
)
def test_a_stop_by_hand_begins_no_second_look_and_no_other_grid(at, more, code, made, tmp_path, monkeypatch):
    from bench.slots import Slots
    from bench.worker import Result, stamp

    trained = []

    def supervise(self, array, job, slot):
        trained.append(array)
        if array.label == at:
            self.draining.set()
        own = {"status": "failed", "reason": "not tried"}
        return array, Result(rows=[stamp(r) | own | job(array, slot).stamps[r.id] for r in array.runs])

    monkeypatch.setattr(Slots, "_supervise", supervise)
    monkeypatch.setattr(second_look, "undecided", lambda results: {"input_noise"})
    options = Options(results=tmp_path, cache=tmp_path / "cache", device="cpu", slots=1, runs_per_array=4)
    assert run(grids.read(RUN, "small.yaml"), options, lambda line: None, more) == code
    assert len(trained) == made


def test_the_record_of_a_design_reads_back(tmp_path):
    from bench.factorial import read_design
    from bench.run import _readable, description

    for form in (
        "{kind: fractional, resolution: 4}",
        "both",
        "{arms: {a: [pooling]}}",
        "{kind: random, cells: 12}",
    ):
        tricks = SEVEN if "arms" not in form else ""
        grid = read(tricks + f"design: {form}")
        described = json.loads(_readable(description(grid)))
        folder = write(tmp_path / str(len(form)), arms={"baseline": ARMS["baseline"]}, seeds=1, samples=False)
        there = load(folder)
        there.environment.update({key: described[key] for key in ("design", "design_detail", "arms")})
        again = read_design(there)
        assert dict(zip(again.names, again.cells, strict=True)) == dict(
            zip(grid.cells.names, grid.cells.cells, strict=True)
        )
        for key in ("kind", "factors", "reference", "resolution", "aliases"):
            assert getattr(again, key) == getattr(grid.cells, key)
        del there.environment["design_detail"]["cells"]
        with pytest.raises(Refused, match=r"environment\.json: design_detail is broken"):
            read_design(there)


def test_the_plan_says_what_the_design_tells_apart():
    lines = {
        "{kind: fractional, resolution: 4}": "fractional: 16 cells of 7 tricks, resolution IV; main effects are clear "
        "of pairs of tricks; 21 pairs mixed up with others, as label_smoothing:input_noise with pooling:pretraining",
        "both": "both: 16 cells of 7 tricks, each against baseline",
        "{kind: fractional, resolution: 5}": "fractional: 64 cells of 7 tricks, resolution V or above; no main effect "
        "and no pair of tricks is mixed up with another",
    }
    for form, line in lines.items():
        assert read(SEVEN + f"design: {form}").cells.told() == line


def test_old_arms_are_read_as_a_design():
    arms = {"baseline": {}, "a": {"x": {"v": 1}}, "b": {"x": {"v": 2}, "y": {}}}
    found = designs.of_arms(arms, "baseline")
    assert [f.levels for f in found.factors] == [("off", "x.v=1", "x.v=2"), ("off", "y")]
    assert found.cells == ((0, 0), (1, 0), (2, 1))
    assert (
        designs.of_arms({name: {"z": {}} | v for name, v in arms.items()}, "baseline").factors
        == found.factors
    )


def test_every_combination_of_levels_is_in_a_full_factorial():
    design = make(designs.FULL, factors(3, levels=3))
    assert set(design.cells) == set(product(range(3), repeat=3))
