"""Training an array from its first step to its last, stopping at the points where it is scored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from bench.engine import Captured, Eager, Taped
from bench.errors import Refused
from bench.lift import Around, Stacked, any_fills, call, stack
from bench.networks import Network
from bench.probe import held_norms, probe
from bench.program import Program, Run, held_in
from bench.schedule import Schedule
from bench.step import Player, State, now_of, remembered, unflattened
from bench.streams import LATENT_WIDTH, evaluation_labels, stream
from bench.trick import Now, Trick

CHUNK, GPU_CHUNK = 128, 512  # latents sampled at once: on a core, few enough that the maps stay in its cache
WINDOWS = 20  # losses are kept as means over this many equal parts of the budget


@dataclass(frozen=True)
class Snapshot:
    """An array at one point of its budget: G's parameters (R, P) and running statistics, and the losses so
    far.

    readouts: by read-out, other parameters and running statistics to sample the same G with. probes: bench.probe's
    figures, each (R,), at the ends of the windows.
    """

    step: int
    images: int
    parameters: Tensor
    statistics: dict[str, dict[str, Tensor]]
    losses: tuple[tuple[int, Tensor, Tensor], ...]  # (images shown, D's mean loss (R,), G's (R,)) per window
    broken: tuple[int | None, ...]  # the first step whose losses were not finite, for each run
    mode: str = "eager"  # how the steps were computed: "tape" on a CPU, "graph" on a GPU
    readouts: dict[str, tuple[Tensor, dict[str, dict[str, Tensor]]]] = field(default_factory=dict)
    probes: tuple[tuple[int, dict[str, Tensor]], ...] = ()
    probe_images: int = 0  # of each kind, in a probe


def train(
    program: Program,
    runs: Sequence[Run],
    images: Tensor,
    device: str = "cpu",
    tricks: Sequence[Stacked] | None = None,
    engine: type[Eager] | None = None,
    say: Callable[[str], None] = lambda line: None,
    labels: Tensor | None = None,
    readouts: Sequence[Trick] = (),
    held_out: tuple[Tensor, Tensor | None] | None = None,
) -> Iterator[Snapshot]:
    """Train the runs of one program together on images (N, C, H, W) uint8; yield a snapshot at every score
    point.

    What a run computes depends on its own spec alone, up to the order of floating-point sums: draws are
    float32, made on the CPU from the run's own streams. `tricks` is for tests that put a trick in at its off
    values, `engine` for those that compare engines; `say` hears of a fallback to something slower. labels (N,): for
    programs that want them. readouts: tricks that change how every run's G is sampled. held_out: images and labels
    that nothing trains on, to probe D with; without them there are no probes.
    """
    training = begin(program, runs, images, device, tricks, engine, say, labels, readouts)
    schedule = training.schedule
    total, first = schedule.total, schedule.first
    stops = {max(1, round(total * point)) for point in program.points}
    ends = {max(1, round(total * (i + 1) / WINDOWS)) for i in range(WINDOWS)}
    losses: list[tuple[int, Tensor, Tensor]] = []
    window: list[Tensor] = []  # (steps, 4, R) each: both losses, both gradients' norms
    asked: list[bool] = []  # whether G was asked for its loss at these steps
    broken: list[int | None] = [None] * len(runs)
    probes: list[tuple[int, dict[str, Tensor]]] = []
    ask = None
    if held_out is not None:
        known = None if labels is None or held_out[1] is None else (labels, held_out[1])
        ask = probe(program, runs, images, held_out[0], known, training.dtype, device)
    for start, done in pairwise(sorted({first, 0} | stops | ends)):
        told = training.advance(start, done)
        if done <= 0:
            continue
        window.append(told)
        asked += [schedule.kind(number)[2] for number in range(start, done)]
        if done in ends:
            stacked = torch.cat(window)
            mine = torch.tensor(asked, device=stacked.device)
            g_loss = stacked[:, 1][mine]
            lost = ~stacked[:, 0].isfinite()
            lost[mine] |= ~g_loss.isfinite()
            for r, bad in enumerate(lost.unbind(1)):
                if broken[r] is None and bad.any():
                    broken[r] = done - len(stacked) + int(bad.nonzero()[0])
            losses.append((done * program.batch_size, stacked[:, 0].mean(0).cpu(), g_loss.mean(0).cpu()))
            window, asked = [], []
            if ask is not None:
                found = ask(program, training.tricks, training.state, schedule[done - 1], total)
                found |= held_norms("d", stacked[:, 2].cpu()) | held_norms("g", stacked[:, 3].cpu())
                probes.append((done * program.batch_size, {key: t.cpu() for key, t in found.items()}))
        if done in stops:
            state = training.state
            statistics = {
                layer: {key: t.clone() for key, t in own.items()} for layer, own in state.statistics.items()
            }
            yield Snapshot(
                done,
                done * program.batch_size,
                state.g.parameters.clone(),
                statistics,
                tuple(losses),
                tuple(broken),
                training.mode,
                read(training),
                tuple(probes),
                len(ask) if ask is not None else 0,
            )


def read(training: Eager) -> dict[str, tuple[Tensor, dict[str, dict[str, Tensor]]]]:
    """Return what every read-out samples of an array: parameters (R, P) and running statistics."""
    state, found = training.state, {}
    for trick in training.tricks:
        if trick.cls.fills("sampled"):
            around = Around(torch.zeros(len(state.g.parameters), device=state.g.parameters.device), 0)
            parameters, flat = call(trick, "sampled", (state.memory[trick.name],), ((0),), around)
            found[trick.name] = parameters.clone(), unflattened(flat.clone(), state.statistics)
    return found


def begin(
    program: Program,
    runs: Sequence[Run],
    images: Tensor,
    device: str = "cpu",
    tricks: Sequence[Stacked] | None = None,
    engine: type[Eager] | None = None,
    say: Callable[[str], None] = lambda line: None,
    labels: Tensor | None = None,
    readouts: Sequence[Trick] = (),
) -> Eager:
    """Return the engine of an array before its first step; arguments as those of `train`."""
    dtype = getattr(torch, held_in(program.dtype))
    total = program.steps(len(images))
    if program.labelled:
        classes = min(layer.classes for net in program.nets[:2] for layer in net.layers if layer.labelled)
        if labels is None or int(labels.max()) >= classes:
            seen = "none" if labels is None else f"{int(labels.max()) + 1}"
            raise Refused(
                f"arm {runs[0].arm}: it is made for {classes} classes of images; the data has {seen}"
            )
    if tricks is None:
        tricks = stack([(*run.step_tricks, *readouts) for run in runs], dtype, device)
    nets = program.nets
    optimizers = nets.d_optimizer, nets.g_optimizer
    schedule = Schedule([run.effective for run in runs], tricks, total, dtype, device, optimizers)
    state = initial(program, runs, dtype, device)
    if any_fills(tricks, "memory"):
        state = state._replace(memory=_first_memory(program, runs, tricks, state, total, labels))
    engine = engine or (Captured if device.startswith("cuda") else Taped)
    labels = labels.to(device) if labels is not None else None
    return engine(program, runs, tricks, schedule, state, images.to(device), say, labels)


def _first_memory(program, runs, tricks, state: State, total: int, labels: Tensor | None):
    """Return the tricks' memory before the first step, when G makes a first batch of fakes."""
    held = state.g.parameters
    latents = [
        torch.randn(program.batch_size, LATENT_WIDTH, generator=stream(run.seed, "first_fakes"))
        for run in runs
    ]
    z = torch.stack(latents, 1)[..., : program.noise_length]
    of = None
    if program.labelled:
        of = torch.stack([evaluation_labels(run.seed, program.batch_size, labels) for run in runs], 1)
    fakes = sample(program.nets.g, held, {}, z, train=True, labels=of, chunk=program.batch_size)
    around = Around(torch.zeros(len(runs), dtype=held.dtype, device=held.device), total)
    now = Now(*(t.clone() for t in now_of(state, fakes)))  # what is remembered must not change with the state
    return remembered(tricks, now, around, "memory")


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
    d_statistics = {
        layer: {key: t.to(device, dtype) for key, t in own.items()}
        for layer, own in program.nets.d.statistics(len(runs), sampling=False).items()
    }
    players = player("init_d", program.nets.d), player("init_g", program.nets.g)
    return State(*players, statistics, d_statistics, {})


