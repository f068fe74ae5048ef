"""How the steps of an array are carried out: by Python, as a list recorded once, or captured as a CUDA graph."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lift import Stacked, key
from bench.program import Program, Run, held_in
from bench.schedule import Row, Schedule
from bench.step import Batch, Player, State, step
from bench.streams import LATENT_WIDTH, Streams
from bench.tape import Tape, Unrecordable, record

SIDES = {  # where a hook with noise is called, each time with draws of its own
    "real_images": ("real",),
    "fake_images": ("fake",),
    "images": ("real", "fake", "g"),
    "d_maps": ("real", "fake", "g"),
    "g_maps": ("made",),
    "real_targets": ("real",),
    "fake_targets": ("fake",),
    "remember": ("",),
}
CHUNK = 32  # steps whose draws are made and sent to the GPU at once


class Drawn(NamedTuple):
    """What one run draws for a step, on the CPU: indices (B,), latents (B, length), all else by purpose (B, ...)."""

    indices: Tensor
    latents: Tensor
    noise: dict[str, Tensor]


def draw(program: Program, tricks: Sequence[Stacked], streams: Sequence[Streams], images: Tensor) -> Drawn:
    """Return what all runs draw for their next step (B, R, ...), zeros where one draws nothing."""
    shapes = dict(_shapes(program, tricks))
    drawn = [draw_one(program, tricks, r, own, images) for r, own in enumerate(streams)]
    for one in drawn:
        one.noise.update(
            {name: torch.zeros(shape) for name, shape in shapes.items() if name not in one.noise}
        )
    return joined(drawn, 1)


def draw_one(program: Program, tricks: Sequence[Stacked], r: int, streams: Streams, images: Tensor) -> Drawn:
    """Return what run `r` of an array draws for its next step; it draws nothing for a trick that it has off."""
    size = program.batch_size
    indices = streams.indices(len(images), size)
    latents = streams.draw("normal", "latents", (size, LATENT_WIDTH))[:, : program.noise_length]
    noise: dict[str, Tensor] = {}
    for trick in tricks:
        if trick.on[r]:
            noise |= {
                name: streams.draw(trick.cls.noise, name, shape) for name, shape in noises(program, trick)
            }
    if any("between" in trick.cls.penalty_at for trick in tricks):
        noise["between"] = streams.draw("uniform", "between", (size,))
    if program.labelled:
        noise["fake_labels"] = streams.draw("uniform", "fake_labels", (size,))
    return Drawn(indices, latents, noise)


def _shapes(program: Program, tricks: Sequence[Stacked]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the purpose and the shape of every draw that some tricks ask for in a step of one run."""
    for trick in tricks:
        yield from noises(program, trick)


def noises(program: Program, trick: Stacked) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the purpose and the shape of every draw that a trick asks for in a step of one run."""
    if not trick.cls.noise:
        return
    batch, image = program.batch_size, program.nets.d.shape
    for hook, sides in SIDES.items():
        if not trick.cls.fills(hook):
            continue
        if hook in ("d_maps", "g_maps"):
            for layer, shape in (program.nets.d if hook == "d_maps" else program.nets.g).hidden().items():
                yield from ((key(trick, hook, f"{side}.{layer}"), (batch, *shape)) for side in sides)
            continue
        each = (trick.cls.draws,) if trick.cls.draws else image if hook.endswith("images") else ()
        yield from ((key(trick, hook, side), (batch, *each)) for side in sides)


def joined(drawn: Sequence[Drawn], axis: int) -> Drawn:
    """Return draws stacked along a new axis."""
    noise = {name: torch.stack([d.noise[name] for d in drawn], axis) for name in drawn[0].noise}
    indices = torch.stack([d.indices for d in drawn], axis)
    return Drawn(indices, torch.stack([d.latents for d in drawn], axis), noise)


def batch_of(drawn: Drawn, images: Tensor, dtype: torch.dtype, labels: Tensor | None = None) -> Batch:
    """Return the batch of a step from draws (B, R, ...), images (N, C, H, W) uint8 and their labels (N,), on the
    images' device.

    Fakes are given labels of real images drawn at random, so that both kinds have the data's shares.
    """
    indices = drawn.indices.to(images.device)
    real = images[indices].to(dtype).div_(127.5).sub_(1)
    noise = {name: t.to(images.device, dtype) for name, t in drawn.noise.items()}
    both = None
    if labels is not None and "fake_labels" in noise:
        both = labels[indices], labels[(drawn.noise["fake_labels"].to(labels.device) * len(labels)).long()]
    return Batch(real, drawn.latents.to(images.device, dtype), noise, both)


class Eager:
    """Steps one after another, as Python meets them."""

    mode = "eager"

    def __init__(
        self,
        program: Program,
        runs: Sequence[Run],
        tricks: Sequence[Stacked],
        schedule: Schedule,
        state: State,
        images: Tensor,
        say: Callable[[str], None],
        labels: Tensor | None = None,
    ) -> None:
        self.program, self.tricks, self.schedule, self.images = program, tricks, schedule, images
        self.labels = labels
        self.say = say
        self.state = state
        self.dtype = getattr(torch, held_in(program.dtype))
        self._streams = {name: [Streams(run.seed, name) for run in runs] for name in ("prelude", "training")}

    def advance(self, start: int, end: int) -> Tensor:
        """Take the steps from `start` to before `end`, all negative or none; return both losses and both gradients'
        norms (steps, 4, R)."""
        told = []
        for number in range(start, end):
            drawn = draw(self.program, self.tricks, self.streams(number), self.images)
            batch = batch_of(drawn, self.images, self.dtype, self.labels)
            self.state, *numbers = self.step(self.state, batch, self.schedule[number])
            told.append(torch.stack(numbers))
        return torch.stack(told)

    def streams(self, number: int) -> list[Streams]:
        """Return the streams of all runs at a step: the D-only steps have their own."""
        return self._streams["training" if number >= 0 else "prelude"]

    def step(self, state: State, batch: Batch, row: Row) -> tuple[State, Tensor, Tensor, Tensor, Tensor]:
        """Return the next state, both losses and both gradients' norms."""
        return step(self.program.nets, self.tricks, self.schedule.total, state, batch, row)


