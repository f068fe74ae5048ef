"""Large grids: what is done once an arm, what costs the same at the last run as at the first, and 100,000 runs."""

import hashlib
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from bench import grid as grids
from bench import networks, plan, store
from bench.progress import Progress
from bench.run import _rename
from bench.slots import News
from bench.store import Store
from bench.worker import Result


def many(arms: int, seeds: int) -> grids.Grid:
    """Return a grid of so many arms and seeds, all of one program."""
    values = ", ".join(f"{0.5 + 0.4 * i / arms:.7f}" for i in range(arms - 1))
    tricks = f"tricks: {{label_smoothing: {{target: [{values}]}}}}"
    return grids.read(
        f"name: many\ndata: digits\nrecipe: {{channels: 4}}\n{tricks}\nseeds: {seeds}\nbudget: {{steps: 4}}",
        "many.yaml",
    )


def row(run) -> dict:
    return {
        "run": run.id, "arm": run.arm, "seed": run.seed, "status": "ok", "reason": "", "detectors": "", "images": 256,
        "steps": 4, "fd": 12.25 + run.seed / 7, "fd_best": 11 + run.seed / 7, "kid": run.seed / 13, "is": 2.5,
        "extractor": "classifier", "samples": 2000, "protocol": "0123456789ab", "mode": "fast", "dtype": "float32",
        "runs_per_array": 5, "threads": 1, "device": "a CPU", "train_seconds": 1.5 + run.seed / 3, "source": "ab" * 6,
    }  # fmt: skip


def curve(run) -> list[tuple]:
    lines = [(run.id, 10 * i, "raw-eval", "fd", 2000, 12.5 + i / 7) for i in range(5)]
    return lines + [
        (run.id, 10 * i, None, m, None, 1.5 + i / 3) for i in range(10) for m in ("loss_d", "loss_g")
    ]


def commit(kept: Store, runs) -> None:
    kept.commit([row(r) for r in runs], [line for r in runs for line in curve(r)])


def test_what_no_seed_changes_is_worked_out_once_an_arm(monkeypatch):
    built = []
    plain = networks.discriminator
    monkeypatch.setattr(networks, "discriminator", lambda *given: built.append(1) or plain(*given))
    planned = plan.runs(many(20, 30))
    cut = plan.arrays(planned, lambda program: 5)
    assert len(cut) == 120
    assert len({r.id for r in planned}) == 600
    assert all(r.program == planned[0].program for r in planned[::30])
    assert len(built) == 20


def test_a_run_with_another_seed_is_the_run_of_that_seed():
    one, other = plan.runs(many(2, 13))[-2:]
    assert one.with_seed(other.seed) == other
    assert one.with_seed(other.seed).id == other.id != one.id
    assert one.spec | {"seed": other.seed} == other.spec
    canonical = json.dumps(other.spec, sort_keys=True, separators=(",", ":"))
    assert other.id == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_recording_a_run_writes_the_same_bytes_however_many_there_are(tmp_path):
    planned = plan.runs(many(40, 50))
    with Store(tmp_path / "g") as kept:
        sizes = []
        for i in range(0, len(planned), 5):
            commit(kept, planned[i : i + 5])
            sizes.append(kept.journal.stat().st_size)
        assert not (tmp_path / "g" / "runs.csv").exists()  # the tables come later
    grown = [b - a for a, b in pairwise(sizes)]
    assert max(grown) < 1.1 * min(grown)


def test_what_was_exported_is_not_read_from_the_journal_again(tmp_path, monkeypatch):
    planned = plan.runs(many(4, 10))
    with Store(tmp_path / "g") as kept:
        commit(kept, planned[:30])
        kept.export()
        commit(kept, planned[30:])
    parsed = []
    plain = store._entry
    monkeypatch.setattr(store, "_entry", lambda line: parsed.append(1) or plain(line))
    with Store(tmp_path / "g") as kept:
        assert set(kept.rows) == {r.id for r in planned}
        assert len(parsed) == 2  # the mark of the export, and what came after it
        assert kept.dirty
        assert not kept.as_written()


