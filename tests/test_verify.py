"""`bench verify`: what is checked in holds, and whatever is broken in it is found and named."""

import ast
import csv
import hashlib
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import grid as grids
from bench import verify as v
from bench.analyse import analyse, caveats
from bench.cli import main
from bench.errors import Refused
from bench.report import report
from bench.rerun import judge, rerun, sample
from bench.results import load
from bench.run import Options, run
from bench.store import Store, read_table
from bench.tiny import tiny as shrink
from bench.together import together
from bench.verify import subject, verify

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "results" / "fashion-mnist"
NAMES = sorted(p.parent.name for p in (ROOT / "results").glob("*/runs.csv"))
FIRST = "dccf65ded723462a"  # baseline, seed 0


@pytest.fixture
def folder(tmp_path) -> Path:
    shutil.copytree(WHOLE, tmp_path / "fashion-mnist")
    return tmp_path / "fashion-mnist"


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def cells(folder: Path, run: str, **new: str) -> None:
    """Write other cells into a row of runs.csv."""
    with (folder / "runs.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    row = next(row for row in rows if row[0] == run)
    row[:] = (dict(zip(header, row, strict=True)) | new).values()
    with (folder / "runs.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _smooth(folder: Path) -> str:
    return next(run for run, row in subject(folder).rows.items() if row["arm"] == "label_smoothing")


def drop(path: Path, start: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(start)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_checked_in_is_whole_and_consistent(name):
    """All but the report, which has a test of its own, and git, since work in progress is not committed."""
    s = subject(ROOT / "results" / name)
    found = [check(s) for check in v.CHECKS]
    assert [c.line for c in found if c.level == "failed"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_checked_in_report_is_what_the_results_give_now(name):
    """Of sets that have a report; how a drawing is written may be another font's or library's."""
    found = v._report(subject(ROOT / "results" / name), ROOT / "reports")
    assert found.level != "failed", found.text


def test_the_checked_in_report_of_several_sets_is_what_their_results_give_now(tmp_path):
    there = ROOT / "reports" / "together"
    header = next(
        line for line in (there / "index.md").read_text().splitlines() if line.startswith("| trick |")
    )
    sets = re.findall(r"`(\S+)` \(", header)
    made = together([ROOT / "results" / name for name in sets], tmp_path, "together")
    names = {path.name for path in there.iterdir()}
    assert names == {path.name for path in made.iterdir()}
    for name in (name for name in sorted(names) if name.endswith((".md", ".csv", ".html"))):
        assert v._first_difference((there / name).read_bytes(), (made / name).read_bytes()) == "", name


BREAKS = {
    "a_planned_row_is_gone": (
        v._plan,
        lambda f: (drop(f / "runs.csv", FIRST), drop(f / "curves.csv", FIRST)),
        f"baseline, seed 0 ({FIRST}) has no row",
    ),
    "a_row_is_of_no_planned_run": (
        v._plan,
        lambda f: [edit(f / n, FIRST, "0000000000000000", 999) for n in ("runs.csv", "curves.csv")],
        "row 0000000000000000 (baseline, seed 0) is of no run",
    ),
    "a_setting_was_edited": (
        v._rows,
        lambda f: cells(f, _smooth(f), **{"label_smoothing.target": "0.8"}),
        "label_smoothing.target is 0.8, its run has",
    ),
    "a_seed_was_edited": (v._rows, lambda f: cells(f, FIRST, seed="9"), "seed is 9, its run has 0"),
    "the_recipe_was_edited": (
        v._description,
        lambda f: edit(f / "environment.json", '"channels": 32', '"channels": 64'),
        "recipe is ",
    ),
    "an_arm_was_edited": (
        v._description,
        lambda f: edit(f / "environment.json", '"target": 0.9', '"target": 0.8'),
        "arm label_smoothing of grid.yaml is another",
    ),
    "a_score_was_edited": (
        v._curves,
        lambda f: cells(f, FIRST, fd="7.5"),
        "fd is 7.5 in runs.csv, the last value in curves.csv is 7.988",
    ),
    "a_recall_was_taken_out": (
        v._curves,
        lambda f: cells(f, FIRST, recall=""),
        "recall is empty in runs.csv",
    ),
    "the_best_was_edited": (v._curves, lambda f: cells(f, FIRST, fd_best="1.0"), "fd_best is 1.0"),
    "a_classifiers_distance_is_called_fid": (v._curves, lambda f: cells(f, FIRST, fid="7.9"), "fid is 7.9"),
    "a_curve_is_cut": (
        v._curves,
        lambda f: drop(f / "curves.csv", f"{FIRST},24"),
        "values in curves.csv where other runs of baseline have",
    ),
    "an_ok_run_has_a_reason": (
        v._status,
        lambda f: cells(f, FIRST, reason="x"),
        'status ok, but a reason: "x"',
    ),
    "a_failed_run_has_none": (v._status, lambda f: cells(f, FIRST, status="collapsed"), "without a reason"),
    "a_nan_is_not_diverged": (v._status, lambda f: cells(f, FIRST, detectors="nan"), "go together"),
    "an_ok_run_has_a_failures_detector": (
        v._status,
        lambda f: cells(f, FIRST, detectors="collapse_class"),
        "status ok, but collapsed by its detectors",
    ),
    "a_machine_failure_has_a_score": (
        v._status,
        lambda f: cells(f, FIRST, status="timeout", reason="slow", detectors=""),
        "status timeout, but a score",
    ),
    "a_picture_is_gone": (
        v._pictures,
        lambda f: (f / "samples" / f"{FIRST}.png").unlink(),
        f"samples/{FIRST}.png is missing",
    ),
    "a_picture_is_cut": (
        v._pictures,
        lambda f: (f / "samples" / "real.png").write_bytes((f / "samples" / "real.png").read_bytes()[:500]),
        "samples/real.png is not a whole PNG",
    ),
    "a_picture_is_of_another_size": (
        v._pictures,
        lambda f: Image.new("L", (16, 16)).save(f / "samples" / "real.png"),
        "samples/real.png is (16, 16) L, not (224, 112)",
    ),
    "two_pictures_are_swapped": (
        v._pictures,
        lambda f: shutil.copy(f / "samples" / "real.png", f / "samples" / f"{FIRST}.png"),
        f"samples/{FIRST}.png is not the last frame",
    ),
    "a_frame_is_gone": (
        v._pictures,
        lambda f: next((f / "samples" / FIRST).iterdir()).unlink(),
        f"samples/{FIRST} (baseline, seed 0) has 4 frames, the grid has 5 points",
    ),
    "an_environment_was_edited": (
        v._environments,
        lambda f: edit(f / "environment.json", '"python": "3', '"python": "4'),
        "it was edited",
    ),
    "a_protocol_was_edited": (
        v._protocol,
        lambda f: edit(f / "environment.json", '"weights": "bd', '"weights": "be'),
        "protocol e0b76e5332b5 has the hash",
    ),
    "the_data_are_other": (
        v._protocol,
        lambda f: edit(f / "environment.json", '"train": 60000', '"train": 50000'),
        "real is 60000, the grid's is 50000",
    ),
    "the_weights_are_other": (
        v._weights,
        lambda f: (f / "classifier.safetensors").write_bytes(b"other"),
        "classifier.safetensors has the hash",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_found_and_named(name, folder):
    check, break_, told = BREAKS[name]
    break_(folder)
    found = check(subject(folder))
    assert found.level == "failed"
    assert told in found.text


def test_failures_that_are_called_ok_are_found_in_every_row_with_or_without_their_detectors(tmp_path):
    """Every failed row of a set, one after another, and then the note of the report over all of them."""
    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "results" / "digits", folder, ignore=shutil.ignore_patterns("samples"))
    failed = [run for run, row in subject(folder).rows.items() if row["status"] != "ok"]
    assert len(failed) > 30
    assert "140 judged again" in v._status(subject(folder)).text
    for detectors in ({}, {"detectors": ""}):
        for one in failed:
            cells(folder, one, status="ok", reason="", failed_at="", **detectors)
        found = v._status(subject(folder))
        assert found.level == "failed"
        assert len(set(re.findall(r"row (\w+) ", found.text)) & set(failed)) == 3
        assert "status ok, but " in found.text
        assert f"and {len(failed) - 3} more" in found.text
        [note] = [n for n in caveats(analyse(load(folder))) if "no verdict here can be trusted" in n]
        assert f"The status of {len(failed)} runs" in note


def test_curves_that_another_version_of_the_code_made_are_not_judged_again(tmp_path):
    folder = tmp_path / "quick"
    shutil.copytree(ROOT / "results" / "quick", folder, ignore=shutil.ignore_patterns("samples"))
    failed = next(row["run"] for row in subject(folder).rows.values() if row["status"] != "ok")
    cells(folder, failed, status="ok", reason="", detectors="", failed_at="", source="0123456789ab")
    found = v._status(subject(folder))
    assert (found.level, "134 judged again from curves.csv, the others" in found.text) == ("ok", True)


@pytest.mark.parametrize(
    "metric", ["flat", "spread", "saturated", "saturated_real", "classes", "classes_real", "kl"]
)
@pytest.mark.parametrize("broken", ["all gone", "first gone", "last empty"])
def test_a_run_of_which_figures_are_missing_is_not_judged_again(metric, broken, digits):
    curves = digits.results.curves
    failed = next(run for run, row in digits.rows.items() if row["status"] == "collapsed")
    own = curves.index[(curves["run"] == failed) & (curves["metric"] == metric)]
    if broken == "last empty":
        curves = curves.assign(value=curves["value"].drop(own[-1]))
    else:
        curves = curves.drop(own if broken == "all gone" else own[:1])
    found = replace(digits, results=replace(digits.results, curves=curves))
    assert "139 judged again from curves.csv, the others" in v._status(found).text
    assert caveats(analyse(found.results)) == caveats(analyse(digits.results))


@pytest.fixture(scope="module")
def digits() -> v.Subject:
    return subject(ROOT / "results" / "digits")


def test_rows_without_the_column_of_failures_times_are_judged_all_the_same(tmp_path):
    shutil.copytree(
        ROOT / "results" / "digits", tmp_path / "digits", ignore=shutil.ignore_patterns("samples")
    )
    table = pd.read_csv(tmp_path / "digits" / "runs.csv", dtype=str, keep_default_na=False)
    table.drop(columns="failed_at").to_csv(tmp_path / "digits" / "runs.csv", index=False)
    found = v._status(subject(tmp_path / "digits"))
    assert (found.level, "but failed_at is empty" in found.text) == ("failed", True)


def test_tables_that_cannot_be_read_are_one_failed_line(folder, tmp_path):
    edit(folder / "runs.csv", ",ok,", ",okay,")
    found = verify(folder, tmp_path / "reports")
    assert found[0].level == "failed"
    assert "okay" in found[0].text
    (folder / "grid.yaml").write_text("name: x\n")
    assert verify(folder, tmp_path)[0].level == "failed"
    told = CliRunner().invoke(main, ["verify", "fashion-mist", "--results", str(tmp_path)])
    assert told.exit_code == 2
    assert "fashion-mnist" in told.output


def test_rows_of_an_earlier_larger_grid_are_a_note(folder):
    edit(folder / "grid.yaml", "seeds: 8", "seeds: 6")
    found = v._plan(subject(folder))
    assert (found.level, "8 rows more are of an earlier, larger grid" in found.text) == ("note", True)
    assert v._rows(subject(folder)).level == "ok"


def test_code_is_digested_alike_in_every_version_of_python():
    """As worked out by Python 3.11 and 3.12, which write this function differently."""
    code = 'def f(a, *b):\n    "doc"  # comment\n    return f"{a!r:>3} {b[\'x\'] if b else 0}"\n'
    said = v.source._said(ast.parse(code))
    assert "doc" not in said
    assert hashlib.sha256(said.encode()).hexdigest()[:12] == "43e6036f1f93"


def test_stray_pictures_and_older_code_are_notes(folder):
    shutil.copy(folder / "samples" / "real.png", folder / "samples" / "stray.png")
    assert v._pictures(subject(folder)).level == "note"
    run = next(iter(subject(folder).planned.values()))
    for row in subject(folder).rows:
        cells(folder, row, source="0123456789ab")
    assert v._source(subject(folder)).text.startswith("32 of 32 rows")
    cells(folder, run.id, source=v.source.digest(run, ("ema",)))
    assert v._source(subject(folder)).text.startswith("31 of 32 rows")


def test_the_journal_is_checked_line_by_line_and_against_the_tables(folder):
    assert v._journal(subject(folder)).text.startswith("none")
    with Store(folder) as store:
        store.commit(list(store.rows.values()), [])
    assert v._journal(subject(folder)).level == "ok"
    cells(folder, FIRST, fd="7.5")
    found = v._journal(subject(folder))
    assert found.level == "failed"
    assert f"row {FIRST} (baseline, seed 0): fd is 7.5 in runs.csv, 7.98" in found.text
    text = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(text.replace(b"7.98", b"7.97", 1) + text)
    with pytest.raises(Refused, match=r"journal\.jsonl:1: a damaged line"):
        v._journal(subject(folder))


def test_the_report_is_what_the_results_give(folder, tmp_path):
    reports, name = tmp_path / "reports", folder.name
    s = subject(folder)
    assert v._report(s, reports).level == "note"
    there = report(folder, reports)
    assert v._report(s, reports).level == "ok"
    (there / "ratio.svg").write_text("another drawing")
    assert v._report(s, reports).level == "note"
    edit(there / "index.md", "1.05", "0.95")
    found = v._report(s, reports)
    assert found.level == "failed"
    assert "index.md, line " in found.text
    assert f"bench report {name}" in found.text
    (there / "index.md").unlink()
    (there / "old.png").write_bytes(b"")
    found = v._report(s, reports)
    assert "index.md is missing" in found.text
    assert "old.png is not made from these results" in found.text


def test_git_says_which_committed_files_were_changed(folder, tmp_path):
    def git(*words):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert v._git(folder, tmp_path / "reports")[0].text.endswith("is in no git checkout")
    git("init")
    assert v._git(folder, tmp_path / "reports")[0].level == "note"
    git("add", ".")
    git("commit", "-m", "x")
    assert v._git(folder, tmp_path / "reports")[0].level == "ok"
    shutil.copy(folder / "samples" / "real.png", folder / "samples" / f"{FIRST}.png")
    (folder / "tricks.json").unlink()
    (found,) = v._git(folder, tmp_path / "reports")
    assert found.level == "failed"
    assert f"{FIRST}.png differs" in found.text
    assert "tricks.json differs" in found.text


# --- training again

GRID = """
name: small
data: digits
recipe: {channels: 4}
tricks: {label_smoothing: 0.9}
controls: {placebo: }
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A tiny grid that was really run, and its cache."""
    place = tmp_path_factory.mktemp("trained")
    options = Options(results=place / "results", cache=place / "cache", device="cpu", slots=1, threads=1)
    assert run(shrink(grids.read(GRID, "small.yaml")), options, lambda line: None) == 0
    return place


def test_a_tiny_folder_holds_and_its_rows_come_out_again_to_the_bit(trained, tmp_path):
    words = ["verify", "small-tiny", "--results", str(trained / "results"), "--reports", str(tmp_path)]
    words += ["--rerun", "3", "--cache", str(trained / "cache"), "--device", "cpu"]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 0, told.output
    assert "all rows are of this version of the code" in told.output
    again = [line for line in told.output.splitlines() if "rerun" in line]
    assert {line.split()[2].split(":")[0] for line in again} == {"baseline", "label_smoothing", "placebo"}
    assert all("reproduces to the bit" in line for line in again)


def test_a_row_that_was_made_up_does_not_come_out_again(trained, tmp_path):
    folder = tmp_path / "small-tiny"
    shutil.copytree(trained / "results" / "small-tiny", folder)
    s = subject(folder)
    (first,) = sample(s, 1, 0)
    cells(folder, first.id, fd="0.001", status="ok", reason="", detectors="")
    s = subject(folder)
    (found,) = rerun(s, 1, 0, "cpu", trained / "cache", None, None, lambda line: None)
    assert found.level == "failed"


def test_the_time_of_a_failure_is_what_the_curves_give(trained, tmp_path):
    folder = tmp_path / "small-tiny"
    shutil.copytree(trained / "results" / "small-tiny", folder)
    rows = subject(folder).rows
    assert all(bool(row["failed_at"]) == (row["status"] != "ok") for row in rows.values())
    assert v._status(subject(folder)).level == "ok"
    run_, row = next((run_, row) for run_, row in rows.items() if row["status"] == "no_learn")
    for told, words in (
        ("1", f"failed_at is 1, but {row['failed_at']} by curves.csv"),
        ("", "failed_at is empty"),
    ):
        cells(folder, run_, failed_at=told)
        assert words in v._status(subject(folder)).text
    cells(folder, run_, failed_at="7", status="ok", reason="", detectors="")
    assert "status ok, but failed_at 7" in v._status(subject(folder)).text


def test_other_data_are_refused_before_anything_trains(trained, tmp_path):
    folder = tmp_path / "small-tiny"
    shutil.copytree(trained / "results" / "small-tiny", folder)
    edit(folder / "environment.json", '"checksum": "0707', '"checksum": "1707', 9)
    with pytest.raises(Refused, match="its data had checksum 1707"):
        next(rerun(subject(folder), 1, 0, "cpu", trained / "cache", None, None, lambda line: None))


def test_samples_are_drawn_by_the_seed_and_spread_over_the_arms():
    s = subject(WHOLE)
    assert len({r.arm for r in sample(s, 4, 0)}) == 4
    assert [r.id for r in sample(s, 9, 0)] == [r.id for r in sample(s, 9, 0)]
    assert [r.id for r in sample(s, 9, 0)] != [r.id for r in sample(s, 9, 1)]
    assert len(sample(s, 99, 0)) == 32


def test_another_machines_rounding_is_reproduced_statistically_and_another_level_is_not():
    s = subject(WHOLE)
    run_, row = s.planned[FIRST], s.rows[FIRST]
    assert "to the bit (fd 7.98853)" in judge(s, run_, dict(row), 1).text
    last = judge(s, run_, row | {"fd": "7.9885331547988"}, 1)
    assert (last.level, "reproduces to rounding" in last.text) == ("ok", True)
    near = judge(s, run_, row | {"fd": "8.05", "kid": "0.035"}, 1)
    assert near.level == "ok"
    assert "reproduces statistically, not to the bit (fd, kid): fd 7.98853, now fd 8.05; +0.8%" in near.text
    far = judge(s, run_, row | {"fd": "16.0"}, 1)
    assert (far.level, "does not reproduce" in far.text) == ("failed", True)
    assert judge(s, run_, row | {"status": "diverged", "fd": ""}, 1).level == "failed"
    assert judge(s, run_, row | {"protocol": "another"}, 1).level == "failed"


def test_false_alarms_of_a_rerun_are_as_rare_as_they_say():
    """Each seed as the re-run of another seed of its arm: an independent draw of the same spread."""
    s = subject(WHOLE)
    rows = [row for row in read_table(WHOLE / "runs.csv", ("run",)) if row["arm"] == "baseline"]
    pairs = [(a, b) for a in rows for b in rows if a is not b]
    alarms = sum(judge(s, s.planned[a["run"]], a | {"fd": b["fd"]}, 1).level == "failed" for a, b in pairs)
    assert alarms <= 0.05 * len(pairs)
