"""Nothing is lost: real signals to real processes, real full and read-only disks, at moments nobody chose.

The oracle is always the same: after resuming, the tables equal those of an undisturbed run in every column that does
not measure time or memory.
"""

import contextlib
import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

GRID = """
name: faulty
data: digits
recipe: {channels: 4, batch_size: 16}
tricks: {label_smoothing: [0.9, 0.8], label_noise: {real: [0.05, 0.1]}}
controls: {placebo: }
seeds: 3
budget: {steps: 40}
score: {samples: 64, points: 2}
"""
# The environment names the commit, and whether it was changed: who commits beside a test must not fail it.
VARYING = ("train_seconds", "score_seconds", "peak_memory_mb", "environment")
RUNS = 18
SPEAKS = 240.0  # seconds until a process must have done what is waited for, on a machine busy with other work


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def start(folder: Path, cache: Path, *more: str) -> subprocess.Popen:
    (folder / "faulty.yaml").write_text(GRID)
    words = [
        "run",
        "faulty.yaml",
        "--device",
        "cpu",
        "--slots",
        "2",
        "--threads",
        "1",
        "--runs-per-array",
        "2",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *words, *more],
        cwd=folder,
        env=os.environ | {"BENCH_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, cache: Path, *more: str) -> str:
    process = start(folder, cache, *more)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def tables(folder: Path) -> tuple:
    found = folder / "results" / "faulty"
    with (found / "runs.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in VARYING} for row in csv.DictReader(file)]
    return rows, (found / "curves.csv").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache) -> tuple:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder, cache)
    found = tables(folder)
    assert len(found[0]) == RUNS
    return found