def test_tables_that_nobody_touched_are_known_and_touched_ones_too(tmp_path):
    planned = plan.runs(many(3, 4))
    with Store(tmp_path / "g") as kept:
        commit(kept, planned)
        kept.export()
    text = (tmp_path / "g" / "runs.csv").read_text()
    with Store(tmp_path / "g") as kept:
        assert kept.as_written()
        before = kept.journal.stat().st_size
        kept.export()  # has nothing to do
        assert kept.journal.stat().st_size == before
        _rename(kept, planned)
        assert not kept.dirty
    (tmp_path / "g" / "runs.csv").write_text(text.replace("12.25", "12.26", 1))
    with Store(tmp_path / "g") as kept:
        assert not kept.as_written()


def test_tables_read_and_written_again_are_the_same(tmp_path):
    planned = plan.runs(many(3, 4))
    with Store(tmp_path / "g") as kept:
        commit(kept, planned)
        kept.export()
    before = [(tmp_path / "g" / name).read_bytes() for name in ("runs.csv", "curves.csv")]
    # A quoted cell sends curves.csv the slow way round.
    (tmp_path / "g" / "curves.csv").write_bytes(before[1].replace(b"raw-eval", b'"raw-eval"', 1))
    with Store(tmp_path / "g") as kept:
        kept.dirty = True
        kept.export()
    assert [(tmp_path / "g" / name).read_bytes() for name in ("runs.csv", "curves.csv")] == before


def news(grid: grids.Grid) -> float:
    """Return the CPU seconds of a thousand pieces of news and as many finished arrays."""
    planned = plan.runs(grid)
    arrays = plan.arrays(planned, lambda program: 5)
    progress = Progress(arrays, len(planned), 0, 2, lambda line: None, grid)
    started = time.process_time()
    for array in arrays[-200:] * 5:
        progress.hear(News(array, 0.5, {array.runs[0].id: 3.0}))
        progress.finished(array, Result())
    assert progress.worked == pytest.approx(sum(progress.work[-200:]))
    return time.process_time() - started


def test_progress_costs_the_same_at_ten_times_the_arrays():
    assert news(many(200, 50)) < 4 * news(many(20, 50))


RESUME = """
import os, resource, sys, time
# Linux lets a program start with the peak of whoever started it, here pytest; a fork starts anew.
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from pathlib import Path
started = time.process_time()
from bench import grid as grids, plan, source
from bench.store import Store
grid = grids.load(sys.argv[1])
with Store(Path(sys.argv[2])) as kept:
    planned = plan.runs(grid, there=kept.rows)
    digests = {r.arm: source.digest(r, ("ema",)) for _, r in plan.first_runs(grid)}
    done = {r.id for r in planned if r.id in kept.rows}
    arrays = plan.arrays(planned, lambda program: 5)
    assert kept.as_written() == (len(done) == len(planned))
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(len(done), len(arrays), time.process_time() - started, gigabytes)
"""


@pytest.mark.slow
def test_a_hundred_thousand_runs_are_planned_resumed_and_recorded(tmp_path):
    grid = many(1_000, 100)
    (tmp_path / "many.yaml").write_text(grid.text)
    planned = plan.runs(grid)
    took = []
    with Store(tmp_path / "many") as kept:
        for i in range(0, len(planned), 500):
            started = time.process_time()
            commit(kept, planned[i : i + 5])
            took.append(time.process_time() - started)
            commit(kept, planned[i + 5 : i + 500])
        kept.export()
    first, last = sorted(took[:40])[20], sorted(took[-40:])[20]
    assert last < 2 * first, (first, last)
    command = [sys.executable, "-c", RESUME, str(tmp_path / "many.yaml"), str(tmp_path / "many")]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    ).stdout
    done, arrays, seconds, gigabytes = map(float, said.split())
    assert (done, arrays) == (100_000, 20_000)
    assert seconds < 10
    assert gigabytes < 1
