"""Probes see what they say they see, and change nothing."""

from dataclasses import replace

import pytest
import torch

from bench import plan, train
from bench.data import load
from bench.grid import load as load_grid
from bench.lift import Around, stack
from bench.probe import GRADIENTS, METRICS, floor, held_norms, probe
from bench.schedule import Schedule
from bench.step import generated, leaves
from bench.train import initial
from bench.trick import make, registry


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
    assert all(set(found) == {*METRICS, *GRADIENTS} for _, found in asked.probes)


def test_a_run_is_probed_in_an_array_as_it_is_alone(grid, images):
    runs = [replace(run, dtype="float64") for run in runs_of(grid, "baseline", "label_smoothing")]
    held = (images.held_out, None)
    together = last(grid, images, runs, held)
    for r, run in enumerate(runs):
        alone = last(grid, images, [run], held)
        for (_, a), (_, b) in zip(together.probes, alone.probes, strict=True):
            for key in (*METRICS, *GRADIENTS):
                torch.testing.assert_close(a[key][r], b[key][0], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_its_figures_are_those_of_plain_torch(grid, images):
    runs = [replace(run, dtype="float64") for run in runs_of(grid, "baseline")][:1]
    program = runs[0].program
    state = initial(program, runs, torch.float64, "cpu")
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
        "d_floor": torch.zeros((), dtype=torch.float64),
    }
    if seen.mean() > fake.mean():
        wanted["d_overfit"] = (seen.mean() - real.mean()) / (seen.mean() - fake.mean())
    for key, value in wanted.items():
        torch.testing.assert_close(found[key][0], value, rtol=1e-8, atol=1e-10)
    assert -1 <= ask.held_out.min() < 0 < ask.held_out.max() <= 1
    assert not torch.equal(ask.held_out, ask.trained)


@pytest.mark.parametrize(
    ("tricks", "least"),
    [
        ((), 0.0),
        ((make("label_smoothing", {"target": 0.9}),), 0.325),  # STATISTICS.md section 3
        ((make("label_noise", {"real": 0.05, "fake": 0.05}),), 0.397),
        ((make("two_sided_smoothing", {"real": 0.95, "fake": 0.05}),), 0.397),
        (
            (make("label_smoothing", {"target": 0.9}), make("label_noise", {"real": 0.05, "fake": 0.05})),
            0.613,
        ),
    ],
)
def test_the_least_loss_of_d_is_the_entropy_of_its_labels(tricks, least):
    around = Around(torch.zeros(2, dtype=torch.float64), 10)
    found = floor(stack([tricks, ()], torch.float64), around, 2)
    assert found[0] == pytest.approx(least, abs=2e-3)
    assert found[1] == 0  # the run beside it has hard labels


def test_no_other_loss_has_such_a_least():
    around = Around(torch.zeros(1, dtype=torch.float64), 10)
    others = [trick for trick in registry().values() if trick.fills("d_loss")]
    assert len(others) > 3
    for trick in others:
        assert floor(stack([(trick(),)], torch.float64), around, 1).isnan().all()


def test_a_gradient_is_held_for_ten_steps_and_steps_without_a_move_do_not_count():
    nan = torch.nan
    norms = torch.ones(30)
    norms[5:15], norms[20:29] = 7.0, 9.0  # ten steps, nine steps
    found = held_norms("d", torch.stack([norms, torch.full((30,), nan)], 1))
    assert found["d_gradient"][0] == 7
    assert found["d_gradient_held"][0] == 7
    assert found["d_gradient"][1].isnan()
    assert found["d_gradient_held"][1].isnan()
    gaps = torch.full((60,), nan)
    gaps[::2] = norms
    assert held_norms("g", gaps[:, None])["g_gradient_held"] == 7
    assert held_norms("g", torch.tensor([[2.0], [3.0]]))["g_gradient_held"] == 2


@pytest.mark.parametrize("arm", ["baseline", "d_steps"])
def test_the_norms_of_a_step_are_those_of_its_losses(arm, grid, images):
    run = next(replace(run, dtype="float64") for run in runs_of(grid, arm))
    training = train.begin(run.program, [run], images.train)
    told = training.advance(0, 4)
    moved = [training.schedule.kind(number)[2] for number in range(4)]
    assert told.shape == (4, 4, 1)
    assert told[:, 2].isfinite().all()
    assert (told[:, 2] > 0).all()
    assert told[:, 3, 0].isfinite().tolist() == moved
    state = initial(
        run.program, [run], torch.float64, "cpu"
    )  # Adam's first moment after a step: (1 - beta1) g
    fresh = train.begin(run.program, [run], images.train)
    first = fresh.advance(0, 1)
    weight = fresh.schedule[0].d.weight1
    assert first[0, 2, 0].item() == pytest.approx((fresh.state.d.first / weight).norm().item(), rel=1e-12)
    assert not torch.equal(state.d.parameters, fresh.state.d.parameters)
