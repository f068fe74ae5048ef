"""Training an array from its first step to its last, stopping at the points where it is scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.lift import Stacked, fills, stack
from bench.networks import Network
from bench.program import Program, Run, held_in
from bench.schedule import Schedule
from bench.step import Batch, Player, State, step
from bench.streams import LATENT_WIDTH, Streams, stream

WINDOWS = 20  # losses are kept as means over this many equal parts of the budget
SIDES = {"images": ("real", "fake", "g"), "real_targets": ("real",), "fake_targets": ("fake",)}


@dataclass(frozen=True)
class Snapshot:
    """An array at one point of its budget: G's parameters (R, P) and running statistics, and the losses so
    far."""

    step: int
    images: int
    parameters: Tensor
    statistics: dict[str, dict[str, Tensor]]
    losses: tuple[tuple[int, Tensor, Tensor], ...]  # (images shown, D's mean loss (R,), G's (R,)) per window
    broken: tuple[int | None, ...]  # the first step whose losses were not finite, for each run


def train(
    program: Program,
    runs: Sequence[Run],
    images: Tensor,
    device: str = "cpu",
    tricks: Sequence[Stacked] | None = None,
) -> Iterator[Snapshot]:
    """Train the runs of one program together on images (N, C, H, W) uint8; yield a snapshot at every score
    point.

    What a run computes depends on its own spec alone, up to the order of floating-point sums: draws are
    float32, made on the CPU from the run's own streams. `tricks` is for tests that put a trick in at its off
    values.
    """
    dtype = getattr(torch, held_in(program.dtype))
    total = program.budget.steps(program.batch_size, len(images))
    recipes = [run.effective for run in runs]
    if tricks is None:
        tricks = stack([run.dial_tricks for run in runs], dtype, device)
    schedule = Schedule(recipes, tricks, total, dtype, device)
    phases = {name: [Streams(run.seed, name) for run in runs] for name in ("prelude", "training")}
    state = initial(program, runs, dtype, device)
    stops = {max(1, round(total * point)): point for point in program.points}
    ends = {max(1, round(total * (i + 1) / WINDOWS)) for i in range(WINDOWS)}
    images = images.to(device)
    losses: list[tuple[int, Tensor, Tensor]] = []
    window: list[Tensor] = []
    broken: list[int | None] = [None] * len(runs)
    for number in range(schedule.first, total):
        streams = phases["training" if number >= 0 else "prelude"]
        batch = draw(program, runs, tricks, streams, images, dtype)
        state, *both = step(program.nets, tricks, total, state, batch, schedule[number])
        if number < 0:
            continue
        window.append(torch.stack(both))
        done = number + 1
        if done in ends:
            stacked = torch.stack(window)  # (steps, 2, R)
            for r, bad in enumerate((~stacked.isfinite()).any(1).unbind(1)):
                if broken[r] is None and bad.any():
                    broken[r] = done - len(window) + int(bad.nonzero()[0])
            losses.append((done * program.batch_size, *stacked.mean(0).cpu().unbind(0)))
            window = []
        if done in stops:
            yield Snapshot(
                done,
                done * program.batch_size,
                state.g.parameters,
                state.statistics,
                tuple(losses),
                tuple(broken),
            )


def initial(program: Program, runs: Sequence[Run], dtype: torch.dtype, device: str) -> State:
    """Return the state before the first step; a run's weights depend on its seed and the layers' names
    alone."""

    def player(purpose: str, net: Network) -> Player:
        rows = [
            net.initial(
                lambda name, shape, run=run: torch.randn(shape, generator=stream(run.seed, purpose, name)),
                run.effective.init_std,
            )
            for run in runs
        ]
        parameters = torch.stack(rows).to(device, dtype)
        return Player(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters))

    statistics = {
        layer: {key: t.to(device, dtype) for key, t in own.items()}
        for layer, own in program.nets.g.statistics(len(runs)).items()
    }
    return State(player("init_d", program.nets.d), player("init_g", program.nets.g), statistics)


def draw(
    program: Program,
    runs: Sequence[Run],
    tricks: Sequence[Stacked],
    streams: Sequence[Streams],
    images: Tensor,
    dtype: torch.dtype,
) -> Batch:
    """Return the next batch of every run; a run that has a trick off draws nothing for it."""
    size, device = program.batch_size, images.device
    index = torch.stack([s.indices(len(images), size) for s in streams], 1).to(device)  # (B, R)
    real = images[index].to(dtype).div_(127.5).sub_(1)
    wide = [s.draw("normal", "latents", (size, LATENT_WIDTH)) for s in streams]
    latents = torch.stack(wide, 1)[:, :, : program.noise_length].to(device, dtype)
    noise: dict[str, dict[str, Tensor]] = {"real": {}, "fake": {}, "g": {}}
    for trick in tricks:
        for hook, sides in SIDES.items():
            if not trick.cls.noise or not fills(trick, hook):
                continue
            shape = (size, *images.shape[1:]) if hook == "images" else (size,)
            name = trick.cls.name()
            for side in sides:
                draws = [
                    s.draw(trick.cls.noise, f"{name}.{hook}.{side}", shape) if on else torch.zeros(shape)
                    for s, on in zip(streams, trick.on, strict=True)
                ]
                noise[side][name] = torch.stack(draws, 1).to(device, dtype)
    return Batch(real, latents, noise)


@torch.no_grad()
def sample(
    net: Network,
    parameters: Tensor,
    statistics: dict[str, dict[str, Tensor]],
    latents: Tensor,
    train: bool = False,
    chunk: int = 512,
) -> Tensor:
    """Return the images (n, R, C, H, W) in [-1, 1] of R generators at latents (n, R, length).

    BatchNorm uses its running statistics, or with `train` those of each chunk.
    """
    runs, weights = parameters.shape[0], net.split(parameters)
    parts = []
    for z in latents.to(parameters).split(chunk):
        made, _ = net(weights, z.flatten(1)[:, :, None, None], {} if train else statistics, runs, train)
        parts.append(made.unflatten(1, (runs, -1)))
    return torch.cat(parts)
