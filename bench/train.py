"""Training an array from its first step to its last, stopping at the points where it is scored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.engine import Captured, Eager
from bench.lift import Stacked, stack
from bench.networks import Network
from bench.program import Program, Run, held_in
from bench.schedule import Schedule
from bench.step import Player, State
from bench.streams import stream

WINDOWS = 20  # losses are kept as means over this many equal parts of the budget


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
    mode: str = "eager"  # how the steps were computed; "graph" where they were captured


def train(
    program: Program,
    runs: Sequence[Run],
    images: Tensor,
    device: str = "cpu",
    tricks: Sequence[Stacked] | None = None,
    engine: type[Eager] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Snapshot]:
    """Train the runs of one program together on images (N, C, H, W) uint8; yield a snapshot at every score
    point.

    What a run computes depends on its own spec alone, up to the order of floating-point sums: draws are
    float32, made on the CPU from the run's own streams. `tricks` is for tests that put a trick in at its off
    values, `engine` for those that compare engines; `say` hears of a
    fallback to something slower.
    """
    training = begin(program, runs, images, device, tricks, engine, say)
    total, first = training.schedule.total, training.schedule.first
    stops = {max(1, round(total * point)) for point in program.points}
    ends = {max(1, round(total * (i + 1) / WINDOWS)) for i in range(WINDOWS)}
    losses: list[tuple[int, Tensor, Tensor]] = []
    window: list[Tensor] = []  # (steps, 2, R) each
    broken: list[int | None] = [None] * len(runs)
    for start, done in pairwise(sorted({first, 0} | stops | ends)):
        both = training.advance(start, done)
        if done <= 0:
            continue
        window.append(both)
        if done in ends:
            stacked = torch.cat(window)
            for r, bad in enumerate((~stacked.isfinite()).any(1).unbind(1)):
                if broken[r] is None and bad.any():
                    broken[r] = done - len(stacked) + int(bad.nonzero()[0])
            losses.append((done * program.batch_size, *stacked.mean(0).cpu().unbind(0)))
            window = []
        if done in stops:
            statistics = {
                layer: {key: t.clone() for key, t in own.items()}
                for layer, own in training.state.statistics.items()
            }
            yield Snapshot(
                done,
                done * program.batch_size,
                training.state.g.parameters.clone(),
                statistics,
                tuple(losses),
                tuple(broken),
                training.mode,
            )


def begin(
    program: Program,
    runs: Sequence[Run],
    images: Tensor,
    device: str = "cpu",
    tricks: Sequence[Stacked] | None = None,
    engine: type[Eager] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Eager:
    """Return the engine of an array before its first step; arguments as those of `train`."""
    dtype = getattr(torch, held_in(program.dtype))
    total = program.budget.steps(program.batch_size, len(images))
    if tricks is None:
        tricks = stack([run.dial_tricks for run in runs], dtype, device)
    schedule = Schedule([run.effective for run in runs], tricks, total, dtype, device)
    state = initial(program, runs, dtype, device)
    engine = engine or (Captured if device.startswith("cuda") else Eager)
    return engine(program, runs, tricks, schedule, state, images.to(device), say)


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
