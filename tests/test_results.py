"""A results folder reads back as it was written, and whatever is broken in it is refused in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_results
import pandas as pd
import pytest

from bench import results, store
from bench.errors import Refused
from bench.grid import load as load_grid
from bench.results import read_cards
from bench.run import _same_grid
from bench.store import Store

SMALL = {
    name: fake_results.ARMS[name] for name in ("baseline", "label_smoothing", "pooling.kind=max", "placebo")
}


@pytest.fixture
def folder(tmp_path):
    return fake_results.write(tmp_path / "results" / "small", arms=SMALL, seeds=3, samples=False)


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def refusal(folder):
    with pytest.raises(Refused) as caught:
        results.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def field(folder, column, row):
    """The text of one cell, rows counted from 0 below the header."""
    lines = (folder / "runs.csv").read_text().splitlines()
    return lines[row + 1].split(",")[lines[0].split(",").index(column)]


def change(folder, column, row, value, file="runs.csv"):
    path = folder / file
    lines = path.read_text().splitlines()
    cells = lines[row + 1].split(",")
    cells[lines[0].split(",").index(column)] = value
    lines[row + 1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def test_the_columns_read_are_the_columns_written():
    assert tuple(results.BEFORE_TRICKS) == tuple(store.BEFORE_TRICKS)
    assert tuple(results.AFTER_TRICKS) == tuple(store.AFTER_TRICKS)
    assert tuple(results.CURVES) == tuple(store.CURVES)


def test_tables_are_typed_and_in_grid_order(folder):
    loaded = results.load(folder)
    runs = loaded.runs
    assert loaded.name == "small"
    assert list(runs["arm"].unique()) == list(SMALL)
    assert list(runs["seed"][:3]) == [0, 1, 2]
    for column, kind in (("run", "string"), ("seed", "Int64"), ("parameters", "Int64"), ("fd", "float64")):
        assert runs[column].dtype == kind
    assert runs["status"].dtype == pd.CategoricalDtype(results.STATUSES)
    assert runs["pooling.kind"].dtype == "string"
    assert runs["label_smoothing.target"].dtype == "float64"
    assert loaded.curves["value"].dtype == "float64"


def test_floats_read_back_equal_and_an_absent_value_is_absent(folder):
    runs = results.load(folder).runs
    row = int(runs.index[runs["arm"] == "baseline"][1])
    assert repr(float(runs["fd"][row])) == field(folder, "fd", 1)
    assert runs["fid"].isna().all()
    assert runs["label_smoothing.target"][runs["arm"] == "baseline"].isna().all()
    assert runs["reason"][runs["status"] == "ok"].isna().all()


def test_a_reason_may_hold_commas_quotes_and_line_ends(folder):
    lines = (folder / "runs.csv").read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if "2 of 10 classes" in line)
    lines[row] = lines[row].replace("2 of 10 classes", '"a, ""b""\nc"')
    (folder / "runs.csv").write_text("\n".join(lines) + "\n")
    assert 'a, "b"\nc' in set(results.load(folder).runs["reason"].dropna())


def test_bench_load_reads_from_a_name_as_text(folder):
    assert len(results.load(str(folder)).runs) == 12


def test_a_missing_folder_names_the_nearest_and_all(folder):
    message = refusal(folder.parent / "smal")
    assert 'did you mean "small"' in message
    assert "bench run" in message


def test_a_missing_folder_among_no_results_says_so(tmp_path):
    assert "has no results yet" in refusal(tmp_path / "nowhere" / "x")


@pytest.mark.parametrize("name", ["runs.csv", "curves.csv", "environment.json", "tricks.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize("name", ["runs.csv", "curves.csv", "environment.json", "tricks.json"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.83, 0.999])
def test_a_file_cut_off_anywhere_is_refused_with_its_name(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: min(int(share * len(content)), len(content) - 2)])
    message = refusal(folder)
    assert name in message
    assert "version control" in message


def test_a_line_with_too_few_fields_is_named(folder):
    lines = (folder / "runs.csv").read_text().splitlines()
    lines[4] = lines[4].rsplit(",", 3)[0]
    (folder / "runs.csv").write_text("\n".join(lines) + "\n")
    assert "runs.csv, line 5" in refusal(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "runs.csv").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refusal(folder)


def test_an_unknown_column_gets_the_nearest_spelling(folder):
    edit(folder / "runs.csv", "train_seconds", "train_second")
    message = refusal(folder)
    assert '"train_second"' in message
    assert 'did you mean "train_seconds"' in message


def test_a_setting_of_an_unknown_trick_gets_the_nearest_spelling(folder):
    edit(folder / "runs.csv", "label_smoothing.target", "label_smoothing.traget")
    assert 'did you mean "label_smoothing.target"' in refusal(folder)


def test_a_missing_column_is_named(folder):
    lines = (folder / "runs.csv").read_text().splitlines()
    (folder / "runs.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    assert '"source" is missing' in refusal(folder)


def test_an_unknown_status_gets_the_nearest_spelling_and_the_choice(folder):
    change(folder, "status", 2, "colapsed")
    message = refusal(folder)
    assert "line 4" in message
    assert 'column status: "colapsed"' in message
    assert 'did you mean "collapsed"' in message
    assert "late_collapse" in message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("fd", "about 30"),
        ("fd", "nan"),
        ("fd", "inf"),
        ("fd", "-inf"),
        ("fd", "-3.0"),
        ("precision", "1.2"),
        ("seed", "1.5"),
        ("seed", ""),
        ("steps", "-1"),
        ("train_seconds", "5 s"),
        ("label_smoothing.target", "high"),
    ],
)
def test_a_bad_number_is_named_with_line_column_and_value(folder, column, value):
    change(folder, column, 4, value)
    message = refusal(folder)
    assert "runs.csv, line 6" in message
    assert column in message
    assert value in message
    assert "allowed is" in message


@pytest.mark.parametrize("value", ["nan", "inf", "x"])
def test_a_bad_value_in_a_curve_is_named(folder, value):
    change(folder, "value", 7, value, "curves.csv")
    assert "curves.csv, line 9, column value" in refusal(folder)


def test_nan_in_json_is_refused(folder):
    edit(folder / "environment.json", "640.0", "NaN")
    assert "NaN" in refusal(folder)


def test_a_run_that_is_there_twice_is_refused(folder):
    change(folder, "run", 1, field(folder, "run", 0))
    assert "is there twice" in refusal(folder)


def test_a_seed_that_is_there_twice_in_an_arm_is_refused(folder):
    change(folder, "seed", 1, "0")
    assert "has seed 0 twice" in refusal(folder)


def test_an_arm_that_the_grid_does_not_have_is_refused(folder):
    change(folder, "arm", 0, "basline")
    assert 'did you mean "baseline"' in refusal(folder)


def test_a_curve_of_an_unknown_run_is_refused(folder):
    change(folder, "run", 3, "feedfeedfeedfeed", "curves.csv")
    assert 'curves.csv, line 5: run "feedfeedfeedfeed"' in refusal(folder)


def test_an_ok_run_without_its_score_is_refused(folder):
    change(folder, "fd", 0, "")
    assert "fd is empty" in refusal(folder)


def test_scores_of_two_protocols_are_refused_with_the_key_that_differs(folder):
    environment = json.loads((folder / "environment.json").read_text())
    environment["protocols"]["ddddeeeeffff"] = {**environment["protocols"]["aaaabbbbcccc"], "samples": 500}
    (folder / "environment.json").write_text(json.dumps(environment))
    results.load(folder)  # a protocol that no row uses does no harm
    change(folder, "protocol", 0, "ddddeeeeffff")
    message = refusal(folder)
    assert "samples (2000 against 500)" in message
    assert "weights" not in message


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("extractor", "inception", "allowed is classifier"),
        ("extractor", "", "is empty, allowed is classifier"),
        ("samples", "100", "is 100, allowed is 2000"),
        ("protocol", "", "a score but no protocol"),
    ],
)
def test_a_row_that_was_scored_by_another_rule_than_its_protocols_is_refused(folder, column, value, allowed):
    change(folder, column, 3, value)
    message = refusal(folder)
    assert "runs.csv, line 5: " in message
    assert allowed in message


def test_an_unknown_protocol_or_environment_is_refused(folder):
    change(folder, "environment", 0, "env2")
    assert 'environment "env2"' in refusal(folder)


@pytest.mark.parametrize("role", ["baseline", "triick"])
def test_roles_must_make_sense(folder, role):
    environment = json.loads((folder / "environment.json").read_text())
    environment["arms"][1]["role"] = role
    (folder / "environment.json").write_text(json.dumps(environment))
    assert "environment.json" in refusal(folder)


@pytest.mark.parametrize("key", results.ENVIRONMENT)
def test_a_missing_key_of_the_environment_is_named(folder, key):
    environment = json.loads((folder / "environment.json").read_text())
    del environment[key]
    (folder / "environment.json").write_text(json.dumps(environment))
    assert f'"{key}"' in refusal(folder)


def test_an_arm_without_any_run_yet_is_no_error(folder):
    lines = (folder / "runs.csv").read_text().splitlines()
    (folder / "runs.csv").write_text("\n".join(x for x in lines if ",placebo," not in x) + "\n")
    (folder / "curves.csv").write_text("run,images,readout,metric,samples,value\n")
    assert len(results.load(folder).runs) == 9


def test_reading_results_imports_no_drawing_no_scipy_and_no_torch():
    heavy = ("torch", "scipy", "seaborn", "matplotlib", "tricks")
    code = f"import sys, bench.results; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_id_that_is_a_path_is_refused(folder):
    change(folder, "run", 0, "../../../secret")
    assert 'line 2: "../../../secret" is no run id' in refusal(folder)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("environment.json", lambda e: e.update(arms=[1, 2]), "arms[0]"),
        ("environment.json", lambda e: e["arms"][1].pop("tricks"), "arms[1]"),
        ("environment.json", lambda e: e["arms"][0].update(arm=["a"]), "arms[0]"),
        ("environment.json", lambda e: e.update(cap=[1]), '"cap"'),
        ("environment.json", lambda e: e["cap"].update(fd="x"), "cap.fd"),
        ("environment.json", lambda e: e.update(picked="x"), '"picked"'),
        ("environment.json", lambda e: e.update(picked={"slots": "x"}), "picked.slots"),
        ("environment.json", lambda e: e.update(picked={"devices": 0}), "picked.devices"),
        ("environment.json", lambda e: e.update(picked={"rates": 3}), '"rates"'),
        (
            "environment.json",
            lambda e: e.update(picked={"runs_per_array": {"a1": "5"}}),
            "picked.runs_per_array.a1",
        ),
        ("environment.json", lambda e: e["score"].update(limits=[["flatt", 1.0]]), '["flatt", 1.0], allowed'),
        ("environment.json", lambda e: e["score"].update(limits=[["flat", "x"]]), "score.limits"),
        ("environment.json", lambda e: e["score"].update(limits={"flat": 1}), "score.limits"),
        ("environment.json", lambda e: e["score"].update(points=[0.5, "x"]), 'score.points is [0.5, "x"]'),
        ("environment.json", lambda e: e["score"].update(points=0.5), "score.points is 0.5"),
        ("environment.json", lambda e: e["score"].update(readouts=None), "score.readouts is null"),
        ("environment.json", lambda e: e["score"].update(readouts=[["ema", 1]]), 'score.readouts is [["ema"'),
        ("environment.json", lambda e: e.update(design_detail="full"), '"design_detail"'),
        ("environment.json", lambda e: e.update(design_detail=[1]), '"design_detail"'),
        ("tricks.json", lambda e: e.update(placebo=[1]), '"placebo"'),
        (
            "tricks.json",
            lambda e: e["placebo"]["claims"][0].update(direction="lower"),
            'the direction "lower"',
        ),
        (
            "tricks.json",
            lambda e: e["placebo"]["fields"][0].update(span="x"),
            '"span" of a field of "placebo"',
        ),
        (
            "tricks.json",
            lambda e: e["placebo"]["claims"][0].update(direction=2),
            "the direction 2, allowed are -1",
        ),
    ],
)
def test_bench_run_goes_on_from_no_description_that_was_spoilt(file, change, words, tmp_path):
    there = Path(__file__).parent.parent / "results" / "quick"
    for name in ("environment.json", "tricks.json"):
        (tmp_path / name).write_bytes((there / name).read_bytes())
    spoilt = json.loads((tmp_path / file).read_text())
    change(spoilt)
    (tmp_path / file).write_text(json.dumps(spoilt))
    with pytest.raises(Refused, match=re.escape(words)):
        _ = _same_grid(Store(tmp_path), load_grid("quick")), read_cards(tmp_path / "tricks.json")