def wait_for(true, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SPEAKS
    while not true() and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(process.communicate()[1])
        time.sleep(0.02)


def has_a_run(folder: Path):
    journal = folder / "results" / "faulty" / "journal.jsonl"
    return lambda: journal.exists() and journal.stat().st_size > 0


def children(process: subprocess.Popen) -> list[int]:
    """Processes that train for `process`: those of its fork server."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,sid"], capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()[1:]]
    mine = {pid for pid, _, session in rows if session == process.pid and pid != process.pid}
    return [pid for pid, parent, _ in rows if parent in mine]


def test_interrupted_once_it_ends_what_is_in_training_and_goes_on_later(cache, undisturbed, tmp_path):
    process = start(tmp_path, cache)
    wait_for(has_a_run(tmp_path), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SPEAKS)
    assert process.returncode == 130
    assert "stopping after the arrays in training" in said
    assert "Traceback" not in said
    there = int(re.search(r"stopped: (\d+) of 18 runs are there", said)[1])
    assert 0 < there == len(tables(tmp_path)[0]) < RUNS
    finish(tmp_path, cache)
    assert tables(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("signals", "code"), [([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 143)]
)
def test_interrupted_twice_or_terminated_it_stops_at_once_and_goes_on_later(
    signals, code, cache, undisturbed, tmp_path
):
    process = start(tmp_path, cache)
    wait_for(has_a_run(tmp_path), process)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    _, said = process.communicate(timeout=SPEAKS)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert not children(process)
    finish(tmp_path, cache)
    assert tables(tmp_path) == undisturbed


def says(process: subprocess.Popen, words: str) -> str:
    """Read what a process says until it says `words`; return it."""
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


@pytest.mark.parametrize("pause", [0.3, 1.5])
def test_a_ctrl_c_while_the_server_of_children_loads_stops_tidily(pause, cache, undisturbed, tmp_path):
    """A terminal sends the signal to every process of the group."""
    process = start(tmp_path, cache)
    said = says(process, "to make")
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)
    said += process.communicate(timeout=SPEAKS)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "Aborted" not in said
    assert not children(process)
    finish(tmp_path, cache)
    assert tables(tmp_path) == undisturbed


def servers(parent: psutil.Process) -> list[psutil.Process]:
    """The server of children that `parent` has started, once it is one; `ps` may cut what tells it."""
    found = []
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            if "forkserver" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_server_of_children_that_is_killed_while_it_loads_is_started_again(cache, undisturbed, tmp_path):
    process = start(tmp_path, cache)
    said = says(process, "to make")
    parent = psutil.Process(process.pid)
    wait_for(lambda: servers(parent), process)
    servers(parent)[0].kill()
    said += process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert "no child process could be started" not in said
    assert tables(tmp_path) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_killed_in_training_is_tried_again_and_nobody_notices(number, cache, undisturbed, tmp_path):
    process = start(tmp_path, cache)
    wait_for(has_a_run(tmp_path), process)
    older = set(children(process))  # these may be about to end by themselves
    wait_for(lambda: set(children(process)) - older, process)
    for child in set(children(process)) - older:
        os.kill(child, number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"{number.name}; trying again" in said
    assert "as two arrays" not in said  # nobody was killed for memory
    assert tables(tmp_path) == undisturbed


def test_a_second_process_on_the_same_folder_refuses_and_the_first_goes_on(cache, undisturbed, tmp_path):
    first = start(tmp_path, cache)
    wait_for(has_a_run(tmp_path), first)
    second = start(tmp_path, cache)
    _, said = second.communicate(timeout=SPEAKS)
    assert second.returncode == 2, said
    assert "another `bench run` is writing here" in said
    _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert tables(tmp_path) == undisturbed


@pytest.fixture
def little_memory(tmp_path):
    """A control group whose processes may hold 1.75 GB together; skips where none can be made."""
    group = Path("/sys/fs/cgroup/memory") / f"bench-test-{os.getpid()}"
    limit = "memory.limit_in_bytes"
    if not group.parent.is_dir():
        group, limit = Path("/sys/fs/cgroup") / group.name, "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text("1750000000")
    except OSError as error:
        pytest.skip(f"cannot limit memory by a control group: {error}")
    yield group
    deadline = time.monotonic() + 30
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)  # the fork server ends a moment after its parent
    group.rmdir()


@pytest.mark.slow
def test_a_child_that_the_kernel_kills_for_memory_is_tried_again_in_halves(little_memory, cache, tmp_path):
    """Eight runs of 128 channels want 1.5 GB beside the parent's; four mostly fit, two always."""
    (tmp_path / "large.yaml").write_text(
        "name: large\ndata: digits\nrecipe: {channels: 128, batch_size: 256}\ntricks: {label_smoothing: }\nseeds: 4\n"
        "budget: {steps: 2}\nscore: {points: 1, samples: 64}\n"
    )
    words = [
        "run",
        "large.yaml",
        "--device",
        "cpu",
        "--slots",
        "1",
        "--threads",
        "1",
        "--runs-per-array",
        "8",
    ]
    inside = f"echo $$ > {little_memory}/cgroup.procs; exec {sys.executable} -m bench.cli {' '.join(words)}"
    done = subprocess.run(
        ["sh", "-c", inside],
        cwd=tmp_path,
        env=os.environ | {"BENCH_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    counted = {"oom_kill": "0"}
    for name in ("memory.oom_control", "memory.events"):
        if (little_memory / name).exists():
            counted |= dict(line.split() for line in (little_memory / name).read_text().splitlines())
    assert int(counted["oom_kill"]) >= 1, done.stderr
    assert "SIGKILL" in done.stderr
    assert "trying again as two arrays" in done.stderr
    with (tmp_path / "results" / "large" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert not {row["status"] for row in rows} & {"failed", "timeout"}, done.stderr
    assert {row["runs_per_array"] for row in rows} <= {
        "4",
        "2",
        "1",
    }  # what else lies in memory is the kernel's affair


@pytest.mark.slow
def test_two_hundred_random_signals_lose_nothing(cache, undisturbed, tmp_path):
    """SIGKILL, SIGTERM or SIGINT to the parent, a child, or both, at random moments, grid after grid."""
    chance, sent, wholes = random.Random(0), Counter(), 0
    while sent.total() < 200:
        folder = tmp_path / str(sent.total())
        folder.mkdir()
        while True:
            process = start(folder, cache)
            number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            whom = chance.choice(["parent", "child", "both"])
            if whom != "parent":  # most of a short grid is its start, when there is no child
                wait_for(lambda process=process: children(process), process)
                time.sleep(chance.uniform(0, 1.5))
            else:
                time.sleep(chance.uniform(0.1, 9.0))
            if process.poll() is None:
                targets = [(process.pid, "parent")] if whom != "child" else []
                if whom != "parent" and (there := children(process)):
                    targets.append((chance.choice(there), "child"))
                for pid, who in targets:
                    try:
                        os.kill(pid, number)
                        sent[who, number.name] += 1
                    except ProcessLookupError:
                        continue
            _, said = process.communicate(timeout=300)
            assert process.returncode in (0, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), said
            if process.returncode == 0:
                break
        assert tables(folder) == undisturbed, folder
        shutil.rmtree(folder)
        wholes += 1
        print(wholes, "grids as if undisturbed;", dict(sent), flush=True)
    assert (
        min(sent[who, name] for who in ("parent", "child") for name in ("SIGKILL", "SIGTERM", "SIGINT")) >= 10
    )


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB; skips where nobody may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small file system: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_line_and_the_rest_is_made_when_there_is_room(
    small_disk, cache, undisturbed, tmp_path
):
    results = small_disk / "results"
    filler = small_disk / "filler"
    process = start(tmp_path, cache, "--results", str(results))
    wait_for(lambda: (results / "faulty" / "journal.jsonl").exists(), process)
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "No space left" in said
    assert "Traceback" not in said
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    finish(tmp_path, cache, "--results", str(results))
    shutil.copytree(results, tmp_path / "results")
    assert tables(tmp_path) == undisturbed


@pytest.fixture
def failing_disk(tmp_path):
    """A real ext4 file system of 16 MB in a file, as (folder, image); skips where nobody may mount one."""
    disk, image = tmp_path / "disk", tmp_path / "disk.img"
    disk.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 2**24)
    for words in (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(disk)]):
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError as error:
            pytest.skip(f"cannot make a file system: {error}")
        if done.returncode:
            pytest.skip(f"cannot make a file system: {done.stderr.strip()}")
    yield disk, image
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_fails_and_becomes_read_only_is_one_line_and_nothing_is_lost(
    failing_disk, cache, undisturbed, tmp_path
):
    disk, image = failing_disk
    results = disk / "results"
    process = start(tmp_path, cache, "--results", str(results))
    journal = results / "faulty" / "journal.jsonl"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, process)
    # What ext4 does by itself after an error: nothing is written any more, whatever is open.
    subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "Read-only" in said
    assert "Traceback" not in said
    subprocess.run(["umount", str(disk)], check=True)
    subprocess.run(["e2fsck", "-p", "-f", str(image)], capture_output=True)  # 1: errors were mended
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    there = journal.read_text().count("\n")
    assert there  # what was recorded before the disk failed
    finish(tmp_path, cache, "--results", str(results))
    shutil.copytree(results, tmp_path / "results")
    assert tables(tmp_path) == undisturbed
