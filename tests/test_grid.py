"""Grids: what may be written, which arms and runs come of it, and how they share arrays."""

from dataclasses import replace

import pytest

from bench import grid as grids
from bench import plan, program
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


def test_packaged_grids_can_be_read_and_planned():
    assert "digits" in grids.packaged()
    for name in grids.packaged():
        grid = grids.load(name)
        assert grid.name == name
        assert plan.runs(grid)


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
