"""What is known in advance: the Dirac-GAN's paths, means over label draws, averages of a G that stands still.

The Dirac-GAN (Mescheder et al. 2018): D(x) = psi x, G(z) = theta, every real image 0, start at (1, 1). It is driven by
the harness's own step, with SGD, so losses, penalties and the order of moves are those of every run.
"""

from dataclasses import dataclass

import pytest
import torch

from bench import lift, plan, train
from bench.networks import Conv, Layer, Network, Normal
from bench.recipe import Recipe
from bench.schedule import Schedule
from bench.step import Batch, Nets, Player, State, step
from bench.trick import Now, make, registry


@dataclass(frozen=True)
class Slope(Layer):
    """D of the Dirac-GAN: psi x."""

    def parameters(self, std):
        return {"weight": Normal((1,), 1.0, 0.0)}

    def forward(self, x, p, b, runs, train):
        return x * p["weight"][:, None, None]


@dataclass(frozen=True)
class Point(Slope):
    """G of the Dirac-GAN: theta, whatever z is."""

    def forward(self, x, p, b, runs, train):
        return 0 * x + p["weight"][:, None, None]


def player(network: Network, runs: int) -> Player:
    start = network.initial(lambda name, shape: torch.randn(shape), 0.02).double().repeat(runs, 1)
    return Player(start, torch.zeros_like(start), torch.zeros_like(start))


def dirac(runs: list[list], steps: int) -> torch.Tensor:
    """Return the distance from the equilibrium (0, 0) after every step (steps, R)."""
    count = len(runs)
    nets = Nets(Network((Slope("psi"),), (1, 1, 1)), Network((Point("theta"),), (1, 1, 1)), "sgd", "sgd")
    stacked = lift.stack(runs, torch.float64)
    recipes = [Recipe(lr=0.05, beta1=0.0)] * count
    schedule = Schedule(recipes, stacked, steps, torch.float64, "cpu", ("sgd", "sgd"))
    batch = Batch(
        real=torch.zeros(2, count, 1, 1, 1, dtype=torch.float64),
        latents=torch.zeros(2, count, 1, dtype=torch.float64),
        noise={"between": torch.full((2, count), 0.3, dtype=torch.float64)},
    )
    state = State(player(nets.d, count), player(nets.g, count), {}, {}, {})
    path = []
    for number in range(steps):
        state, *_ = step(nets, stacked, steps, state, batch, schedule[number])
        path.append(torch.hypot(state.d.parameters, state.g.parameters).flatten())
    return torch.stack(path)


def test_the_dirac_gan_spirals_in_slowly_and_with_r1_fast():
    runs = [[], [make("r1", {"gamma": 0.3})], [make("r1", {"gamma": 1.0})]]
    path = dirac(runs, 4000)
    plain, weak, strong = path[499].tolist()
    assert plain == pytest.approx(0.53, abs=0.005)
    assert weak == pytest.approx(0.025, abs=0.001)
    assert strong < 1e-3
    assert path[1999, 1] < 1e-3
    assert path[3999, 0] == pytest.approx(0.20, abs=0.005)


def test_the_dirac_gan_circles_under_the_wasserstein_loss():
    path = dirac([[make("wasserstein", {"clip": 10.0})]], 1000)
    assert path.min() > 1.37
    assert path.max() < 1.42


def test_the_dirac_gan_stays_away_under_wgan_gp():
    path = dirac([[make("wgan_gp", {"weight": 1.0})]], 600)
    assert path[300:].min() > 1.9
    assert path[300:].max() < 2.1


SMOOTHED = [name for name in sorted(registry()) if make(name, {}).partner()]


@pytest.mark.parametrize("name", SMOOTHED)
def test_partners_have_the_same_mean_gradient_over_many_draws(name):
    trick = make(name, {})
    one, other = (mean_gradient(t) for t in (trick, make(*trick.partner())))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=0)


