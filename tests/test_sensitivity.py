"""A report can judge runs again with other limits."""

from dataclasses import replace

import fake_results
import pandas as pd
import pytest

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