class Taped(Eager):
    """A step recorded once for each kind of row as a list of operations, and replayed: the same numbers, without what
    Python does around them.

    The second step of a kind is computed both ways. Where a number differs, or a step cannot be recorded, all are
    computed as Eager does, and a word says so.
    """

    mode = "tape"

    def __init__(self, program, runs, tricks, schedule, state, images, say, labels=None) -> None:
        super().__init__(program, runs, tricks, schedule, state, images, say, labels)
        self._tapes: dict[tuple, Tape] = {}
        self._checked: set[tuple] = set()

    def step(self, state: State, batch: Batch, row: Row) -> tuple[State, Tensor, Tensor, Tensor, Tensor]:
        """Return the next state, both losses and both gradients' norms."""
        if self.mode == "eager":
            return super().step(state, batch, row)
        given = [
            *_state_leaves(state),
            batch.real,
            batch.latents,
            *batch.noise.values(),
            *(batch.labels or ()),
        ]
        given += [row.step, *row.d.tensors, *row.g.tensors]
        kind = row.d.any_open, row.d.all_open, row.g.any_open, row.g.all_open, *batch.noise
        kind += tuple((t.shape, t.stride()) for t in given)
        if kind in self._checked:
            with torch.no_grad():
                return _state_of(state, self._tapes[kind](given))
        if kind not in self._tapes:
            try:
                made, self._tapes[kind] = record(
                    lambda: _flat(super(Taped, self).step(state, batch, row)), given
                )
                return _state_of(state, made)
            except Unrecordable as error:
                return self._eager(state, batch, row, str(error))
        with torch.no_grad():
            replayed = self._tapes[kind](given)
        after = super().step(state, batch, row)
        if not all(map(_same, replayed, _flat(after))):
            return self._eager(state, batch, row, "a replay gives other numbers")
        self._checked.add(kind)
        return after

    def _eager(self, state: State, batch: Batch, row: Row, reason: str):
        """Compute this step and all others as Eager does."""
        self.mode = "eager"
        self._tapes.clear()
        self.say(f"the step cannot be replayed ({reason}); it is computed by Python each time, slower")
        return super().step(state, batch, row)


