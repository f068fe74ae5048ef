"""A grid on a real scheduler and real workers, in folders and caches of their own: what is lost, and who is refused.

The oracle is `bench run` on one machine: the tables are equal in every column that does not measure time, memory or the
environment.
"""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bench import grid as grids
from bench.cli import main
from bench.errors import Refused
from bench.run import Options, run

REPOSITORY = Path(__file__).parent.parent
GRID = """
name: far
data: digits
recipe: {channels: 4, batch_size: 16}
tricks: {label_smoothing: 0.9}
controls: {placebo: }
seeds: 2
budget: {steps: 12}
score: {samples: 64, points: 2}
"""
LONG = GRID.replace("steps: 12", "steps: 300").replace("seeds: 2", "seeds: 4")
VARYING = ("train_seconds", "score_seconds", "peak_memory_mb", "environment")
SPEAKS = 300.0  # seconds until a process must have done what is waited for, on a machine busy with other work


@dataclass
class Site:
    """A scheduler, and workers each in a folder of its own with a cache of its own; all die at the end."""

    folder: Path
    processes: list[subprocess.Popen] = field(default_factory=list)
    port: int = 0

    def start(self, folder: Path, *words: str, code: Path = REPOSITORY, **env: str) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        own = {
            "BENCH_CACHE": str(folder / "cache"),
            "BENCH_DATA": str(folder / "data"),
            "PYTHONPATH": str(code),
        }
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=folder,
                env=os.environ | own | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def scheduler(self, **env: str) -> subprocess.Popen:
        words = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard")
        nothing = {"code": self.folder}  # a scheduler needs neither this package nor torch
        process = self.start(self.folder / "scheduler", *words, "--port", str(self.port), **nothing, **env)
        log = self.folder / "scheduler" / "log"
        wait_for(lambda: re.search(r"Scheduler at: +tcp://127.0.0.1:\d+", log.read_text()), process)
        self.port = int(re.search(r"Scheduler at: +tcp://127.0.0.1:(\d+)", log.read_text())[1])
        return process

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def worker(self, name: str, *more: str, code: Path = REPOSITORY) -> subprocess.Popen:
        words = ("distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-dashboard", *more)
        process = self.start(self.folder / name, *words, code=code)
        process.log = self.folder / name / "log"
        wait_for(lambda: "Registered to" in process.log.read_text(), process)
        return process

    def close(self) -> None:
        for process in self.processes:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL a process and those it started, save the children that train: they must see it themselves."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(true: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until something is true, while a process lives if one is named."""
    deadline = time.monotonic() + SPEAKS
    while not true():
        assert process is None or process.poll() is None, "it ended before"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def where(worker: subprocess.Popen) -> str:
    """A worker's address."""
    return re.findall(r"Start worker at: +(tcp://\S+)", worker.log.read_text())[-1]


