"""A results folder whose files contradict each other says so, whichever cell was edited; the checked-in ones do not."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import plan
from bench.analyse import analyse, caveats
from bench.doubts import DISTRUST, doubts, run_id, strangers
from bench.results import load
from bench.verify import subject

RESULTS = Path(__file__).parents[1] / "results"
NAMES = sorted(path.parent.name for path in RESULTS.glob("*/runs.csv"))


@pytest.mark.parametrize("name", NAMES)
def test_ids_made_from_environment_json_are_those_of_the_planned_runs(name):
    s = subject(RESULTS / name)
    for _, run in plan.first_runs(s.grid):
        tricks = {trick.name(): trick.values for trick in run.tricks}
        assert run_id(s.environment, tricks, run.seed) == run.id
    assert doubts(s.results) == []


@pytest.fixture(scope="module")
def results():
    return load(RESULTS / "fashion-mnist")


def edited(results, row: int, **cells):
    runs = results.runs.copy()
    for column, value in cells.items():
        runs.loc[row, column] = value
    return replace(results, runs=runs)


@pytest.mark.parametrize("row", [0, 9, 31])
@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"seed": 77}, "its id is of another"),
        ({"arm": "placebo", "seed": 78}, "its id is of another"),
        ({"dtype": "bfloat16"}, "its id is of another"),
        ({"images": 4}, "its images are not those"),
        ({"label_smoothing.target": 0.123}, "`label_smoothing.target` is not what environment.json says"),
    ],
)
def test_an_edited_row_is_told(results, row, cells, why):
    other = edited(results, row, **cells)
    [(run, said)] = strangers(other)
    assert run == results.runs["run"][row]
    assert said.startswith(why)
    assert [note for note in caveats(analyse(other)) if DISTRUST in note] == doubts(other) != []


@pytest.mark.parametrize("column", ["label_smoothing.target", "input_noise.sigma", "input_noise.fade"])
def test_a_column_of_settings_that_was_deleted_is_told_of_the_runs_that_have_a_value_there(results, column):
    told = strangers(replace(results, runs=results.runs.drop(columns=column)))
    assert {run for run, _ in told} == set(results.runs["run"][results.runs[column].notna()])


def test_ids_of_which_none_fits_are_of_another_version_of_the_code_and_not_judged(results):
    runs = results.runs.assign(run="x" + results.runs["run"])
    curves = results.curves.assign(run="x" + results.curves["run"])
    assert strangers(replace(results, runs=runs, curves=curves)) == []


def test_a_distance_of_nothing_is_told(results):
    [note] = doubts(edited(results, 5, fd=0.0))
    assert "disagree on the last distance of 1 run" in note


def test_doubting_imports_no_torch_and_no_tricks():
    name = RESULTS / "quick"
    code = "import sys; from bench.doubts import doubts; from bench.results import load;"
    code += (
        f" print(doubts(load({str(name)!r})), [m for m in ('torch', 'tricks', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