def mean_gradient(trick, draws: int = 300_000) -> torch.Tensor:
    """The gradient of D's loss by the weights of a linear D, real images and fakes apart, over many label draws."""
    generator = torch.Generator().manual_seed(7)
    images = 1 + torch.rand(6, 3, dtype=torch.float64, generator=generator)
    stacked, found = lift.stack([[trick]], torch.float64), []
    for hook, side, label in (("real_targets", "real", 1.0), ("fake_targets", "fake", 0.0)):
        w = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
        logits = (images @ w).repeat(draws)
        noise = torch.rand(len(logits), 1, dtype=torch.float64, generator=generator)
        around = lift.Around(torch.zeros(1), 1, {lift.key(stacked[0], hook, side): noise})
        told = lift.apply(
            stacked, hook, torch.full((len(logits), 1), label, dtype=torch.float64), around, side
        )
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, told[:, 0])
        found.append(torch.autograd.grad(loss, w)[0])
    return torch.cat(found)


def test_an_average_without_a_past_is_g_itself(tiny, images):
    runs = plan.runs(tiny("placebo:", seeds=2))
    runs = [run for run in runs if not run.tricks]
    averaged = make("ema", {"decay": 0.0})
    [*_, last] = train.train(runs[0].program, runs, images, readouts=[averaged])
    parameters, statistics = last.readouts["ema"]
    assert torch.equal(parameters, last.parameters)
    assert all(
        torch.equal(t, statistics[layer][key])
        for layer, own in last.statistics.items()
        for key, t in own.items()
    )
    assert statistics


def test_an_average_with_a_past_is_not_g(tiny, images):
    runs = [run for run in plan.runs(tiny("placebo:", seeds=1)) if not run.tricks]
    [*_, last] = train.train(runs[0].program, runs, images, readouts=[make("ema", {})])
    parameters, statistics = last.readouts["ema"]
    assert not torch.equal(parameters, last.parameters)
    assert all(
        not torch.equal(t, last.statistics[a][b]) for a, of in statistics.items() for b, t in of.items()
    )


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999])
def test_the_average_of_a_g_that_stands_still_is_that_g(decay):
    stacked = lift.stack([[make("ema", {"decay": decay})]] * 3, torch.float32)
    still = Now(torch.randn(3, 4), torch.randn(3, 50), torch.randn(3, 20), torch.zeros(3, 2, 1, 1, 1))
    axes = (Now(0, 0, 0, 0),)
    [trick] = stacked
    memory = lift.call(trick, "memory", (still,), axes, lift.Around(torch.zeros(3), 50))
    for number in range(50):
        around = lift.Around(torch.full((3,), float(number)), 50, {}, {trick.name: memory})
        memory = lift.call(trick, "remember", (still,), axes, around)
    parameters, statistics = lift.call(trick, "sampled", (memory,), (0,), around)
    assert torch.equal(parameters, still.g)
    assert torch.equal(statistics, still.statistics)


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_the_penalty_of_a_linear_d_is_half_gamma_times_its_squared_length(name):
    nets = Nets(Network((Conv("logit", 3, 1, 4, 1, 0),), (3, 4, 4)), Network((Image("made"),), (2, 1, 1)))
    stacked = lift.stack([[], [make(name, {"gamma": 0.7})]], torch.float64)
    schedule = Schedule([Recipe()] * 2, stacked, 1, torch.float64, "cpu")
    state = State(player(nets.d, 2), player(nets.g, 2), {}, {}, {})
    real = torch.rand(5, 1, 3, 4, 4, dtype=torch.float64).expand(-1, 2, -1, -1, -1)
    batch = Batch(real, torch.randn(5, 1, 2, dtype=torch.float64).expand(-1, 2, -1), {})
    _, loss, *_ = step(nets, stacked, 1, state, batch, schedule[0])
    w = state.d.parameters[0]
    torch.testing.assert_close(loss[1] - loss[0], 0.35 * w.square().sum(), rtol=1e-9, atol=1e-12)


@dataclass(frozen=True)
class Image(Layer):
    """A G whose images are its numbers times the first latent."""

    def parameters(self, std):
        return {"weight": Normal((48,), 0.0, 1.0)}

    def output(self, shape):
        return (3, 4, 4)

    def forward(self, x, p, b, runs, train):
        first = x.unflatten(1, (runs, 2))[:, :, :1]
        return (first * p["weight"].view(1, runs, 48, 1, 1)).view(len(x), runs * 3, 4, 4)
