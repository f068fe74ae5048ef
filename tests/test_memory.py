"""The predicted memory of arrays against what processes really took."""

import json
import math
import os
import subprocess
import sys

import pytest

from bench import grid
from bench.data import load
from bench.memory import MB, available_mb, cgroup_mb
from bench.score import make_scorer

CHILD = """
import json, os, sys
# Linux lets a program start with the peak of whoever started it, here pytest; a fork starts anew.
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from pathlib import Path
from bench import grid, memory, plan
from bench.data import load
from bench.memory import MB, available_mb, cgroup_mb
from bench.run import keep_images
from bench.worker import Job, do, peak_memory_mb, settle
text, runs, cache = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
settle("cpu", 1)
planned = [r for r in plan.runs(grid.read(text, "x.yaml")) if not r.tricks][:runs]
asked = grid.read(text, "x.yaml")
file = keep_images(load(asked.data), cache)
told = memory.predict_mb(planned[0].program, runs, asked.score.samples, memory.resident_mb())
do(Job(tuple(planned), asked.score, file, cache, None, 40.0, "cpu", 1))
print(json.dumps([told, peak_memory_mb("cpu")]))
"""
GRID = """
name: x
data: digits
recipe: {{channels: {channels}, batch_size: {batch}}}
tricks: {{placebo: }}
seeds: 10
budget: {{steps: 3}}
score: {{points: 1, samples: {samples}}}
dtype: {dtype}
"""


@pytest.mark.parametrize(
    ("channels", "batch", "samples", "dtype", "runs"),
    [
        pytest.param(16, 64, 2000, "float32", 5, marks=pytest.mark.slow),
        (64, 256, 200, "float32", 8),
        pytest.param(64, 256, 200, "bfloat16", 8, marks=pytest.mark.slow),
        (256, 64, 200, "float32", 3),
        (16, 64, 5000, "float32", 2),
    ],
)
def test_the_peak_of_an_array_is_predicted_within_a_fifth(channels, batch, samples, dtype, runs, tmp_path):
    text = GRID.format(channels=channels, batch=batch, samples=samples, dtype=dtype)
    asked = grid.read(text, "x.yaml")
    # The statistics of the real images are made before the first array starts.
    make_scorer(load(asked.data), asked.data, "classifier", samples, tmp_path)
    command = [sys.executable, "-c", CHILD, text, str(runs), str(tmp_path)]
    pooled = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2 * 10**9)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=pooled)
    assert done.returncode == 0, done.stderr
    told, took = json.loads(done.stdout)
    assert told == pytest.approx(took, rel=0.2)


OLD, NEW = "4:memory:/job/step", "0::/job/step"


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def machine(root, line: str):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"1:cpu:/\n{line}\n")
    return root / ("sys/fs/cgroup/memory" if line == OLD else "sys/fs/cgroup")


@pytest.mark.parametrize("line", [OLD, NEW])
def test_a_containers_limit_leaves_less_than_the_machine_has(line, tmp_path):
    """The least of a group and those above it; what the kernel would drop from its file cache counts as free."""
    top, old = machine(tmp_path, line), line == OLD
    limit, used = ("limit_in_bytes", "usage_in_bytes") if old else ("max", "current")
    idle = "total_inactive_file" if old else "inactive_file"
    group(top, **{limit: 2**63 - 4096 if old else "max", used: 10 * MB, "stat": f"{idle} 0"})
    group(top / "job", **{limit: 900 * MB, used: 600 * MB, "stat": f"cache 1\n{idle} {50 * MB}"})
    group(top / "job/step", **{limit: 800 * MB, used: 100 * MB, "stat": f"{idle} 0"})
    assert cgroup_mb(tmp_path) == 350


@pytest.mark.parametrize("line", [OLD, NEW])
def test_a_container_that_sees_its_own_group_as_the_root_is_understood(line, tmp_path):
    top = machine(tmp_path, line)
    limit, used = ("limit_in_bytes", "usage_in_bytes") if line == OLD else ("max", "current")
    group(top, **{limit: 500 * MB, used: 200 * MB, "stat": "other 1"})
    assert cgroup_mb(tmp_path) == 300


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert cgroup_mb(tmp_path) == math.inf
    assert 0 < available_mb("cpu") < math.inf
