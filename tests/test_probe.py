"""Probes see what they say they see, and change nothing."""

from dataclasses import replace

import pytest
import torch

from bench import plan, train
from bench.data import load
from bench.grid import load as load_grid
from bench.probe import METRICS, probe
from bench.schedule import Schedule
from bench.step import generated, leaves
from bench.train import initial


@pytest.fixture(scope="module")
def grid():
    found = load_grid("quick")
    return replace(
        found, recipe=replace(found.recipe, channels=4), budget=replace(found.budget, amount=64 * 25)
    )


@pytest.fixture(scope="module")
def images(grid):
    return load(grid.data)


def runs_of(grid, *arms):
    return [run for run in plan.runs(grid) if run.arm in arms and run.seed < 2]


def last(grid, images, runs, held_out=None, **more):
    *_, shot = train.train(runs[0].program, runs, images.train, held_out=held_out, **more)
    return shot


@pytest.mark.parametrize("arm", ["baseline", "mixed_batches", "feature_matching", "spectral_norm", "hinge"])
def test_a_probe_changes_nothing(arm, grid, images):
    runs = runs_of(grid, arm)
    plain = last(grid, images, runs)
    asked = last(grid, images, runs, (images.held_out, images.held_out_labels))
    assert torch.equal(plain.parameters, asked.parameters)
    assert plain.probes == ()
    assert [at for at, _ in asked.probes] == [at for at, *_ in asked.losses]
    assert all(set(found) == set(METRICS) for _, found in asked.probes)


def test_a_run_is_probed_in_an_array_as_it_is_alone(grid, images):
    runs = [replace(run, dtype="float64") for run in runs_of(grid, "baseline", "label_smoothing")]
    held = (images.held_out, None)
    together = last(grid, images, runs, held)
    for r, run in enumerate(runs):
        alone = last(grid, images, [run], held)
        for (_, a), (_, b) in zip(together.probes, alone.probes, strict=True):
            for key in METRICS:
                torch.testing.assert_close(a[key][r], b[key][0], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_its_figures_are_those_of_plain_torch(grid, images):
    runs = [replace(run, dtype="float64") for run in runs_of(grid, "baseline")][:1]
    program = runs[0].program
    state = initial(program, runs, torch.float64, "cpu")
    gradient = torch.linspace(-1, 1, state.d.parameters.shape[1], dtype=torch.float64)[None]
    state = state._replace(d=state.d._replace(second=gradient.square() * (1 - 0.999)))
    schedule = Schedule([runs[0].effective], (), 10, torch.float64, "cpu")
    ask = probe(program, runs, images.train, images.held_out, None, torch.float64, "cpu")
    found = ask(program, (), state, schedule[0], 10)

    d, g = (leaves(n, p.parameters, False) for n, p in ((program.nets.d, state.d), (program.nets.g, state.g)))

    def logits(x):
        return program.nets.d(d, x.flatten(1, 2), state.d_statistics, 1, train=True)[0].flatten()

    real, fake, seen, norms = [], [], [], []
    for k in range(len(ask.latents)):
        made = generated(program.nets.g, g, ask.latents[k], state.statistics, None)[0].requires_grad_()
        out = logits(made)
        loss = torch.nn.functional.softplus(-out).mean()
        norms.append(torch.autograd.grad(loss, made)[0].flatten(1).norm(dim=1) * len(made))
        real.append(logits(ask.held_out[k]))
        fake.append(out.detach())
        seen.append(logits(ask.trained[k]))
    real, fake, seen = map(torch.cat, (real, fake, seen))
    middle = (real.mean() + fake.mean()) / 2
    right = ((real > middle).double().mean() + (fake < middle).double().mean()) / 2
    wanted = {
        "d_accuracy": right,
        "d_gap": real.mean() - fake.mean(),
        "g_signal": torch.cat(norms).mean(),
        "d_gradient": gradient.norm(),
    }
    if seen.mean() > fake.mean():
        wanted["d_overfit"] = (seen.mean() - real.mean()) / (seen.mean() - fake.mean())
    for key, value in wanted.items():
        torch.testing.assert_close(found[key][0], value, rtol=1e-8, atol=1e-10)
    assert -1 <= ask.held_out.min() < 0 < ask.held_out.max() <= 1
    assert not torch.equal(ask.held_out, ask.trained)
