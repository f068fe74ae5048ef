"""Arrays that break while the real worker trains them, each for a real reason; what is left of the grid goes on."""

import csv
import os
import resource
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import grid as grids
from bench.run import Options, run, with_room
from bench.slots import Slots
from bench.store import Store
from bench.worker import failure, serve

REPOSITORY = Path(__file__).parent.parent
GRID = """
name: own
data: digits
recipe: {channels: 4, batch_size: 16}
tricks: {brittle: {kind: [%s]}}
seeds: 2
budget: {steps: 12}
score: {samples: 64, points: 2}
"""
FAILED = {"failed", "timeout"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder in which `tricks/` has one trick more, as a user would add it."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(REPOSITORY / "tricks", folder / "tricks")
    shutil.copy(Path(__file__).with_name("brittle.py"), folder / "tricks")
    return folder


def bench(kinds: str, own: Path, folder: Path, cache: Path, *more: str, **env: str) -> tuple[int, str]:
    """Run the grid with six runs an array; return exit code and what was said."""
    (folder / "own.yaml").write_text(GRID % kinds)
    words = ["run", "own.yaml", "--device", "cpu", "--threads", "1", "--runs-per-array", "6", *more]
    path = {"BENCH_CACHE": str(cache), "PYTHONPATH": f"{own}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *words],
        cwd=folder,
        env=os.environ | path | env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


def lines(path: Path) -> dict[str, list[str]]:
    """The lines of a table by run, to the byte."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines(keepends=True):
        found.setdefault(line.split(",")[0], []).append(line)
    return found


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "runs.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_runs_that_raise_take_no_other_with_them_and_just_they_are_made_again(own, cache, tmp_path):
    folder = tmp_path / "results" / "own"
    code, said = bench("1, 3", own, tmp_path, cache, "--slots", "1")
    assert code == 1, said
    first = rows(folder)
    bad = {run for run, row in first.items() if row["arm"] == "brittle.kind=1"}
    assert (len(first), len(bad)) == (6, 2)
    assert {run for run, row in first.items() if row["status"] in FAILED} == bad
    assert "trying again as two arrays" in said
    assert "2 of 6 runs failed by the machine's fault; --retry-failed makes just these again" in said
    assert said.count("Traceback") == 1  # all of them have the same
    for name in bad:
        assert first[name]["reason"] == "FileNotFoundError: [Errno 2] No such file or directory: 'wanted.txt'"
        trace = (folder / "failures" / f"{name}.txt").read_text()
        assert trace.startswith("Traceback")
        assert "tricks/brittle.py" in trace
        assert all(float(row["fd"]) > 0 for other, row in first.items() if other not in bad)

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert bench("1, 3", own, tmp_path, cache, "--slots", "1")[0] == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    (tmp_path / "wanted.txt").write_text("here")
    told = {name: lines(folder / name) for name in ("runs.csv", "curves.csv")}
    pictures = {path: path.stat().st_mtime_ns for path in (folder / "samples").rglob("*.png")}
    pictures = {path: time for path, time in pictures.items() if path.name != "real.png"}
    entries = len(Store(folder).entries())
    code, said = bench("1, 3", own, tmp_path, cache, "--slots", "1", "--retry-failed")
    assert code == 0, said
    assert "4 there, 2 to make" in said
    now = rows(folder)
    assert now.keys() == first.keys()
    assert not {row["status"] for row in now.values()} & FAILED
    assert all(now[run]["steps"] == "12" and float(now[run]["fd"]) > 0 for run in bad)
    for name, there in told.items():
        again = lines(folder / name)
        assert [run for run in again if again[run] != there.get(run)] == [
            run for run in again if run in bad
        ], name
    assert pictures
    assert all(path.stat().st_mtime_ns == time for path, time in pictures.items())
    made = [row["run"] for entry in Store(folder).entries()[entries:] for row in entry.get("rows", ())]
    assert sorted(made) == sorted(bad)
    assert not list((folder / "failures").iterdir())


def scant(pipe, job):
    """Be the worker with 380 MB of memory more than it starts with."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 380 * 2**20,) * 2)
    serve(pipe, job)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
def test_an_array_that_does_not_fit_is_halved_until_it_does(cache, tmp_path, monkeypatch):
    """Eight runs want 480 MB, four 320, two 190 (bench.worker on one machine): the allocations really fail."""
    monkeypatch.setattr("bench.slots.Slots", partial(Slots, target=scant))
    text = (
        "name: large\ndata: digits\nrecipe: {channels: 64, batch_size: 128}\ntricks: {label_smoothing: }\nseeds: 4\n"
        "budget: {steps: 2}\nscore: {points: 1, samples: 64}\n"
    )
    more = {"device": "cpu", "slots": 1, "threads": 1, "runs_per_array": 8}
    said: list[str] = []
    options = Options(results=tmp_path / "results", cache=cache, **more)
    assert run(grids.read(text, "large.yaml"), options, said.append) == 0, said
    made = rows(tmp_path / "results" / "large")
    assert len(made) == 8
    assert not {row["status"] for row in made.values()} & FAILED
    assert {row["runs_per_array"] for row in made.values()} <= {"4", "2"}
    why = next(
        line for line in said if "seeds 0-3" in line and "trying again" in line
    )  # a half may be halved again
    assert "memory" in why
    assert why.endswith("trying again as two arrays")  # at once: the whole would fit no better the next time


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (MemoryError(), "memory", "MemoryError: "),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            "memory",
            "OutOfMemoryError: CUDA out of memory.",
        ),
        (
            RuntimeError("std::bad_alloc"),
            "memory",
            "RuntimeError: std::bad_alloc, probably for want of memory",
        ),
        (
            RuntimeError("could not create a primitive"),
            "memory",
            "RuntimeError: could not create a primitive, probably for want of memory",
        ),
        (ValueError("a size is wrong"), "error", "ValueError: a size is wrong"),
    ],
)
def test_a_want_of_memory_is_told_whoever_says_it(error, kind, line):
    assert failure(error) == (kind, line)