class Captured(Eager):
    """A whole step captured as one CUDA graph for each kind of row, and replayed: no word with the host inside.

    Draws are made on the CPU, run by run as ever, for a chunk of steps while the GPU computes the last one; the graph
    finds its step's draws and row by a counter on the device. On a CPU the step is called instead of replayed: the
    same buffers, for tests; and so it is, with a word, where CUDA refuses the capture.
    """

    mode = "graph"

    def __init__(self, program, runs, tricks, schedule, state, images, say, labels=None) -> None:
        super().__init__(program, runs, tricks, schedule, state, images, say, labels)
        self._capturing = images.is_cuda
        self._graphs: dict[tuple[bool, ...], torch.cuda.CUDAGraph] = {}
        self._rows = schedule.table
        self._counter = torch.zeros(1, dtype=torch.int64, device=images.device)  # step within the chunk
        self._first = torch.zeros(1, dtype=torch.int64, device=images.device)  # row of the chunk's first step
        self._buffer: Drawn | None = None
        self._told = torch.zeros(CHUNK, 4, len(runs), dtype=self.dtype, device=images.device)
        self._pool = ThreadPoolExecutor(min(8, len(runs))) if images.is_cuda else None

    def advance(self, start: int, end: int) -> Tensor:
        """Take the steps from `start` to before `end`, all negative or none; return both losses and both gradients'
        norms (steps, 4, R)."""
        parts = []
        for a in range(start, end, CHUNK):
            b = min(a + CHUNK, end)
            self._fill(self._chunk(a, b))
            self._first.fill_(a - self.schedule.first)
            self._counter.zero_()
            for number in range(a, b):
                self._replay(self.schedule.kind(number))
            parts.append(self._told[: b - a].clone())
        return torch.cat(parts)

    def _chunk(self, a: int, b: int) -> list[Drawn]:
        """Return what each run draws in a chunk (steps, B, ...), in memory that a GPU can fetch from by itself."""
        each = self._pool.map if self._pool else map
        streams, cuda = self.streams(a), self.images.is_cuda

        def of(r: int) -> Drawn:
            own = (draw_one(self.program, self.tricks, r, streams[r], self.images) for _ in range(a, b))
            drawn = joined(list(own), 0)
            return _map(Tensor.pin_memory, drawn) if cuda else drawn

        return list(each(of, range(len(streams))))

    def _fill(self, drawn: Sequence[Drawn]) -> None:
        """Put a chunk's draws into the buffer, where what a run does not draw stays 0 and is never sent."""
        if self._buffer is None:
            shapes = dict(_shapes(self.program, self.tricks))
            empty = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
            self._buffer = _map(self._room, drawn[0]._replace(noise=empty | drawn[0].noise))
        for r, own in enumerate(drawn):
            room = self._buffer._replace(noise={name: self._buffer.noise[name] for name in own.noise})
            for to, of in zip(_leaves(room), _leaves(own), strict=True):
                to[: len(of), :, r].copy_(of, non_blocking=True)

    def _room(self, like: Tensor) -> Tensor:
        """Return zeros (CHUNK, B, R, ...) for draws like these (steps, B, ...)."""
        shape = CHUNK, like.shape[1], len(self._streams["training"]), *like.shape[2:]
        return torch.zeros(shape, dtype=like.dtype, device=self.images.device)

    def _replay(self, kind: tuple[bool, ...]) -> None:
        if self._capturing and kind not in self._graphs:
            try:
                self._graphs[kind] = self._capture(kind)
            except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
                self._capturing, self.mode = False, "eager"
                reason = " ".join(str(error).split())[:120]
                self.say(f"CUDA did not capture the step ({reason}); steps are computed one by one, slowly")
        if self._capturing:
            self._graphs[kind].replay()
        else:
            self._write(kind)

    def _capture(self, kind: tuple[bool, ...]) -> torch.cuda.CUDAGraph:
        """Return the graph of a step; what the warm-up steps changed is put back."""
        changing = [*_state_leaves(self.state), self._counter, self._told]
        kept = [t.clone() for t in changing]
        try:
            stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._write(kind)
                    self._counter.zero_()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                self._write(kind)
        finally:
            for to, of in zip(changing, kept, strict=True):
                to.copy_(of)
        return graph

    def _write(self, kind: tuple[bool, ...]) -> None:
        """Compute the counter's step, write state and numbers where they lie, and count."""
        assert self._buffer is not None
        drawn = _map(lambda t: t.index_select(0, self._counter)[0], self._buffer)
        row = self._rows.row(self._first + self._counter, kind)
        after, *numbers = self.step(self.state, batch_of(drawn, self.images, self.dtype, self.labels), row)
        for to, of in zip(_state_leaves(self.state), _state_leaves(after), strict=True):
            if to is not of:
                to.copy_(of)
        self._told.index_copy_(0, self._counter, torch.stack(numbers)[None])
        self._counter += 1


def _map(function, drawn: Drawn) -> Drawn:
    noise = {name: function(t) for name, t in drawn.noise.items()}
    return Drawn(function(drawn.indices), function(drawn.latents), noise)


def _leaves(drawn: Drawn) -> list[Tensor]:
    return [drawn.indices, drawn.latents, *drawn.noise.values()]


def _flat(after: tuple[State, Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
    return [*_state_leaves(after[0]), *after[1:]]


def _state_of(like: State, flat: Sequence[Tensor]) -> tuple[State, Tensor, Tensor, Tensor, Tensor]:
    """Return what `_flat` was given; `like` is a state of the same names."""
    leaves = iter(flat)
    players = [Player(next(leaves), next(leaves), next(leaves)) for _ in range(2)]
    kept = [
        {name: {key: next(leaves) for key in own} for name, own in of.items()}
        for of in (like.statistics, like.d_statistics, like.memory)
    ]
    return State(*players, *kept), *leaves


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same numbers in the same places, NaN where the other is NaN."""
    return (a.shape, a.stride()) == (b.shape, b.stride()) and torch.allclose(
        a, b, rtol=0, atol=0, equal_nan=True
    )


def _state_leaves(state: State) -> list[Tensor]:
    kept = (state.statistics, state.d_statistics, state.memory)
    return [*state.d, *state.g, *(t for of in kept for own in of.values() for t in own.values())]
