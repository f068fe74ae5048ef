"""Grids: what may be written, which arms and runs come of it, and how they share arrays."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from bench import grid as grids
from bench import plan, program
from bench.cli import main
from bench.errors import Refused

HEAD = "name: g\ndata: digits\nbudget: {steps: 4}\n"


def read(text: str) -> grids.Grid:
    return grids.read(HEAD + text, "g.yaml")


def names(grid: grids.Grid) -> list[str]:
    return [arm.name for arm in grid.arms]


def test_a_name_data_and_tricks_are_enough():
    grid = grids.read("name: g\ndata: digits\ntricks: [label_smoothing]", "g.yaml")
    assert names(grid) == ["baseline", "label_smoothing"]
    assert (grid.data.size, grid.seeds, grid.score.extractor) == (16, tuple(range(10)), "classifier")
    assert grid.recipe.lr == 2e-4


def test_every_value_of_a_list_is_an_arm_of_its_own():
    grid = read("tricks: {pooling: {kind: [average, max]}, label_smoothing: [0.9, 0.8], batch_size: 32}")
    assert names(grid)[1:] == [
        "pooling.kind=average",
        "pooling.kind=max",
        "label_smoothing.target=0.9",
        "label_smoothing.target=0.8",
        "batch_size",
    ]


def test_two_lists_make_every_combination():
    grid = read("tricks: {label_noise: {real: [0.1, 0.2], fake: [0, 0.1]}}")
    assert len(grid.arms) == 5
    assert "label_noise.real=0.1,fake=0" in names(grid)


def test_numbers_are_read_as_people_write_them():
    grid = read("recipe: {lr: 2e-5, channels: 1_0}\ntricks: {learning_rate: {both: 1.0e-3}}")
    assert grid.recipe.lr == 2e-5
    assert grid.recipe.channels == 10
    assert grid.arms[1].tricks[0].both == 1e-3


def test_one_and_one_point_zero_are_one_run():
    a, b = (plan.runs(read(f"tricks: {{input_noise: {{sigma: {s}}}}}"))[-1] for s in ("1", "1.0"))
    assert a.id == b.id


def test_a_default_and_the_same_value_written_out_are_one_run():
    a, b = (plan.runs(read(f"tricks: {{pretraining: {value}}}"))[-1] for value in ("", "{steps: 500}"))
    assert a.id == b.id
    a, b = (
        grids.read(f"name: g\ndata: digits\ntricks: [pooling]\nbudget: {{epochs: {n}}}", "g")
        for n in ("1", "1.0")
    )
    assert a.budget == b.budget
    assert repr(a.budget) == repr(b.budget)


def test_leave_one_out_takes_one_trick_from_the_stack_at_a_time():
    grid = read("tricks: {label_smoothing: , pooling: , placebo: }\ndesign: leave-one-out")
    assert names(grid) == ["all", "all-label_smoothing", "all-pooling", "all+placebo"]
    assert [arm.role for arm in grid.arms] == ["baseline", "trick", "trick", "control"]
    assert [len(arm.tricks) for arm in grid.arms] == [2, 1, 1, 3]


def test_a_full_factorial_has_every_cell():
    grid = read("tricks: {label_smoothing: , input_noise: , pooling: }\ndesign: full-factorial")
    assert len(grid.arms) == 8
    assert names(grid)[0] == "baseline"
    assert names(grid)[-1] == "all"
    assert "label_smoothing+pooling" in names(grid)


def test_arms_can_be_listed():
    grid = read(
        "tricks: {label_smoothing: 0.8}\n"
        "design: {arms: {smooth: [label_smoothing], both: {label_smoothing: 0.7, pooling: }}}"
    )
    assert names(grid) == ["baseline", "smooth", "both"]
    assert grid.arms[1].tricks[0].target == 0.8
    assert len(grid.arms[2].tricks) == 2


def test_seeds_can_start_anywhere():
    assert read("tricks: {pooling: }\nseeds: {count: 3, first: 100}").seeds == (100, 101, 102)


def test_budgets_in_images_steps_and_epochs_agree():
    assert grids.Budget("images", 640).steps(64, 320) == 10
    assert grids.Budget("steps", 10).steps(64, 320) == 10
    assert grids.Budget("epochs", 2).steps(64, 320) == 10


def test_a_name_nearly_right_finds_its_grid():
    with pytest.raises(Refused, match='did you mean "digits"'):
        grids.load("digit")


@pytest.fixture
def several() -> list[program.Run]:
    return plan.runs(
        read(
            "tricks: {label_smoothing: , label_noise: , pooling: , batch_size: 16}\nrecipe: {channels: 8}\nseeds: 7"
        )
    )


@pytest.mark.parametrize("most", [1, 3, 7, 20, None])
def test_arrays_hold_every_run_once_and_one_program_each(several, most):
    arrays = plan.arrays(several, lambda program: most or plan.suggested(program, "cpu"))
    assert sorted(r.id for a in arrays for r in a.runs) == sorted(r.id for r in several)
    assert all({r.program for r in a.runs} == {a.program} for a in arrays)
    assert all(len(a.runs) <= (most or 5) for a in arrays)


def test_dials_share_a_program_and_choices_do_not(several):
    programs = {r.arm: r.program for r in several}
    assert programs["baseline"] == programs["label_smoothing"] == programs["label_noise"]
    assert len(set(programs.values())) == 3


def test_a_run_is_known_by_what_it_computes_not_by_its_arm():
    one = plan.runs(read("tricks: {pooling: {kind: max}}"))
    other = plan.runs(read("tricks: {pooling: {kind: [average, max]}}"))
    ids = {r.arm: r.id for r in other if r.seed == 0}
    assert ids["pooling.kind=max"] == next(r.id for r in one if r.arm == "pooling" and r.seed == 0)
    assert len({r.id for r in other}) == len(other)
    assert replace(one[0], seed=99).id != one[0].id


def test_a_trick_that_conflicts_is_refused_by_name(monkeypatch):
    from bench.trick import registry

    monkeypatch.setattr(registry()["pooling"], "conflicts", {"batch_size": "for this test"})
    with pytest.raises(Refused, match="arm all: pooling conflicts with batch_size: for this test"):
        read("tricks: {pooling: , batch_size: 16, label_smoothing: }\ndesign: leave-one-out")


def test_an_array_never_mixes_the_choices_of_a_trick_that_acts_inside_the_step():
    from bench.trick import Claim, Trick, choice, dial

    class Both(Trick):
        """A trick with a dial and a choice, which none of ours has."""

        claims = [Claim("nothing", "fid", 0, "nowhere")]
        amount: float = dial(0.5, off=0.0, span=(0, 1), doc="how much")
        kind: str = choice("a", among=("a", "b"), doc="which")

        def images(self, x, at):
            return x * self.amount

    one = plan.runs(read("tricks: [placebo]"))[0]
    runs = [replace(one, arm=kind, tricks=(Both(kind=kind),), seed=s) for kind in "ab" for s in (0, 1)]
    arrays = plan.arrays(runs, lambda program: 4)
    assert [{r.arm for r in a.runs} for a in arrays] == [{"a"}, {"b"}]


TWO = """# the first
name: one
data: digits
tricks: [label_smoothing]
---
# the second
name: two
data: digits
tricks: [pooling]
"""


def test_a_file_can_hold_several_grids_each_with_its_own_text_and_lines():
    one, two = grids.read_all(TWO, "g.yaml")
    assert (one.name, two.name) == ("one", "two")
    assert two.at("tricks") == "g.yaml:9"
    assert one.text == "# the first\nname: one\ndata: digits\ntricks: [label_smoothing]\n"
    assert two.text.startswith("# the second\nname: two")
    assert grids.read(two.text, "again.yaml").arms == two.arms
    with pytest.raises(Refused, match=r"g.yaml:7: a second grid, where one is wanted \(one, two\)"):
        grids.read(TWO, "g.yaml")
    with pytest.raises(Refused, match=r"g.yaml:9: pool: no such trick"):
        grids.read_all(TWO.replace("pooling", "pool"), "g.yaml")
    with pytest.raises(Refused, match=r"g.yaml:7: name: 'one' is the grid on line 2 too"):
        grids.read_all(TWO.replace("name: two", "name: one"), "g.yaml")


def test_several_grids_run_one_after_the_other_and_the_worst_exit_code_counts(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(
        TWO.replace("tricks: [label_smoothing]", "tricks: [label_smoothing]\nscore: {samples: 2}")
    )
    done = CliRunner().invoke(main, ["plan", str(file), "--quick", "--results", str(tmp_path / "results")])
    assert done.exit_code == 2
    assert "two.yaml:5: score: 2 samples are too few" in done.output
    assert "grid      two" in done.output


def test_a_baseline_can_have_tricks_of_its_own():
    kind = "design: {kind: one-at-a-time, baseline: {batch_norm: {d: false, g: true}}}"
    grid = read(f"tricks: {{label_smoothing: , batch_norm: {{g: false}}}}\ncontrols: {{placebo: }}\n{kind}")
    tricks = {arm.name: {t.name(): t.values for t in arm.tricks} for arm in grid.arms}
    without = {"d": False, "g": True}
    assert tricks["baseline"] == {"batch_norm": without}
    assert tricks["label_smoothing"] == {"batch_norm": without, "label_smoothing": {"target": 0.9}}
    assert tricks["batch_norm"] == {"batch_norm": {"d": True, "g": False}}
    assert tricks["placebo"]["batch_norm"] == without


def test_in_listed_arms_what_is_beyond_the_baseline_says_the_role():
    arms = "{baseline: {batch_norm: {g: false}}, a: {batch_norm: {g: false}, pooling: }, none: []}"
    grid = read(f"controls: {{placebo: }}\ndesign: {{arms: {arms}}}")
    assert {arm.name: arm.role for arm in grid.arms} == {
        "baseline": "baseline",
        "a": "trick",
        "none": "trick",
        "placebo": "control",
    }
    assert [t.name() for t in grid.arms[-1].tricks] == ["batch_norm", "placebo"]


def test_a_list_of_mappings_makes_an_arm_of_each():
    grid = read("tricks: {label_noise: [{real: 0.1, fake: 0}, {real: 0, fake: 0.1}]}")
    assert names(grid)[1:] == ["label_noise.real=0.1,fake=0", "label_noise.real=0,fake=0.1"]
    with pytest.raises(Refused, match="stands twice"):
        read("tricks: {label_noise: [{real: 0.1, fake: 0}, {real: 0.1, fake: 0}]}")


def rules(monkeypatch, trick: str, **values) -> None:
    from bench.trick import registry

    for name, value in values.items():
        monkeypatch.setattr(registry()[trick], name, value)


def test_an_arm_that_lacks_what_it_requires_is_refused_where_it_stands(monkeypatch):
    rules(monkeypatch, "placebo", requires={"pooling": "for this test", "batch_size": "for this test"})
    with pytest.raises(
        Refused, match=r"g.yaml:4: arm placebo: placebo requires pooling or batch_size, which is"
    ):
        read("tricks: [placebo]")
    read("design: {arms: {both: [placebo, pooling]}}")  # one of several is enough


def test_a_fact_of_the_tables_is_asked_where_networks_are_built(monkeypatch):
    rules(monkeypatch, "placebo", conflicts={"batch_norm_in_d": "for this test"})
    grid = read("tricks: [placebo]")
    with pytest.raises(
        Refused, match="arm placebo: placebo conflicts with the fact that D has BatchNorm: for this"
    ):
        plan.runs(grid)
    assert plan.runs(grid, there={run.id for run in map_runs(grid)})  # a complete grid builds none
    free = read(
        "tricks: [placebo]\ndesign: {kind: one-at-a-time, baseline: {batch_norm: {d: false, g: true}}}"
    )
    assert plan.runs(free)


def map_runs(grid):
    return [plan._run(grid, arm, seed) for arm in grid.arms for seed in grid.seeds]


def test_networks_for_fewer_classes_than_the_data_has_are_refused_before_anything_trains():
    grid = read("tricks: {label_conditioning: {classes: 3}}")
    with pytest.raises(Refused, match="label_conditioning is made for 3 classes, and the data has 10"):
        plan.runs(grid)
    assert plan.runs(read("tricks: {label_conditioning: {classes: 12}}"))


@pytest.mark.parametrize("value", ["!!bool maybe", '!!int ""', "!!timestamp x"])
def test_a_tag_that_yaml_cannot_read_is_no_traceback(value):
    with pytest.raises(Refused, match=r"g\.yaml: not YAML that a grid can be read from"):
        read(f"seeds: {value}")


def test_two_losses_conflict_by_themselves(monkeypatch):
    rules(monkeypatch, "placebo", loss="one")
    rules(monkeypatch, "pooling", loss="other")
    with pytest.raises(
        Refused, match="arm both: pooling conflicts with placebo: one puts other in the place of"
    ):
        read("design: {arms: {both: [placebo, pooling]}}")


def test_a_pointless_trick_is_warned_of_in_one_line_for_all_its_arms(monkeypatch):
    from bench import compat

    rules(monkeypatch, "pooling", loss="other")
    rules(monkeypatch, "placebo", inert_if={"other_loss": "for this test"})
    grid = read("design: {arms: {a: [placebo, pooling], b: {placebo: , pooling: {kind: max}}, c: [placebo]}}")
    [line] = compat.warnings(grid)
    assert line.startswith(
        "g.yaml:4: warning: arms a, b: placebo does nothing, given pooling (the loss is not BCE"
    )
    rules(monkeypatch, "placebo", inert_if={"no_labels": "for this test"})
    assert compat.warnings(grid) == []
    one_class = "name: g\ndata: {set: digits, classes: [3]}\ntricks: [placebo]"
    assert "fact that the data set has no labels" in compat.warnings(grids.read(one_class, "g.yaml"))[0]


def test_every_fact_can_be_told():
    from bench import compat
    from bench.trick import FACTS

    assert set(FACTS) == {compat.OTHER_LOSS, compat.NO_LABELS, *compat.IN_TABLES}


def test_a_trick_of_sampling_is_no_arm(monkeypatch):
    rules(monkeypatch, "placebo", readout=True)
    with pytest.raises(
        Refused, match=r"tricks.placebo: placebo changes how G is sampled.*every run is scored with it"
    ):
        read("tricks: [placebo]")


def test_the_plan_offers_the_arm_that_is_equal_in_expectation(monkeypatch):
    from bench.estimate import partners

    rules(monkeypatch, "label_noise", partner=lambda self: ("label_smoothing", {"target": 0.7}))
    [line] = partners(read("tricks: [label_noise]"))
    assert line.startswith(
        "g.yaml:4: arm label_noise: label_noise {real: 0.05, fake: 0.05} equals label_smoothing {t"
    )
    assert partners(read("tricks: {label_noise: , label_smoothing: 0.7}")) == []


def test_the_plan_says_in_words_how_programs_differ(several):
    from bench.estimate import differences

    programs = {r.arm: r.program for r in several}
    first = programs["baseline"]
    assert differences(first, first) == []
    assert differences(first, programs["batch_size"]) == ["batch size 16 instead of 64"]
    [words] = differences(first, programs["pooling"])
    assert words.startswith("D: down1, down2 changed (kernel 4 to 3, stride 2 to 1), down1_pool")


def test_tiny_shrinks_what_the_grid_says_and_refuses_what_no_arm_has():
    from bench.tiny import tiny

    small = tiny(read("tricks: {pretraining: {steps: [200, 400]}}\ntiny: {pretraining: {steps: 0.01}}"))
    assert [t.steps for arm in small.arms for t in arm.tricks] == [2, 4]
    assert (small.name, len(small.seeds)) == ("g-tiny", 2)
    with pytest.raises(
        Refused, match=r'g.yaml:5: tiny.pretrainin: no arm has such a trick .did you mean "pretra'
    ):
        read("tricks: [pretraining]\ntiny: {pretrainin: {steps: 0.01}}")
    with pytest.raises(Refused, match=r"tiny.pretraining.step: no such key"):
        read("tricks: [pretraining]\ntiny: {pretraining: {step: 0.01}}")
