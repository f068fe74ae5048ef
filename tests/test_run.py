"""From a grid to its results: whole, twice, interrupted, crashed, and beside what is in the way."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from bench import grid as grids
from bench import plan
from bench.checks import Check
from bench.cli import main
from bench.data import load as data
from bench.errors import Refused
from bench.progress import duration
from bench.run import Options, keep_images, run
from bench.slots import Slots, share
from bench.store import Store
from bench.trick import registry
from bench.worker import Job

GRID = """
name: small
data: digits
recipe: {channels: 4, batch_size: 16}
tricks: {label_smoothing: 0.9, pooling: {kind: max}}
controls: {placebo: }
seeds: 2
budget: {steps: 12}
score: {samples: 64, points: 2}
"""
VARYING = ("train_seconds", "score_seconds", "peak_memory_mb")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def options(folder: Path, cache: Path, **more) -> Options:
    return Options(results=folder / "results", cache=cache, device="cpu", slots=2, **more)


def tables(folder: Path) -> tuple:
    """runs.csv without its time and memory columns, and curves.csv."""
    with (folder / "runs.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in VARYING} for row in csv.DictReader(file)]
    return rows, (folder / "curves.csv").read_text()


@pytest.fixture(scope="session")
def whole(tmp_path_factory, cache) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert run(grids.read(GRID, "small.yaml"), options(folder, cache), lambda line: None) == 0
    return folder / "results" / "small"


def test_every_planned_run_is_a_row_with_scores(whole):
    rows, _ = tables(whole)
    planned = plan.runs(grids.read(GRID, "small.yaml"))
    assert {row["run"] for row in rows} == {r.id for r in planned}
    assert [(row["arm"], row["seed"]) for row in rows] == sorted((r.arm, str(r.seed)) for r in planned)
    assert all(float(row["fd"]) > 0 and row["fid"] == "" and row["steps"] == "12" for row in rows)
    for row in rows:
        assert (whole / "samples" / f"{row['run']}.png").stat().st_size > 100
    described = json.loads((whole / "environment.json").read_text())
    assert described["cap"]["fd"] > 0
    assert set(described["protocols"]) == {row["protocol"] for row in rows}
    assert set(described["environments"]) == {row["environment"] for row in rows}
    readouts = {name for name, cls in registry().items() if cls.readout}
    used = {"label_smoothing", "pooling", "placebo"} | readouts
    assert set(json.loads((whole / "tricks.json").read_text())) == used


def test_running_twice_is_running_once(whole, cache):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    said = []
    assert run(grids.read(GRID, "small.yaml"), options(whole.parent.parent, cache), said.append) == 0
    assert "nothing to do" in said[-1]
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_what_a_clone_has_is_done_and_a_lost_row_is_made_again_as_it_was(whole, cache, tmp_path):
    clone = tmp_path / "results" / "small"
    clone.mkdir(parents=True)
    for name in ("grid.yaml", "environment.json", "tricks.json", "curves.csv"):
        (clone / name).write_bytes((whole / name).read_bytes())
    lines = (whole / "runs.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if ",placebo," not in line]
    (clone / "runs.csv").write_text("".join(kept))
    curves = (whole / "curves.csv").read_text().splitlines(keepends=True)
    gone = {line.split(",")[0] for line in lines} - {line.split(",")[0] for line in kept}
    (clone / "curves.csv").write_text("".join(c for c in curves if c.split(",")[0] not in gone))
    assert run(grids.read(GRID, "small.yaml"), options(tmp_path, cache), lambda line: None) == 0
    assert tables(clone) == tables(whole)


def small(tmp_path: Path, whole: Path, *without: str) -> Path:
    """A copy of the whole results, less some files."""
    folder = tmp_path / "results" / "small"
    shutil.copytree(whole, folder)
    for name in without:
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize(
    "gone",
    [("runs.csv", "curves.csv"), ("curves.csv",), ("runs.csv",), ("tricks.json",), ("environment.json",)],
)
def test_a_lost_file_is_made_again_from_the_journal(gone, whole, cache, tmp_path):
    folder = small(tmp_path, whole, *gone)
    assert run(grids.read(GRID, "small.yaml"), options(tmp_path, cache), lambda line: None) == 0
    assert tables(folder) == tables(whole)
    assert (
        json.loads((folder / "environment.json").read_text())["cap"]
        == json.loads((whole / "environment.json").read_text())["cap"]
    )


def test_a_row_that_was_deleted_is_made_again(whole, cache, tmp_path):
    folder = small(tmp_path, whole)
    lines = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(lines[:3] + lines[4:]))
    said = []
    assert run(grids.read(GRID, "small.yaml"), options(tmp_path, cache), said.append) == 0
    assert any("7 there, 1 to make" in line for line in said)
    now, before = tables(folder)[0], tables(whole)[0]
    assert [row["run"] for row in now] == [row["run"] for row in before]
    # Made alone, not in its array, it differs by round-off, which training amplifies; the others are untouched.
    assert now[:2] + now[3:] == before[:2] + before[3:]


def test_a_table_that_is_newer_than_the_journal_stays(whole, cache, tmp_path):
    folder = small(tmp_path, whole)
    text = (folder / "runs.csv").read_text()
    number = text.splitlines()[1].split(",")[text.splitlines()[0].split(",").index("fd")]
    (folder / "runs.csv").write_text(text.replace(number, "31.25", 1))
    assert run(grids.read(GRID, "small.yaml"), options(tmp_path, cache), lambda line: None) == 0
    assert "31.25" in (folder / "runs.csv").read_text()


def test_another_reference_arm_is_another_grid(whole, cache, tmp_path):
    small(tmp_path, whole)
    grid = grids.read(GRID + "design: leave-one-out\n", "small.yaml")
    with pytest.raises(Refused, match=r"compared with baseline, .* with all"):
        run(grid, options(tmp_path, cache), lambda line: None)


def test_another_protocol_does_not_extend_a_folder(whole, cache, tmp_path):
    from safetensors.torch import load_file, save_file

    from bench.extractors import SHIPPED

    small(tmp_path, whole)
    weights = {key: value + 0.001 for key, value in load_file(SHIPPED / "digits-16.safetensors").items()}
    save_file(weights, tmp_path / "other.safetensors")
    more = grids.read(GRID.replace("seeds: 2", "seeds: 3"), "small.yaml")
    with pytest.raises(Refused, match=r"another protocol \(other: weights\)"):
        run(more, options(tmp_path, cache, weights=tmp_path / "other.safetensors"), lambda line: None)


def test_one_value_that_becomes_several_keeps_its_rows_under_the_new_name(whole, cache, tmp_path):
    folder = small(tmp_path, whole)
    more = grids.read(GRID.replace("label_smoothing: 0.9", "label_smoothing: [0.9, 0.8]"), "small.yaml")
    assert run(more, options(tmp_path, cache), lambda line: None) == 0
    arms = [arm["arm"] for arm in json.loads((folder / "environment.json").read_text())["arms"]]
    assert sorted(arms) == sorted({row["arm"] for row in tables(folder)[0]})
    assert "label_smoothing" not in arms


def command(folder: Path, cache: Path) -> subprocess.Popen:
    (folder / "small.yaml").write_text(GRID)
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", "run", "small.yaml", "--device", "cpu", "--slots", "2"],
        cwd=folder,
        env=os.environ | {"BENCH_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_run_again_gives_the_same_tables(kills, whole, cache, tmp_path):
    folder = tmp_path / "results" / "small"
    for kill in range(kills):
        process = command(tmp_path, cache)
        deadline = time.monotonic() + 60
        while (folder / "journal.jsonl").exists() is False and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.37 * kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len((folder / "journal.jsonl").read_bytes()) > 0
    process = command(tmp_path, cache)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert tables(folder) == tables(whole)


def test_a_journal_line_that_a_crash_cut_short_is_no_result(whole, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    journal = (whole / "journal.jsonl").read_bytes()
    first = journal.index(b"\n") + 1
    (folder / "journal.jsonl").write_bytes(journal[: first + 200])
    with Store(folder) as store:
        some = len(store.rows)
    assert 0 < some < 8
    assert (folder / "journal.jsonl").read_bytes() == journal[:first]
    (folder / "journal.jsonl").write_bytes(journal[:50] + b"?" + journal[51:])
    with pytest.raises(Refused, match=r"journal.jsonl:1: a damaged line"), Store(folder):
        pass


def killed(pipe, job):
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(pipe, job):
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(pipe, job):
    time.sleep(60)


def leaves(pipe, job):
    os._exit(3)


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        (killed, "failed", "killed by SIGKILL"),
        (segfault, "failed", "killed by SIGSEGV"),
        (leaves, "failed", "exit status 3"),
        (hangs, "timeout", "no result after 1 s"),
    ],
)
def test_a_child_that_dies_is_rows_with_a_reason(target, status, reason):
    runs = plan.runs(grids.read(GRID, "small.yaml"))[:2]
    said = []
    slots = Slots(
        share(["cpu"], 1, 1), 1.0 if target is hangs else 60.0, lambda news: None, said.append, target
    )
    job = Job(tuple(runs), None, Path("none"), Path("none"), None, None, "cpu", 1)
    results = slots.results([plan.Array(tuple(runs))], lambda array, slot: replace(job, runs=array.runs))
    [(_, result)] = list(results)
    assert [(row["run"], row["status"]) for row in result.rows] == [(r.id, status) for r in runs]
    assert all(reason in row["reason"] for row in result.rows)
    assert sum("two arrays" in line for line in said) == 1  # each run may be the one at fault


def test_a_failed_run_is_kept_and_tried_again_when_asked(cache, tmp_path):
    grid = grids.read(GRID, "small.yaml")
    impossible = options(tmp_path, cache, time_limit=0.05)
    assert run(grid, impossible, lambda line: None) == 1
    rows, _ = tables(tmp_path / "results" / "small")
    assert {row["status"] for row in rows} == {"timeout"}
    assert run(grid, options(tmp_path, cache), lambda line: None) == 1  # they are there: nothing is made
    assert run(grid, options(tmp_path, cache, retry_failed=True), lambda line: None) == 0
    rows, _ = tables(tmp_path / "results" / "small")
    assert "timeout" not in {row["status"] for row in rows}


def test_generators_that_were_kept_give_the_pictures_that_were_scored(cache, tmp_path):
    from PIL import Image

    from bench.samples import write
    from bench.worker import TILES

    grid = grids.read(GRID.replace("label_smoothing: 0.9, ", ""), "small.yaml")
    assert run(grid, options(tmp_path, cache, keep=tmp_path / "kept"), lambda line: None) == 0
    results = tmp_path / "results" / "small"
    assert write(results, "pooling:1", 40, tmp_path / "out", tmp_path / "kept") == 40
    chosen = next(r for r in plan.runs(grid) if r.arm == "pooling" and r.seed == 1)
    sheet = Image.open(results / "samples" / f"{chosen.id}.png")
    tile = sheet.crop((16, 0, 32, 16))  # the second picture of the first row
    assert TILES == (4, 8)
    assert Image.open(tmp_path / "out" / "00001.png").tobytes() == tile.tobytes()
    with pytest.raises(Refused, match='did you mean "pooling:1"'):
        write(results, "poling:1", 1, tmp_path / "out", tmp_path / "kept")


def refused(arguments: list[str], folder: Path, answer: str = "") -> str:
    """The one line that the command says before it ends with 2."""
    with contextlib.chdir(folder):
        outcome = CliRunner().invoke(main, arguments, input=answer)
    assert outcome.exit_code == 2, outcome.output
    lines = outcome.output.splitlines()
    assert [line.startswith("bench: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "Traceback" not in outcome.output
    return lines[-1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("label_smoothing", "label_smothing", r'yaml:5: label_smothing: no such trick .did you mean "label_smoothing"'),
        ("0.9", "1.9", r"small.yaml:5: label_smoothing.target: 1.9 is out of range; allowed: 0.5 to 1.0"),
        ("0.9", "{aim: 0.9}", r"label_smoothing.aim: no such setting"),
        ("0.9", "1.0", r"switches it off"),
        ("kind: max", "kind: maximum", r'.maximum. is not allowed; one of: average, max .did you mean "max"'),
        ("name: small", "name: ../small", r"small.yaml:2: name: '../small' cannot name a folder"),
        ("name: small\n", "", r"name is missing"),
        ("data: digits", "data: digit", r'small.yaml:3: data.*did you mean "digits"'),
        ("data: digits", "data: {set: digits, size: 20}", r"data.size: 20 is not allowed; one of: 16, 28, 32, 64"),
        ("data: digits", "data: {set: digits, classes: [eleven]}", r"'eleven' is no class of digits"),
        ("data: digits", "data: folder", r"needs a path"),
        ("seeds: 2", "seed: 2", r'small.yaml:7: seed: no such key .did you mean "seeds"'),
        ("seeds: 2", "seeds: 0", r"small.yaml:7: seeds: 0 is not a whole number from 1"),
        ("steps: 12", "steps: 12, epochs: 1", r"give one of: images, steps, epochs"),
        ("steps: 12", "step: 12", r'budget.step: no such key .did you mean "steps"'),
        ("samples: 64", "samples: 5", r"5 samples are too few"),
        ("points: 2", "extractor: inception", r'did you mean "inception-v3-compat"'),
        ("channels: 4", "chanels: 4", r'small.yaml:4: chanels: no such setting .did you mean "channels"'),
        ("channels: 4", "channels: 0", r"small.yaml:4: channels: 0 is out of range"),
        ("channels: 4", "batch_size: 16", r"small.yaml:4: recipe.batch_size: stands twice"),
        ("seeds: 2", "design: leave-two-out", r'did you mean "leave-one-out"'),
        ("seeds: 2", "seeds: 900", r"3,600 runs .4 arms x 900 seeds. are more than 1,000"),
        ("kind: max", "kind: [max, max]", r"stands twice"),
        ("pooling: {kind: max}", "batch_size: {size: 16}", r"baseline and batch_size compute the same thing"),
        ("pooling: {kind: max}", "batch_size: {size: 4000}", r"a batch of 4000 is more than the 1618 images"),
        ("pooling: {kind: max}", "placebo:", r"stands in tricks and in controls"),
        ("seeds: 2", "seeds: [", r"small.yaml:\d+: not YAML"),
        ("data: digits", "data: folder:nowhere", r"nowhere"),
        ("data: digits", "data: {set: digits, classes: []}", r"small.yaml:3: data.classes: an empty list"),
        ("channels: 4", "kernel: 4.0", r"small.yaml:4: recipe.kernel: 4.0 is not a whole number"),
        ("0.9", "1" + "0" * 400, r"small.yaml:5: tricks.label_smoothing: 1000"),
        ("name: small", "name: \x01", r"small.yaml: ?.*not YAML"),
        ("data: digits", "data: &a {set: *a}", r"small.yaml.*not YAML"),
        ("seeds: 2", "design: {arms: {a: [pooling, pooling]}}", r"pooling stands twice in this arm"),
        ("seeds: 2", "design: {arms: {a: [pooling]}}", r"no arm uses label_smoothing"),
        ("data: digits", "data: cifar10", r"small.yaml:3: .*cifar10.* is missing: looked in"),
    ],
)  # fmt: skip
def test_a_wrong_grid_is_one_line_and_exit_code_2(old, new, said, tmp_path, cache, monkeypatch):
    import re

    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    text = GRID.replace(old, new, 1)
    assert text != GRID
    (tmp_path / "small.yaml").write_text(text)
    line = refused(["run", str(tmp_path / "small.yaml"), "--device", "cpu"], tmp_path)
    assert re.search(said, line), line


def test_results_of_another_grid_are_refused_and_left_alone(whole, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    before = (whole / "runs.csv").read_bytes()
    for old, new, said in (
        ("steps: 12", "steps: 13", "budget is"),
        ("channels: 4", "channels: 5", "recipe is"),
        ("0.9", "0.8", "arm label_smoothing is"),
        ("samples: 64", "samples: 65", "score is"),
    ):
        (tmp_path / "small.yaml").write_text(GRID.replace(old, new, 1))
        line = refused(["run", str(tmp_path / "small.yaml"), "--results", str(whole.parent)], tmp_path)
        assert "holds another grid" in line
        assert said in line
    assert (whole / "runs.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("runs.csv", lambda data: data[: len(data) - 100], r"runs.csv:9"),
        ("environment.json", lambda data: data[:200], r"environment.json, line \d+: not valid JSON"),
        (
            "runs.csv",
            lambda data: data.replace(b",ok,", b",good,", 1).replace(b",no_learn,", b",good,", 1),
            r"status",
        ),
    ],
)
def test_a_broken_file_is_named_and_nothing_is_lost(name, harm, said, whole, cache, tmp_path, monkeypatch):
    import re

    monkeypatch.setenv("BENCH_CACHE", str(cache))
    shutil.copytree(whole, tmp_path / "results" / "small")
    path = tmp_path / "results" / "small" / name
    path.write_bytes(harm(path.read_bytes()))
    before = path.read_bytes()
    (tmp_path / "small.yaml").write_text(GRID)
    line = refused(
        ["run", str(tmp_path / "small.yaml"), "--results", str(tmp_path / "results"), "--device", "cpu"],
        tmp_path,
    )
    assert re.search(said, line), line
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda there: there | {"picked": 3}, '"picked" must be an object'),
        (lambda there: [there], "holds a list, allowed is an object"),
    ],
)
def test_a_plan_refuses_a_description_as_a_run_does(harm, said, whole, cache, tmp_path):
    path = small(tmp_path, whole) / "environment.json"
    path.write_text(json.dumps(harm(json.loads(path.read_text()))))
    (tmp_path / "small.yaml").write_text(GRID)
    for words in (["plan", "--quick"], ["run", "--cache", str(cache)]):
        assert said in refused([*words, "small.yaml", "--device", "cpu"], tmp_path)


def test_rows_of_older_code_stop_a_run_until_the_user_says_what_to_do(whole, cache, tmp_path):
    shutil.copytree(whole, tmp_path / "results" / "small")
    folder = tmp_path / "results" / "small"
    (folder / "journal.jsonl").unlink()
    text = (folder / "runs.csv").read_text().splitlines(keepends=True)
    text[1] = text[1].rsplit(",", 1)[0] + ",0123456789ab\n"
    (folder / "runs.csv").write_text("".join(text))
    grid = grids.read(GRID, "small.yaml")
    with pytest.raises(Refused, match=r"1 rows .*--stale keep .* --stale redo"):
        run(grid, options(tmp_path, cache), lambda line: None)
    assert run(grid, options(tmp_path, cache, stale="keep"), lambda line: None) == 0
    assert "0123456789ab" in (folder / "runs.csv").read_text()
    assert run(grid, options(tmp_path, cache, stale="redo"), lambda line: None) == 0
    assert "0123456789ab" not in (folder / "runs.csv").read_text()


def two_grids(seeds: int) -> str:
    one = GRID.replace("seeds: 2", f"seeds: {seeds}")
    return f"{one}---\n{one.replace('name: small', 'name: other')}"


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, bool]]:
    """The grids that a command runs, none of which trains, and whether more is to do after each."""
    begun = []

    def begin(grid, options, log, more=False):
        begun.append((grid.name, more))
        return 130 if grid.name.endswith("pilot") else 0

    monkeypatch.setattr("bench.run.run", begin)
    return begun


def test_runs_that_were_not_meant_are_not_made(ran, tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(two_grids(150))  # 600 runs each
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True), exit=sys.exit)
    monkeypatch.setattr("bench.cli.sys", terminal)
    assert "1,200 runs were not meant" in refused(["run", "small.yaml"], tmp_path, "n\n")
    assert not ran


def test_a_grid_knows_whether_more_is_to_do_after_it(ran, tmp_path):
    (tmp_path / "small.yaml").write_text(two_grids(2))
    with contextlib.chdir(tmp_path):
        assert CliRunner().invoke(main, ["run", "small.yaml"]).exit_code == 0
    assert ran == [("small", True), ("other", False)]


def test_a_pilot_that_is_stopped_by_hand_is_followed_by_no_plan(ran, tmp_path):
    (tmp_path / "small.yaml").write_text(GRID)
    with contextlib.chdir(tmp_path):
        told = CliRunner().invoke(main, ["plan", "small.yaml", "--pilot", "--device", "cpu"])
    assert (told.exit_code, told.stdout) == (130, "")
    assert ran == [("small-pilot", True)]


def test_rows_of_a_folder_that_does_not_hold_are_not_trained_again_and_others_are(tmp_path, monkeypatch):
    for name in ("broken", "sound"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "runs.csv").touch()
    level = {"broken": "failed", "sound": "ok"}
    monkeypatch.setattr("bench.verify.verify", lambda at, _: [Check("files", level[at.name], "")])
    monkeypatch.setattr("bench.verify.subject", lambda at: at)
    monkeypatch.setattr("bench.rerun.rerun", lambda at, *_: [Check(f"rerun {at.name}:0", "ok", "")])
    with contextlib.chdir(tmp_path):
        told = CliRunner().invoke(main, ["verify", "--rerun", "1", "--device", "cpu"])
    assert told.exit_code == 1
    assert [line.strip() for line in told.output.splitlines()] == [
        "results/broken:",
        "failed  files:",
        "note    rerun: not trained again: checks failed",
        "results/sound:",
        "ok      files:",
        "ok      rerun sound:0:",
    ]


def test_weights_that_do_not_suit_the_images_are_refused_in_one_line(cache, tmp_path):
    from safetensors.torch import load_file, save_file

    from bench.extractors import SHIPPED

    (tmp_path / "small.yaml").write_text(GRID)
    broken = load_file(SHIPPED / "digits-16.safetensors")
    broken["hidden.weight"] = broken["hidden.weight"][:, 1:].contiguous()
    save_file(broken, tmp_path / "broken.safetensors")
    colour = load_file(SHIPPED / "digits-16.safetensors")
    first = min(key for key in colour if key.endswith("weight"))
    colour[first] = colour[first].repeat(1, 3, 1, 1)
    save_file(colour, tmp_path / "colour.safetensors")
    words = ["run", "small.yaml", "--device", "cpu", "--cache", str(cache), "--weights"]
    for file in (
        SHIPPED / "fashion-mnist-28.safetensors",
        Path("broken.safetensors"),
        Path("colour.safetensors"),
    ):
        line = refused([*words, str(file)], tmp_path)
        assert (
            f"with the weights {file} the images of digits (16 x 16 pixels, grey) cannot be scored (" in line
        )


def test_a_classifier_goes_to_the_results_whole_or_not_at_all(cache, tmp_path, monkeypatch):
    from bench.extractors import SHIPPED

    trained = shutil.copy(SHIPPED / "digits-16.safetensors", tmp_path / "trained.safetensors")
    monkeypatch.setattr("bench.extractors.find_weights", lambda *_: Path(trained))

    def stopped(number):
        raise KeyboardInterrupt

    grid, there = grids.read(GRID, "small.yaml"), options(tmp_path, cache)
    monkeypatch.setattr(os, "fsync", stopped)  # by hand, before it is whole on the disk
    with pytest.raises(KeyboardInterrupt):
        run(grid, there, lambda line: None)
    assert not list((tmp_path / "results" / "small").glob("*classifier*"))


@pytest.mark.parametrize(
    "trick",
    ["placebo:", "training_length: 2.0", "training_length: 0.1", "d_steps: {k: 10}", "training_length: 0.3"],
)
def test_a_plan_times_steps_whatever_the_length_of_the_training(trick, tiny, tmp_path, monkeypatch):
    """By a clock that goes on by a second a step."""
    from bench import estimate, train

    steps = []

    def trained(program, runs, images, device, labels):
        total = program.steps(len(images))
        for stop in sorted({max(1, round(total * point)) for point in program.points}):
            steps[:] = [stop]
            yield SimpleNamespace(step=stop)

    monkeypatch.setattr(train, "train", trained)
    monkeypatch.setattr(time, "perf_counter", lambda: 1000.0 + steps[0])
    monkeypatch.setattr(estimate, "settle", lambda device, threads: None)
    grid = tiny(trick, seeds=1)
    file = keep_images(data(grid.data), tmp_path)
    job = Job((plan.runs(grid)[-1],), grid.score, file, tmp_path, None, None, "cpu", 1)
    assert estimate._timed(job)[0] == 1.0


def test_a_plan_counts_the_steps_that_d_takes_alone(tiny, tmp_path, monkeypatch):
    from bench import estimate

    monkeypatch.setattr(estimate, "_measured", lambda job: ("done", len(job.runs), 100.0))  # a second a run
    for trick, seconds, told in (
        ("pretraining: {steps: 30}", 2 * 20 + 2 * (20 + 30), True),
        ("d_steps: {k: 3}", 2 * 20 + 2 * 60, False),
    ):
        grid = tiny(trick, seeds=2)
        missing = plan.arrays(plan.runs(grid), lambda program: 2)
        lines = list(estimate._cost(grid, options(tmp_path, tmp_path), 1, "cpu", missing, 1))
        assert f"about {duration(seconds)} of training" in lines[0]
        assert ("D's steps before G's first" in lines[0]) == told


def test_a_second_run_on_one_folder_is_refused(whole, cache):
    with Store(whole), pytest.raises(Refused, match="another `bench run`"):
        run(grids.read(GRID, "small.yaml"), options(whole.parent.parent, cache), lambda line: None)


def test_cuda_where_there_is_none_is_refused(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    (tmp_path / "small.yaml").write_text(GRID)
    assert "no CUDA device" in refused(["run", str(tmp_path / "small.yaml"), "--device", "cuda"], tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "small.yaml").write_text(GRID)
    (tmp_path / "file").write_text("in the way")
    line = refused(
        ["run", str(tmp_path / "small.yaml"), "--results", str(tmp_path / "file" / "results")], tmp_path
    )
    assert "cannot be written" in line


@pytest.mark.parametrize("device", ["mps", "CUDA", "cuda:x", "cpu:0"])
def test_a_device_that_is_none_is_refused(device, tmp_path):
    (tmp_path / "small.yaml").write_text(GRID)
    assert "not a device" in refused(["run", str(tmp_path / "small.yaml"), "--device", device], tmp_path)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_shows_its_examples_line_by_line(name):
    said = CliRunner().invoke(main, [name, "--help"]).output
    assert f"\n  bench {name}" in said


@pytest.mark.parametrize("name", ["", *sorted(main.commands)])
def test_a_mistyped_command_line_is_refused_in_one_line(name):
    done = CliRunner().invoke(main, [*filter(None, [name]), "--no-such"], prog_name="bench")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert re.match("bench: No such option.*--no-such", done.output)
    assert f"`{' '.join(filter(None, ['bench', name]))} --help` shows" in done.output


HEAVY = ("torch", "torchvision", "torch_fidelity", "sklearn", "scipy", "matplotlib", "seaborn")


def imported(arguments: list[str], folder: Path, cache: Path) -> tuple[set[str], str]:
    """The heavy packages that a command imports in a process of its own, and what it says."""
    code = (
        "import atexit, sys; from bench.cli import main; "
        "atexit.register(lambda: print('imported:', *sys.modules)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"BENCH_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    modules = done.stdout.rpartition("imported:")[2].split()
    assert "bench.cli" in modules
    return {name for name in HEAVY if name in modules}, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", ["--help", "run --help", "report --help", "tricks"])
def test_what_only_tells_imports_nothing_heavy(arguments, cache, tmp_path):
    assert imported(arguments.split(), tmp_path, cache)[0] == set()


def test_a_grid_that_is_complete_imports_nothing_that_trains_or_scores(whole, cache, tmp_path):
    small(tmp_path, whole)
    (tmp_path / "small.yaml").write_text(GRID)
    for more in ([], ["--device", "cpu"]):
        heavy, said = imported(["run", "small.yaml", *more], tmp_path, cache)
        assert "nothing to do" in said
        assert heavy == set()
