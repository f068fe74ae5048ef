"""What only a CUDA device shows; `make test-gpu` runs it."""

import subprocess
import sys

import pytest
import torch
from test_engine import last, runs_of

from bench import engine, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_replayed_step_is_the_step_computed_one_by_one(dtype, images):
    from dataclasses import replace

    runs = [replace(run, dtype=dtype) for run in runs_of("digits", 16, 12)]
    graph = last(runs, images, device="cuda")
    assert graph.mode == "graph"
    eager = last(runs, images, device="cuda", engine=engine.Eager)
    tolerance = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 5e-2}[dtype]
    torch.testing.assert_close(graph.parameters, eager.parameters, rtol=0, atol=tolerance)


def test_a_gpu_computes_what_a_cpu_computes(images):
    runs = runs_of("digits", 16, 12)
    torch.testing.assert_close(
        last(runs, images, device="cuda").parameters.cpu(), last(runs, images).parameters, rtol=0, atol=1e-9
    )


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_waits_for_the_host(images):
    runs = runs_of("digits", 16, 200)
    trained = train.begin(runs[0].program, runs, images, "cuda")
    trained.advance(trained.schedule.first, 0)
    trained.advance(0, 1)  # both kinds of step are captured by now
    torch.cuda.set_sync_debug_mode("error")
    try:
        trained.advance(1, 100)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_grid_runs_on_the_gpu_from_start_to_report(tmp_path):
    grid = tmp_path / "tiny.yaml"
    grid.write_text(
        "name: tiny\ndata: digits\nrecipe: {channels: 4}\ntricks: {label_smoothing: , pretraining: {steps: 5}}\n"
        "seeds: 2\nbudget: {steps: 40}\nscore: {samples: 64, points: 2, metrics: [fid, is]}\n"
    )
    where = ["--results", str(tmp_path / "results")]
    for command in (
        ["run", str(grid), "--device", "cuda", *where],
        ["report", *where, "--reports", str(tmp_path / "r")],
    ):
        done = subprocess.run([sys.executable, "-m", "bench.cli", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert ",graph," in (tmp_path / "results" / "tiny" / "runs.csv").read_text()
