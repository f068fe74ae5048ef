"""The packaged grids: each says what it claims, can be judged, and runs at tiny scale to its report."""

import csv
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import compat, plan
from bench import grid as grids
from bench.cli import main
from bench.effects import changes_nothing
from bench.grid import smallest_p
from bench.power import contrasts
from bench.results import MACHINE_FAILURES
from bench.stats import ALPHA
from bench.tiny import of_results, tiny
from bench.trick import registry

FILES = sorted(grids.packaged())
ALL = {grid.name: grid for name in FILES for grid in grids.load_all(name)}
JUDGED = {name: grid for name, grid in ALL.items() if any(arm.role == "control" for arm in grid.arms)}
EARLIER = {"digits", "fashion-mnist"}  # their headers are older than this rule


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", sorted(set(JUDGED) - EARLIER))
def test_its_header_says_what_is_claimed_and_what_would_confirm_or_refute_it(name):
    header = re.match(r"(#.*\n|---\n)*", ALL[name].text)[0].lower()
    assert all(word in header for word in ("claim", "confirmed", "refuted")), header


@pytest.mark.parametrize("name", sorted(ALL))
def test_its_results_folder_is_named_after_its_file(name):
    [file] = [f for f in FILES if name == f or name.startswith(f"{f}-")] or [""]
    assert file


@pytest.mark.parametrize("name", sorted(JUDGED))
def test_it_has_a_placebo_and_seeds_enough_for_a_verdict(name):
    grid = JUDGED[name]
    controls = [{t.name() for t in arm.tricks} for arm in grid.arms if arm.role == "control"]
    none = [c for c in controls if any(changes_nothing(registry()[trick].card()) for trick in c)]
    assert none
    assert len(controls) > len(none) or name in EARLIER, "no control that is known to hurt"
    assert smallest_p(len(grid.seeds), contrasts(grid)[0]) < ALPHA, (
        "no p can be small enough after Holm's correction"
    )


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_arm_can_be_and_none_is_pointless(name):
    assert plan.runs(ALL[name])
    assert compat.warnings(ALL[name]) == []


@pytest.mark.parametrize("name", sorted(ALL))
def test_tiny_keeps_every_arm_its_pixels_and_what_is_one_class(name):
    full, small = ALL[name], tiny(ALL[name])
    assert [(a.name, a.role) for a in small.arms] == [(a.name, a.role) for a in full.arms]
    assert small.data.size == full.data.size
    assert len(small.data.classes) == len(full.data.classes)
    for old, new in zip(full.arms, small.arms, strict=True):
        for a, b in zip(old.tricks, new.tricks, strict=True):
            shrunk = full.tiny.get(a.name(), {})
            assert {k: v for k, v in b.values.items() if k not in shrunk} == {
                k: v for k, v in a.values.items() if k not in shrunk
            }
    assert "NOT the experiment" in small.text.partition("\n")[0]


@pytest.mark.parametrize("file", [f for f in FILES if any(g.name in JUDGED for g in grids.load_all(f))])
def test_every_arm_runs_and_is_scored_and_reported_at_tiny_scale(file, cache, tmp_path):
    results, reports = tmp_path / "results", tmp_path / "reports"
    words = f"run {file} --scale tiny --results {results} --cache {cache} --device cpu --slots 2 --threads 1"
    done = CliRunner().invoke(main, [*words.split(), "--runs-per-array", "12"])
    assert done.exit_code == 0, done.output
    assert "NOT the experiment" in done.output
    for grid in map(tiny, grids.load_all(file)):
        with (results / grid.name / "runs.csv").open() as table:
            rows = list(csv.DictReader(table))
        assert {row["run"] for row in rows} == {run.id for run in plan.runs(grid)}
        assert of_results(results / grid.name).arms == grid.arms
        assert not [row["reason"] for row in rows if row["status"] in MACHINE_FAILURES]
        scored = [row for row in rows if row["status"] != "diverged"]
        assert scored
        assert all(row["fd"] for row in scored)
        assert all(int(row["parameters"]) > 0 and int(row["multiply_adds"]) > 0 for row in rows)
        told = CliRunner().invoke(
            main, ["report", grid.name, "--results", str(results), "--reports", str(reports)]
        )
        assert told.exit_code == 0, told.output
        page = (reports / grid.name / "index.md").read_text()
        assert all(arm.name in page for arm in grid.arms)
