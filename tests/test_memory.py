"""The predicted memory of arrays against what processes really took."""

import json
import os
import subprocess
import sys

import pytest

from bench import grid
from bench.data import load
from bench.score import make_scorer

CHILD = """
import json, os, sys
# Linux lets a program start with the peak of whoever started it, here pytest; a fork starts anew.
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from pathlib import Path
from bench import grid, memory, plan
from bench.data import load
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