def trains(worker: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train for a worker: those of its fork server."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(worker.pid).children(recursive=True):
            if "forkserver" in " ".join(process.parent().cmdline()):
                found.append(process)
    return found


def lives(process: psutil.Process) -> bool:
    """Whether it can still do anything: an orphan that nobody has waited for yet cannot."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[Site]:
    """A scheduler with two workers; one has a nanny, as `dask worker` starts it."""
    made = Site(tmp_path_factory.mktemp("pair"))
    try:
        made.scheduler()
        made.worker("one", "--no-nanny")
        made.worker("two")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def options(folder: Path, cache: Path, **more) -> Options:
    """Options for a coordinator in this process."""
    return Options(results=folder / "results", cache=cache, device="cpu", threads=1, runs_per_array=2, **more)


def command(folder: Path, cache: Path, text: str, *more: str) -> subprocess.Popen:
    """A coordinator in a process of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "far.yaml").write_text(text)
    words = ["run", "far.yaml", "--device", "cpu", "--threads", "1", "--runs-per-array", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *words, *more],
        cwd=folder,
        env=os.environ | {"BENCH_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    _, said = process.communicate(timeout=2 * SPEAKS)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "Warning" not in said
    return said


def tables(folder: Path) -> tuple:
    found = folder / "results" / "far"
    with (found / "runs.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in VARYING} for row in csv.DictReader(file)]
    return rows, (found / "curves.csv").read_text()


def started(folder: Path) -> Callable[[], bool]:
    journal = folder / "results" / "far" / "journal.jsonl"
    return lambda: journal.exists() and journal.stat().st_size > 0


@pytest.fixture(scope="module")
def at_home(tmp_path_factory, cache) -> tuple:
    """The long grid's tables, made on one machine."""
    folder = tmp_path_factory.mktemp("home")
    ended(command(folder, cache, LONG, "--slots", "2"))
    return tables(folder)


def test_the_tables_are_those_of_one_machine(pair, cache, tmp_path):
    grid, said = grids.read(GRID, "far.yaml"), []
    assert run(grid, options(tmp_path / "home", cache, slots=1), said.append) == 0
    assert run(grid, options(tmp_path / "far", cache, cluster=pair.address), said.append) == 0
    assert tables(tmp_path / "far") == tables(tmp_path / "home")
    assert any("3 arrays on 2 slots (cpu)" in line for line in said)
    assert sum("; " in line and line.endswith(" done") for line in said) == 6  # one line an array
    described = json.loads((tmp_path / "far" / "results" / "far" / "environment.json").read_text())
    with (tmp_path / "far" / "results" / "far" / "runs.csv").open() as file:
        assert {row["environment"] for row in csv.DictReader(file)} == set(described["environments"])
    assert run(grid, options(tmp_path / "far", cache, cluster=pair.address), said.append) == 0
    assert "nothing to do" in said[-1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of colour pictures, and weights of a classifier of them."""
    from safetensors.torch import save_file

    from bench.data import Images
    from bench.train_classifier import train

    folder = tmp_path_factory.mktemp("pictures")
    chance = torch.Generator().manual_seed(0)
    some = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=chance)
    for i, picture in enumerate(some):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    labels = torch.arange(40) % 2
    weights, _ = train(Images(some, some, labels, labels, ("a", "b"), ""), mirror=False, steps=2)
    save_file(weights, folder.with_name("weights"))
    return folder, folder.with_name("weights")


def test_what_only_the_coordinator_has_is_sent_if_it_is_small_and_else_missed_by_name(
    pair, pictures, cache, tmp_path, monkeypatch
):
    folder, weights = pictures
    monkeypatch.chdir(folder.parent)  # the grid names the folder from here, and workers are elsewhere
    data = f"data: {{set: folder, path: {folder.name}, size: 16}}"
    grid = grids.read(GRID.replace("data: digits", data).replace("samples: 64", "samples: 32"), "far.yaml")
    # A grid file has classifiers only for labelled sets; Inception's weights are too large to make here.
    grid = replace(grid, score=replace(grid.score, extractor="classifier"))
    how = options(tmp_path, cache, weights=weights, cluster=pair.address)
    monkeypatch.setattr("bench.cluster.SENT_MB", 0)
    missed = r"no worker can take an array: worker tcp://\S+: folder is not there: .*; worker tcp://"
    with pytest.raises(Refused, match=missed):
        run(grid, how, lambda line: None)
    assert not tables(tmp_path)[0]
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    said: list[str] = []
    assert run(grid, how, said.append) == 0
    assert len(tables(tmp_path)[0]) == 6
    assert sum("is sent there" in line for line in said) == 6, (
        said
    )  # pictures, weights, statistics to each worker


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--cluster", ""], "--cluster: no address"),
        (["--cluster", "tcp://127.0.0.1:1"], "no Dask scheduler answers there"),
        (["--cluster", "nowhere://127.0.0.1:1"], "no Dask scheduler answers there"),
        (["--cluster", "tcp://127.0.0.1:1", "--slots", "2"], "--slots is for --cluster local"),
    ],
)
def test_a_cluster_that_is_none_is_refused_in_one_line(words, wrong, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.cluster.CONNECT", 0.5)
    (tmp_path / "far.yaml").write_text(GRID)
    asked = ["run", str(tmp_path / "far.yaml"), "--results", str(tmp_path / "results"), *words]
    outcome = CliRunner().invoke(main, asked)
    assert outcome.exit_code == 2
    assert wrong in outcome.output.splitlines()[-1]


@pytest.mark.parametrize("address", ["foo", "foo://x", "tls://127.0.0.1:1"])
def test_an_address_that_is_none_leaves_nothing_behind_that_speaks_later(address, tmp_path):
    """Dask's client, half-made, used to print a traceback when the process had ended."""
    said = ended(command(tmp_path, tmp_path, GRID, "--cluster", address), 2)
    assert [f"--cluster {address}: no Dask scheduler" in line for line in said.splitlines()] == [True], said


def edited(folder: Path) -> Path:
    """A copy of this code with one number changed in a numeric module."""
    for name in ("bench", "tricks"):
        shutil.copytree(REPOSITORY / name, folder / name)
    path = folder / "bench" / "streams.py"
    path.write_text(path.read_text() + "\nANOTHER = 1\n")
    return folder


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused_by_name_and_the_others_train(site, cache, at_home, tmp_path):
    site.scheduler()
    stale = site.worker("stale", code=edited(tmp_path / "code"))
    said = ended(command(tmp_path / "here", cache, LONG, "--cluster", site.address), code=2)
    wrong = f"worker {where(stale)}: its code is not the coordinator's: bench/streams.py"
    assert wrong in said.splitlines()[-1]
    site.worker("fresh")
    said = ended(command(tmp_path / "here", cache, LONG, "--cluster", site.address))
    assert f"worker {where(stale)} is refused: its code" in said
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
def test_a_worker_with_other_code_that_joins_late_is_refused_by_name(site, cache, at_home, tmp_path):
    site.scheduler()
    site.worker("fresh")
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(started(tmp_path / "here"), process)
    stale = site.worker("stale", code=edited(tmp_path / "code"))
    assert f"worker {where(stale)} is refused: its code" in ended(process)
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_killed_in_an_array_loses_nothing(nanny, site, cache, at_home, tmp_path):
    site.scheduler()
    first, second = site.worker("one", nanny), site.worker("two", nanny)
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(lambda: trains(first) and trains(second), process)
    [child] = trains(first)
    kill(first)
    ended(process)
    assert not lives(child)
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
def test_a_worker_that_joins_late_takes_its_share(site, cache, at_home, tmp_path):
    site.scheduler()
    first = site.worker("one")
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(started(tmp_path / "here"), process)
    second = site.worker("two")
    said = ended(process)
    for worker in (first, second):
        assert f"worker {where(worker)}: its first array is done" in said
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
def test_when_the_last_worker_dies_it_says_so_and_waits_for_another(site, cache, at_home, tmp_path):
    site.scheduler()
    first = site.worker("one", "--no-nanny")
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(started(tmp_path / "here"), process)
    kill(first)
    time.sleep(6)
    site.worker("two")
    assert ended(process).count("no worker is left; waiting for one") == 1
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_the_rest_is_made_later(site, cache, at_home, tmp_path):
    scheduler = site.scheduler()
    workers = [site.worker("one"), site.worker("two")]
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(started(tmp_path / "here"), process)
    children = [child for worker in workers for child in trains(worker)]
    kill(scheduler)
    said = ended(process, code=1)
    assert "what was finished is kept" in said.splitlines()[-1]
    assert 0 < len(tables(tmp_path / "here")[0]) < len(at_home[0])
    for worker in workers:
        kill(worker)
    wait_for(lambda: not any(map(lives, children)))
    site.scheduler()
    site.worker("three")
    ended(command(tmp_path / "here", cache, LONG, "--cluster", site.address))
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
def test_an_array_whose_workers_all_die_is_failed_and_made_when_asked(site, cache, at_home, tmp_path):
    site.scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    first, second = site.worker("one", "--no-nanny"), site.worker("two", "--no-nanny")
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(lambda: trains(first) and trains(second), process)
    name = where(first)
    kill(first)
    said = ended(process, code=1)
    assert f"failed: 1 worker died with it in hand, the last was {name}" in said
    again = ("--cluster", site.address, "--retry-failed")
    ended(command(tmp_path / "here", cache, LONG, *again))
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_workers_stop_when_the_coordinator_does(number, code, site, cache, at_home, tmp_path):
    site.scheduler()
    worker = site.worker("one")
    process = command(tmp_path / "here", cache, LONG, "--cluster", site.address)
    wait_for(started(tmp_path / "here"), process)
    wait_for(lambda: trains(worker), process)
    [child] = trains(worker)
    process.send_signal(number)
    ended(process, code=code)
    wait_for(lambda: not lives(child), worker)
    ended(command(tmp_path / "here", cache, LONG, "--cluster", site.address))
    assert tables(tmp_path / "here") == at_home


@pytest.mark.slow
def test_ctrl_c_on_a_local_cluster_ends_what_is_in_training(cache, at_home, tmp_path):
    process = command(tmp_path / "here", cache, LONG, "--cluster", "local", "--slots", "2")
    wait_for(started(tmp_path / "here"), process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    assert "stopped: " in ended(process, code=130)
    assert 0 < len(tables(tmp_path / "here")[0]) < len(at_home[0])
    ended(command(tmp_path / "here", cache, LONG, "--cluster", "local", "--slots", "2"))
    assert tables(tmp_path / "here") == at_home
