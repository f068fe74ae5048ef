"""Slots: which array gets which device and how many threads; the devices are fakes, the child processes are real."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from bench import plan, tune
from bench.errors import Refused
from bench.run import pick_devices
from bench.slots import Slots, share
from bench.worker import Job, Result

GPUS = ("cuda:0", "cuda:1")


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that are not there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def told(pipe, job):
    """Be a child that says where it trained, and takes its time."""
    time.sleep(0.2)
    pipe.send(
        ("done", Result(rows=[{"run": r.id, "on": job.device, "threads": job.threads} for r in job.runs]))
    )


def small(pipe, job):
    """Be a child in whose memory two runs fit."""
    if len(job.runs) > 2:
        pipe.send(("error", "memory", "OutOfMemoryError: too many", "a traceback"))
    else:
        told(pipe, job)


def rows(slots, arrays, target):
    """What arrays become in slots."""
    job = Job((), None, Path("none"), Path("none"), None, None, "", 0)

    def make(array, slot):
        return Job(**(vars(job) | {"runs": array.runs, "device": slot.device, "threads": slot.threads}))

    found = Slots(slots, 300.0, lambda news: None, lambda line: None, target).results(arrays, make)
    return [result.rows for _, result in found]


def test_every_device_has_its_share_of_the_arrays(tiny):
    arrays = [plan.Array((r,)) for r in plan.runs(tiny(seeds=4))]
    found = [row for own in rows(share(GPUS, 4, 3), arrays, told) for row in own]
    assert Counter(row["on"] for row in found) == {"cuda:0": 4, "cuda:1": 4}
    assert {row["threads"] for row in found} == {3}
    assert {row["run"] for row in found} == {a.runs[0].id for a in arrays}


def test_an_array_that_does_not_fit_is_halved_where_it_was(tiny):
    runs = plan.runs(tiny(seeds=4))
    found = rows(share(GPUS, 2, 1), [plan.Array(tuple(runs[:4])), plan.Array(tuple(runs[4:]))], small)
    assert sorted(len(own) for own in found) == [4, 4]
    assert sorted("".join({row["on"] for row in own}) for own in found) == list(GPUS)


@pytest.mark.parametrize("count", range(1, 8))
def test_no_device_holds_two_slots_more_than_another(count):
    held = Counter(slot.device for slot in share(GPUS, count, 1))
    assert max(held.values()) - min(held[name] for name in GPUS) <= 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("cores", [1, 2, 7, 16])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_threads_are_divided_among_slots(device, cores, devices):
    for slots in (None, 1, 2, 5):
        chosen = tune.choose(None, device, cores, slots, None, devices)
        assert chosen.slots == (slots or (cores if device == "cpu" else devices))
        assert chosen.threads == 1 or chosen.slots * chosen.threads <= cores
    assert tune.choose(None, "cpu", cores, None, 2).slots == max(1, cores // 2)


def test_a_folder_that_goes_on_with_other_gpus_keeps_its_arrays_per_gpu():
    before = {"picked": {"slots": 4, "threads": 1, "devices": 2}}
    assert tune.choose(before, "cuda", 8, None, None, 1).slots == 2
    assert tune.choose(before, "cuda", 8, None, None, 3).slots == 6
    assert tune.choose({"picked": {"slots": 3, "threads": 1}}, "cpu", 8, None, None).slots == 3


@pytest.mark.parametrize(
    ("fast", "room", "beside", "threads"),
    [((1.0, 1.5, 1.4), 80_000, 2, 2), ((1.0, 1.5, 2.0), 80_000, 4, 1), ((1.0, 1.01, 9.0), 80_000, 1, 4),
     ((1.0, 1.5, 2.0), 100, 1, 4)],
)  # fmt: skip
def test_a_gpu_takes_several_arrays_where_that_is_faster_and_fits(
    fast, room, beside, threads, tiny, tmp_path, monkeypatch
):
    rates = dict(zip((1, 2, 4), fast, strict=True))
    asked = []

    def rate(seats, runs, file, device, slots, threads, log):
        asked.append((slots, threads))
        return 100 * rates[slots]

    monkeypatch.setattr(tune, "rate", rate)
    monkeypatch.setattr(tune, "available_mb", lambda device: room)
    monkeypatch.setattr(tune.source, "environment", lambda device: {"device": device})
    runs = plan.runs(tiny(seeds=2))
    chosen = tune.choose(None, "cuda", 8, None, None, 2)
    name = tune.signature(runs[0].program)
    chosen.rates[name], chosen.runs_per_array[name] = {"1 x 2 x 4": 100 * rates[1]}, 2
    tune.fill(None, chosen, runs, Path("none"), 64, tmp_path, "cuda:0", 8, lambda line: None)
    assert (chosen.beside, chosen.slots, chosen.threads) == (beside, 2 * beside, threads)
    assert all(2 * slots * threads <= 8 for slots, threads in asked)


def test_all_cuda_devices_are_taken_unless_some_are_named(gpus):
    assert pick_devices("auto") == pick_devices("cuda") == GPUS
    assert pick_devices("cuda:1") == ("cuda:1",)
    assert pick_devices("cuda:1,cuda:0") == ("cuda:1", "cuda:0")
    assert pick_devices("cpu") == ("cpu",)


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [("cuda:0,cuda:0", "twice"), ("cpu,cuda:1", "one kind"), ("cuda:2", "2 CUDA devices"), ("cuda:0,", "not a device")],
)  # fmt: skip
def test_devices_that_cannot_be_are_refused(asked, wrong, gpus):
    with pytest.raises(Refused, match=wrong):
        pick_devices(asked)


def refuses_one(pipe, job):
    """Be a child that raises where it trains one particular run."""
    if any(run.seed == 1 and run.arm == "baseline" for run in job.runs):
        pipe.send(("error", "error", "ValueError: that one", "Traceback (most recent call last): that one"))
    else:
        told(pipe, job)


def test_one_run_that_raises_is_a_row_with_its_traceback_and_takes_no_other_with_it(tiny):
    runs, said = plan.runs(tiny(seeds=4)), []
    job = Job((), None, Path("none"), Path("none"), None, None, "cpu", 1)

    def make(array, slot):
        return Job(**(vars(job) | {"runs": array.runs}))

    slots = Slots(share(["cpu"], 1, 1), 60.0, lambda news: None, said.append, refuses_one)
    [(_, result)] = slots.results([plan.Array(tuple(runs))], make)
    assert sorted(row["run"] for row in result.rows) == sorted(run.id for run in runs)
    [bad] = [row for row in result.rows if "status" in row]
    assert (bad["status"], bad["reason"]) == ("failed", "ValueError: that one")
    assert result.traces == {bad["run"]: "Traceback (most recent call last): that one"}
    assert sum("Traceback" in line for line in said) == 1


def leaves_files(pipe, job):
    """Be a child that dies with half-written files in the cache and where temporary files go."""
    (job.cache / f"real-0.safetensors.{os.getpid()}").write_text("half")
    (job.cache / f".classifier.{os.getpid()}.tmp").write_text("half")
    tempfile.mkstemp()
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_dead_child_had_begun_to_write_goes_with_it(tiny, tmp_path, monkeypatch):
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    cache.mkdir()
    temporary.mkdir()
    others = [cache / "real-0.safetensors", cache / f"real-0.safetensors.{os.getpid()}"]
    for file in others:
        file.write_text("whole")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    job = Job((), None, Path("none"), cache, None, None, "cpu", 1)
    slots = Slots(share(["cpu"], 1, 1), 60.0, lambda news: None, lambda line: None, leaves_files)
    [(_, result)] = slots.results([plan.Array(tuple(plan.runs(tiny())[:1]))], lambda array, slot: job)
    assert [row["status"] for row in result.rows] == ["failed"]
    assert sorted(cache.iterdir()) == others
    assert not list(temporary.glob("dcgan-bench-*"))


def locks(pipe, job):
    """Be a child that says which folders of temporary files are there, and tries to take their locks."""
    above = Path(tempfile.gettempdir()).parent.parent
    for lock in sorted(above.glob("dcgan-bench-*/lock")):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                pipe.send(("say", f"{lock.parent.name} is free"))
            except OSError:
                pipe.send(("say", f"{lock.parent.name} is held"))
    os.kill(os.getpid(), signal.SIGKILL)


def test_temporary_files_of_a_killed_process_go_when_the_next_starts_and_those_of_a_living_one_stay(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("dcgan-bench-dead", "dcgan-bench-living", "dcgan-bench-other"):
        (tmp_path / name / "x").mkdir(parents=True)
    (tmp_path / "dcgan-bench-dead" / "lock").touch()
    job = Job((), None, Path("none"), tmp_path, None, None, "cpu", 1)
    said = []
    with (tmp_path / "dcgan-bench-living" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        slots = Slots(share(["cpu"], 1, 1), 60.0, lambda news: None, said.append, locks)
        list(slots.results([plan.Array(tuple(plan.runs(tiny())[:1]))], lambda array, slot: job))
    assert sorted(place.name for place in tmp_path.glob("dcgan-bench-*")) == [
        "dcgan-bench-living",
        "dcgan-bench-other",
    ]
    assert len([line for line in said if line.endswith(" is held")]) == 2  # the living one's, and its own
    assert not [line for line in said if line.endswith(" is free")]


APART = """
import os, signal
from bench.children import apart
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
os.kill(os.getpid(), signal.SIGINT)
apart()
print("not heard", os.getpgid(0) == os.getpid())
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


def test_a_ctrl_c_from_before_a_child_began_is_not_for_it():
    made = subprocess.run([sys.executable, "-c", APART], capture_output=True, text=True, check=False)
    assert (made.stdout.split("\n"), made.stderr) == (["not heard True", "heard", ""], "")
