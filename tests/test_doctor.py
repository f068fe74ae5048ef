"""`bench doctor`: each check is broken once, and says so in words."""

import gzip
import struct
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from bench import doctor, extractors, memory, trick
from bench.cli import main
from bench.doctor import Machine


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_INCEPTION", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return Machine(tmp_path / "results", tmp_path / "cache", tmp_path / "data", "cpu")


def found(check, machine) -> str:
    return "\n".join(one.line for one in check(machine))


def test_a_sound_machine_ends_with_0_and_says_one_line_a_check(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", tuple(c for c in doctor.CHECKS if c is not doctor._data))
    told = CliRunner().invoke(main, ["doctor", "--cache", str(tmp_path), "--results", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[-1] == "nothing is wrong"
    assert {line.split()[0] for line in told.output.splitlines()[:-1]} <= {"ok", "note"}
    assert "scorer: known answers on digits" in told.output


def test_a_check_that_breaks_is_wrong_and_the_others_go_on(machine, monkeypatch, tmp_path):
    def broken():
        raise TypeError("tricks/mine.py must hold exactly one trick")

    monkeypatch.setattr(trick, "registry", broken)
    monkeypatch.setattr(doctor, "CHECKS", (doctor._tricks, doctor._python))
    lines = [check.line for check in doctor.examine(machine)]
    assert lines[0] == "wrong   tricks: TypeError: tricks/mine.py must hold exactly one trick"
    assert lines[1].startswith("ok      python")
    told = CliRunner().invoke(main, ["doctor", "--cache", str(tmp_path)])
    assert (told.exit_code, told.output.splitlines()[-1]) == (1, "1 wrong")


def test_an_old_python_and_old_or_missing_packages_are_wrong(machine, monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version_tuple", lambda: ("3", "10", "4"))
    assert found(doctor._python, machine).startswith("wrong")
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["torch>=2.11", "nothing>=1", 'ruff; extra == "test"']
    )
    versions = {"torch": "2.8.0"}

    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor, "version", version)
    told = found(doctor._packages, machine)
    assert told.startswith(
        "wrong   packages: torch is 2.8.0, needed is >=2.11; nothing is missing; pip install"
    )
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=2.11"])
    versions |= {"torch": "2.11.0a1+cu132", "torch-fidelity": "0.4.0"}
    assert found(doctor._packages, machine).startswith("wrong")  # before 2.11.0
    versions["torch"] = "2.15.0+cu132"
    assert found(doctor._packages, machine).startswith("ok")


def test_cuda_is_a_note_unless_it_was_asked_for_or_does_not_fit(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found(doctor._cuda, machine).startswith("note")
    asked = Machine(machine.results, machine.cache, device="cuda")
    assert found(doctor._cuda, asked).startswith("wrong   cuda: --device cuda: torch finds no CUDA device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "a card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (10**10, 10**11))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90a"])
    for capability, level in (((8, 6), "ok"), ((9, 0), "ok"), ((7, 5), "wrong"), ((12, 0), "wrong")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i, c=capability: c)
        assert found(doctor._cuda, machine).startswith(level), capability


def test_a_torch_without_onednn_is_a_note(machine, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert found(doctor._onednn, machine).startswith("note")


def idx(path: Path, *shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = torch.Size(shape).numel()
    pixels = bytes(i * 7 % 10 for i in range(count))
    path.write_bytes(gzip.compress(struct.pack(f">2xBB{len(shape)}I", 8, len(shape), *shape) + pixels))


def test_sets_are_missing_incomplete_damaged_or_whole(machine, monkeypatch):
    monkeypatch.setattr(doctor, "DEBIAN", {})
    monkeypatch.setattr(doctor, "SETS", {k: v for k, v in doctor.SETS.items() if k in ("mnist", "cifar10")})
    assert [line.split()[0] for line in found(doctor._data, machine).splitlines()] == ["note", "note"]
    raw = machine.data / "MNIST" / "raw"
    for part, count in (("train", 20), ("t10k", 5)):
        idx(raw / f"{part}-images-idx3-ubyte.gz", count, 28, 28)
        idx(raw / f"{part}-labels-idx1-ubyte.gz", count)
    assert "ok      data mnist: 20 + 5 images" in found(doctor._data, machine)
    whole = (raw / "train-images-idx3-ubyte.gz").read_bytes()
    (raw / "train-images-idx3-ubyte.gz").write_bytes(whole[:60])
    told = found(doctor._data, machine)
    assert "wrong   data mnist" in told
    assert "is damaged" in told
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "has no t10k-labels-idx1-ubyte; unpack the set again" in found(doctor._data, machine)
    batches = machine.data / "cifar-10-batches-py"
    batches.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(b"x")
    assert f"wrong   data cifar10: {batches} is damaged" in found(doctor._data, machine)


def test_weights_that_are_no_weights_or_not_the_published_ones_are_wrong(machine, monkeypatch, tmp_path):
    assert "note    weights: no Inception" in found(doctor._weights, machine)
    other = tmp_path / "inception.pth"
    monkeypatch.setenv("BENCH_INCEPTION", str(other))
    assert "wrong   weights: BENCH_INCEPTION names" in found(doctor._weights, machine)
    other.write_bytes(b"not weights")
    assert "the published file's begins with 6726825d" in found(doctor._weights, machine)
    monkeypatch.setattr(extractors, "SHIPPED", tmp_path)
    (tmp_path / "digits-16.safetensors").write_bytes(b"not weights")
    monkeypatch.setattr(doctor, "CHECKS", (doctor._weights,))
    (check,) = doctor.examine(machine)
    assert check.line.startswith("wrong   weights: score: ")


def test_folders_that_cannot_be_written_are_wrong(machine, tmp_path):
    assert found(doctor._writing, machine).count("ok ") == 3
    (tmp_path / "file").write_text("")
    for place in (Path("/proc/nowhere"), tmp_path / "file" / "results"):
        lines = found(doctor._writing, Machine(place, machine.cache, place)).splitlines()
        assert lines[0].startswith("wrong   writing: results: ")
        assert lines[2].startswith(f"{'note ' if place.parent.is_dir() else 'wrong'}   writing: data: ")


def test_a_full_disk_is_wrong_and_a_nearly_full_one_a_note(machine, monkeypatch):
    for free, level in ((10**8, "wrong"), (10**9, "note"), (10**11, "ok")):
        usage = doctor.shutil._ntuple_diskusage(10**12, 10**12 - free, free)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place, usage=usage: usage)
        assert [c.level for c in doctor._disk(machine)] == [level] * 2


def test_too_little_memory_is_a_note(machine, monkeypatch):
    assert {c.level for c in doctor._memory(machine)} == {"ok"}
    monkeypatch.setattr(memory, "available_mb", lambda device: 10.0)
    assert "--runs-per-array 1" in found(doctor._memory, machine)
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # told once, by the check of CUDA
    there = found(doctor._memory, Machine(machine.results, machine.cache, device="cuda:0"))
    assert "wrong" not in there


def test_a_clock_that_is_behind_jumps_or_differs_from_the_disks_is_told(machine, monkeypatch):
    assert found(doctor._clock, machine).startswith("ok")
    now = doctor.time.time
    monkeypatch.setattr(doctor.time, "time", lambda: now() - 60)
    assert found(doctor._clock, machine).startswith("note    clock: the disk of")
    calls = iter(range(9))
    monkeypatch.setattr(doctor.time, "time", lambda: now() + 10 * next(calls))
    assert found(doctor._clock, machine).startswith("note    clock: it jumped by")
    monkeypatch.setattr(doctor.time, "time", lambda: 0.0)
    assert found(doctor._clock, machine).startswith("wrong   clock: it says")


def test_a_scorer_with_other_weights_does_not_give_the_known_answers(machine, monkeypatch, tmp_path):
    weights = load_file(extractors.SHIPPED / "digits-16.safetensors")
    save_file({k: v * 1.01 for k, v in weights.items()}, tmp_path / "digits-16.safetensors")
    monkeypatch.setattr(extractors, "SHIPPED", tmp_path)
    told = found(doctor._scorer, machine)
    assert told.startswith("wrong   scorer: ")
    assert "fd of held-out digits is" in told


def test_the_inception_score_says_why_it_is_skipped(machine, monkeypatch, tmp_path):
    assert "skipped: no weights and no CIFAR-10" in found(doctor._inception_score, machine)
    (machine.data / "cifar-10-batches-py").mkdir(parents=True)
    (machine.data / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"x")
    (tmp_path / "inception.pth").write_bytes(b"x")
    monkeypatch.setenv("BENCH_INCEPTION", str(tmp_path / "inception.pth"))
    assert "skipped: takes hours on a CPU" in found(doctor._inception_score, machine)


def test_a_device_that_is_none_is_refused():
    told = CliRunner().invoke(main, ["doctor", "--device", "cdua"])
    assert told.exit_code == 2
    assert 'not a device; one of: auto, cpu, cuda, cuda:N (did you mean "cuda"?)' in told.output
