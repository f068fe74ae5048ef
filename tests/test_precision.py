"""Fast modes against slow ones: one-step gradients at equal parameters, and scores over paired seeds."""

from functools import cache
from pathlib import Path

import plain
import pytest
import torch
import torch.nn.functional as F

import bench
from bench import engine, plan, train
from bench import grid as grids
from bench.compare import compare

RESULTS = Path(__file__).parents[1] / "results"
SIZES = [(16, 3), (28, 1), (32, 1), (64, 3)]
GRID = """
name: x
data: {{set: {set}, size: {size}}}
recipe: {{channels: 16, batch_size: 32, lr: 0}}
tricks: {{placebo: }}
seeds: 4
budget: {{steps: 1}}
dtype: {dtype}
score: {{extractor: classifier}}
"""


@cache
def gradients(size: int, colours: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """D's and G's gradients in an array's first step, (R, P) each; the rate is 0, so D has not moved at G's."""
    runs, pictures = setting(size, colours, dtype)
    trained = train.begin(runs[0].program, runs, pictures)
    trained.advance(0, 1)
    return trained.state.d.first * 2, trained.state.g.first * 2  # Adam's first moment after one step


@cache
def setting(size: int, colours: int, dtype: str):
    set_ = "fashion-mnist" if colours == 1 else "cifar10"
    planned = plan.runs(grids.read(GRID.format(set=set_, size=size, dtype=dtype), "x.yaml"))
    draw = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (64, colours, size, size), dtype=torch.uint8, generator=draw)
    return [r for r in planned if not r.tricks], pictures


@cache
def by_pytorch(size: int, colours: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by nn.Sequential, in bfloat16 under PyTorch's own autocast."""
    runs, pictures = setting(size, colours, "float32")
    found = []
    for run in runs:
        d, g = plain.networks(size, colours, 16, 100)
        start = train.begin(run.program, [run], pictures)
        plain.load(d, start.state.d.parameters[0])
        plain.load(g, start.state.g.parameters[0])
        drawn = engine.draw(run.program, (), start.streams(0), pictures)
        batch = engine.batch_of(drawn, pictures, torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            fake = g(batch.latents[:, 0, :, None, None])
            logits = [d(batch.real[:, 0]), d(fake.detach()), d(fake)]
        real, other, again = (z.float().flatten() for z in logits)
        bce, one = F.binary_cross_entropy_with_logits, torch.ones(32)
        loss_d, loss_g = bce(real, one) + bce(other, 0 * one), bce(again, one)
        pairs = ((loss_d, d), (loss_g, g))
        grads = (torch.autograd.grad(loss, list(n.parameters()), retain_graph=True) for loss, n in pairs)
        found.append([torch.cat([t.flatten() for t in own]) for own in grads])
    return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])


def errors(made: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    return (made.double() - exact).norm(dim=1) / exact.norm(dim=1)


@pytest.mark.parametrize(("size", "colours"), SIZES)
def test_gradients_in_float32_are_those_of_float64(size, colours):
    for ours, exact in zip(
        gradients(size, colours, "float32"), gradients(size, colours, "float64"), strict=True
    ):
        # The best of four seeds: a value so near 0 that 1e-7 decides its side of a ReLU costs 1e-3, by chance.
        assert float(errors(ours, exact).min()) < 1e-5


@pytest.mark.parametrize(("size", "colours"), SIZES)
def test_gradients_in_bfloat16_are_no_rougher_than_those_of_autocast(size, colours):
    exact = gradients(size, colours, "float64")
    for ours, theirs, want in zip(
        gradients(size, colours, "bfloat16"), by_pytorch(size, colours, "bfloat16"), exact, strict=True
    ):
        assert float(errors(ours, want).median()) < 1.1 * float(errors(theirs, want).median())


def test_bfloat16_does_not_shift_scores_over_twenty_seeds():
    """The checked-in runs: by the verdicts' own rule of equivalence, 90 % interval of the ratio within 5 %."""
    found = compare(*(bench.load(RESULTS / f"precision-{d}") for d in ("float32", "bfloat16")))
    assert ("dtype", "float32", "bfloat16") in found.differs
    (arm,) = found.arms
    assert (arm.paired, arm.n, arm.failures) == (True, 20, (0, 0))
    assert arm.verdict == "equivalent"
