"""What only a CUDA device shows; `make test-gpu` runs it."""

import json
import subprocess
import sys

import pytest
import torch
from test_convolve import everything, layers, ours, tensors, theirs
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


def test_speed_is_measured_on_the_gpu():
    """Its children take the device that is asked for, with and without a number."""
    asked = ["--quick", "--seconds", "0.05", "--rounds", "1", "--channels", "8", "--no-scoring", "--json"]
    for device in ("cuda", "cuda:0"):
        command = [sys.executable, "-m", "bench.cli", "speed", "--device", device, *asked]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)["tables"][0]["contestants"]
        assert any("1 array of 8 runs" in row["name"] for row in rows), rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", layers()[::7], ids=str)
def test_the_kernels_compute_what_cudnn_computes(layer, dtype):
    given = [t.detach().to("cuda", dtype).requires_grad_() for t in tensors(layer, 3, torch.float64)]
    wide = [t.detach().double().requires_grad_() for t in given]
    for got, want in zip(everything(ours, layer, 3, given), everything(theirs, layer, 3, wide), strict=True):
        error = (got.double() - want).norm() / want.norm()
        assert error < {torch.float32: 3e-3, torch.bfloat16: 3e-2}[dtype]  # products are TF32 and bfloat16


def test_runs_per_array_are_measured_on_the_gpu(tmp_path, tiny):
    """In child processes, as `bench run` has it before a grid that is worth it."""
    from bench import plan, tune
    from bench.data import load
    from bench.run import keep_images
    from bench.turns import Seats

    grid, said = tiny(seeds=2), []
    runs = [run for run in plan.runs(grid) if not run.tricks]
    with Seats("cuda") as seats:
        found = tune.rate(seats, runs, keep_images(load(grid.data), tmp_path), "cuda", 1, 2, said.append)
    assert found > 0, said
