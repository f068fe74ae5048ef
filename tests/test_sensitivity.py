"""A report can judge runs again with other limits."""

from dataclasses import replace

import fake_results
import pandas as pd
import pytest

from bench.analyse import analyse
from bench.detect import USUAL
from bench.results import load
from bench.sensitivity import FACTORS, sensitivity, statuses

GOOD = {"flat": 0.5, "saturated": 0.4, "saturated_real": 0.4, "spread": 0.9}
GOOD |= {"classes": 10, "classes_real": 10, "kl": 0.1}


@pytest.fixture
def results(tmp_path):
    """A folder whose runs all have healthy figures, but one whose images differ a third as much as real ones."""
    fake_results.write(tmp_path / "some")
    found = load(tmp_path / "some")
    runs = found.runs.assign(status="ok", fd=8.0, recall=0.5)
    lines = [
        (run, 20_000, "raw-eval", key, 2_000, 0.3 if key == "spread" and i == 0 else float(value))
        for i, run in enumerate(runs["run"])
        for key, value in (GOOD | {"fd": 8.0}).items()
    ]
    curves = pd.DataFrame(lines, columns=["run", "images", "readout", "metric", "samples", "value"])
    return replace(found, runs=runs, curves=curves)


def test_a_run_near_a_limit_fails_under_stricter_ones_only(results):
    table = sensitivity(results)
    assert list(table) == ["runs", *(f"{factor:g}" for factor in FACTORS)]
    assert table["runs"].sum() == len(results.runs)
    lenient, usual, strict = (table[f"{factor:g}"].sum() for factor in (2.0, 1.0, 0.5))
    assert (lenient, usual, strict) == (0, 0, 1)


def test_the_usual_limits_give_the_usual_statuses(results):
    assert (statuses(results, USUAL) == "ok").all()


def test_a_run_that_diverged_stays_diverged(results):
    runs = results.runs.assign(status=["diverged", *["ok"] * (len(results.runs) - 1)])
    assert (statuses(replace(results, runs=runs), USUAL) != "ok").sum() == 1


def test_a_folder_without_figures_says_nothing(tmp_path):
    fake_results.write(tmp_path / "old")
    assert sensitivity(load(tmp_path / "old")).empty


@pytest.mark.parametrize(("spread", "depends"), [(0.2, True), (0.1, False)])
def test_an_arm_that_is_unstable_only_by_where_a_limit_lies_is_called_so(results, spread, depends):
    """Images of one arm differ 20 or 10 % as much as real ones: the limit is 25 %, twice as lenient 12.5 %."""
    arm = "noise_length"
    its = set(results.runs["run"][results.runs["arm"] == arm])
    runs, curves = results.runs.copy(), results.curves.copy()
    runs.loc[runs["run"].isin(its), ["status", "detectors"]] = "collapsed", "collapse_pair"
    curves.loc[curves["metric"] == "spread", "value"] = 0.9
    curves.loc[(curves["metric"] == "spread") & curves["run"].isin(its), "value"] = spread
    [effect] = [e for e in analyse(replace(results, runs=runs, curves=curves)).effects if e.arm.name == arm]
    assert effect.verdict == "unstable"
    assert ("limit-dependent" in effect.qualifiers) is depends