@torch.no_grad()
def sample(
    net: Network,
    parameters: Tensor,
    statistics: dict[str, dict[str, Tensor]],
    latents: Tensor,
    train: bool = False,
    chunk: int | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Return the images (n, R, C, H, W) in [-1, 1] of R generators at latents (n, R, length) and labels (n, R).

    BatchNorm uses its running statistics, or with `train` those of each of nearly equal parts, of `chunk` images or a
    few more. Without `train`, `chunk` is a matter of speed.
    """
    runs, weights, parts = parameters.shape[0], net.split(parameters), []
    chunk = chunk or (CHUNK if parameters.device.type == "cpu" else GPU_CHUNK)
    if train:
        averaged = {layer.name for layer in net.layers if layer.for_sampling}
        statistics = {name: own for name, own in statistics.items() if name not in averaged}
    cuts = max(1, len(latents) // chunk if train else -(-len(latents) // chunk))
    given = labels.to(parameters.device).tensor_split(cuts) if labels is not None else [None] * cuts
    for z, of in zip(latents.to(parameters).tensor_split(cuts), given, strict=True):
        made, _ = net(weights, z.flatten(1)[:, :, None, None], statistics, runs, train, labels=of)
        parts.append(made.unflatten(1, (runs, -1)))
    return torch.cat(parts) if len(parts) > 1 else parts[0]