@pytest.fixture
def small_disk(tmp_path_factory):
    """A real file system of 3 MB at a short path, which sockets need; skips where nobody may mount one."""
    disk = tmp_path_factory.mktemp("disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small file system: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("slots", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_child_that_fills_the_disk_is_rows_and_the_grid_goes_on(slots, small_disk, own, cache, tmp_path):
    """Results and temporary files share a disk that holds all results, but not what one arm's runs write beside."""
    temporary, results = small_disk / "t", small_disk / "results"
    temporary.mkdir()
    more = ("--slots", slots, "--results", str(results), "--runs-per-array", "3")
    code, said = bench("2, 3", own, tmp_path, cache, *more, TMPDIR=str(temporary))
    assert code == 1, said
    first = rows(results / "own")
    bad = {run for run, row in first.items() if row["arm"] == "brittle.kind=2"}
    assert (len(first), len(bad)) == (6, 2)
    assert {run for run, row in first.items() if row["status"] in FAILED} == bad
    for name in bad:
        assert first[name]["reason"] == "OSError: [Errno 28] No space left on device"
        assert "No space left" in (results / "own" / "failures" / f"{name}.txt").read_text()
    assert "2 of 6 runs failed by the machine's fault" in said
    assert not list(temporary.iterdir())
    told = {name: lines(results / "own" / name) for name in ("runs.csv", "curves.csv")}

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    code, said = bench("2, 3", own, tmp_path, cache, *more, "--retry-failed", TMPDIR=str(temporary))
    assert code == 0, said
    assert not {row["status"] for row in rows(results / "own").values()} & FAILED
    for name, there in told.items():
        again = lines(results / "own" / name)
        assert [run for run in again if again[run] != there.get(run)] == [
            run for run in again if run in bad
        ], name
    assert not list(temporary.iterdir())


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


def test_what_a_full_disk_cuts_short_is_no_line_of_the_journal_and_room_is_waited_for(small_disk):
    row = {"run": "a", "arm": "baseline", "seed": 0, "status": "ok"}
    curves = [("a", step, "raw-eval", "fd", 64, step / 3) for step in range(2000)]  # more than a block
    said: list[str] = []
    with Store(small_disk / "small") as store:
        store.commit([row], curves)
        before = store.journal.read_bytes()
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        with pytest.raises(OSError, match=r"No space left.*journal.jsonl"):
            store.commit([row | {"run": "b"}], curves)
        assert store.journal.read_bytes() == before
        soon = threading.Timer(0.5, filler.unlink)
        soon.start()
        with_room(lambda: store.commit([row | {"run": "b"}], curves), said.append)
        soon.join()
    assert ["No space left" in line and "waiting" in line for line in said] == [True]
    with Store(small_disk / "small") as store:
        assert list(store.rows) == ["a", "b"]
    assert store.journal.read_bytes().startswith(before)
