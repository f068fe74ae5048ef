"""One step of GAN training for all runs of an array: pure, and the only place where training happens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.lift import Stacked, apply
from bench.networks import Network
from bench.schedule import AdamRow, Row


class Player(NamedTuple):
    """One network's parameters and Adam's two moments, each (R, P)."""

    parameters: Tensor
    first: Tensor
    second: Tensor


class State(NamedTuple):
    """All that training changes: both players and G's running statistics (D is never sampled, so it keeps
    none)."""

    d: Player
    g: Player
    statistics: dict[str, dict[str, Tensor]]


class Batch(NamedTuple):
    """What a step is given: real images (B, R, C, H, W) in [-1, 1], latents (B, R, length), and the tricks'
    draws.

    `noise[side]` maps a trick to its draws for real images, for fakes in D's step ("fake") and in G's ("g").
    """

    real: Tensor
    latents: Tensor
    noise: dict[str, dict[str, Tensor]]


class Nets(NamedTuple):
    """The two networks of a program."""

    d: Network
    g: Network


def step(
    nets: Nets, tricks: Sequence[Stacked], total: int, state: State, batch: Batch, row: Row
) -> tuple[State, Tensor, Tensor]:
    """Return the state after one step, and both losses (R,) as they were before their network moved."""
    runs = batch.real.shape[1]

    def logits(d: list[Tensor], images: Tensor, side: str) -> Tensor:  # (B, R)
        seen = apply(tricks, "images", images, row.step, total, batch.noise[side])
        return nets.d(d, _fold(seen), {}, runs, train=True)[0].flatten(1)

    def targets(hook: str, value: float, side: str) -> Tensor:  # (B, R)
        hard = torch.full(batch.real.shape[:2], value, dtype=batch.real.dtype, device=batch.real.device)
        return apply(tricks, hook, hard, row.step, total, batch.noise[side])

    g = _leaves(nets.g, state.g.parameters, row.g.any_open)
    fake, statistics = nets.g(
        g, batch.latents.flatten(1)[:, :, None, None], state.statistics, runs, train=True
    )
    fake = fake.unflatten(1, (runs, -1))

    d_after, d = state.d, _leaves(nets.d, state.d.parameters, True)
    loss_d = _bce(logits(d, batch.real, "real"), targets("real_targets", 1.0, "real"))
    loss_d = loss_d + _bce(logits(d, fake.detach(), "fake"), targets("fake_targets", 0.0, "fake"))
    if row.d.any_open:
        d_after = _adam(state.d, torch.autograd.grad(loss_d.sum(), d), row.d)

    if not row.g.any_open:  # D-only steps of every run: G is neither moved nor asked
        return state._replace(d=d_after), loss_d.detach(), torch.full_like(loss_d, torch.nan).detach()

    d = _leaves(nets.d, d_after.parameters, False)  # frozen: its gradients would be thrown away
    loss_g = _bce(logits(d, fake, "g"), torch.ones(batch.real.shape[:2]).to(fake))
    g_after = _adam(state.g, torch.autograd.grad(loss_g.sum(), g), row.g)
    if not row.g.all_open:
        statistics = {
            layer: {key: _where(row.g.open, new, state.statistics[layer][key]) for key, new in after.items()}
            for layer, after in statistics.items()
        }
    return State(d_after, g_after, statistics), loss_d.detach(), loss_g.detach()


def _fold(images: Tensor) -> Tensor:
    """Return (B, R, C, H, W) as (B, R*C, H, W), channels last, which the convolutions like best."""
    return images.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean over its batch; runs share nothing, so the sum over runs gives each its own
    gradient."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)


def _leaves(net: Network, flat: Tensor, wanted: bool) -> list[Tensor]:
    return [t.detach().requires_grad_(wanted) for t in net.split(flat)]


def _where(gate: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return `new` where a run's gate (R, 1) is open, else `old`, untouched even by a NaN in `new`."""
    shape = (gate.shape[0], -1)
    return torch.where(gate, new.reshape(shape), old.reshape(shape)).reshape(new.shape)


def _adam(player: Player, gradients: Sequence[Tensor], row: AdamRow) -> Player:
    """Return the player after Adam (Kingma & Ba 2015), operation for operation as torch.optim.Adam computes
    it."""
    runs = player.parameters.shape[0]
    gradient = torch.cat([g.reshape(runs, -1) for g in gradients], 1)
    first = torch.lerp(player.first, gradient, row.weight1)
    second = (player.second * row.beta2).addcmul_(gradient * row.weight2, gradient)
    moved = (row.minus_step * first).div_(second.sqrt().div_(row.root2).add_(1e-8)).add_(player.parameters)
    after = Player(moved, first, second)
    return (
        after
        if row.all_open
        else Player(*(_where(row.open, n, o) for n, o in zip(after, player, strict=True)))
    )
