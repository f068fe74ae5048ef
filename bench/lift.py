"""Hooks, written for one run, lifted over the runs of an array."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.trick import At, Trick, ordered


class Stacked(NamedTuple):
    """A trick as it stands in an array: its choices, its dials as tensors (R,), and which runs have it on."""

    cls: type[Trick]
    choices: dict[str, Any]
    dials: dict[str, Tensor]
    on: tuple[bool, ...]

    @property
    def name(self) -> str:
        """The trick's name."""
        return self.cls.name()


@dataclass(frozen=True)
class Around:
    """Where an array's hooks are called: step (R,), total steps, and every trick's draws and memory.

    noise: (B, R, ...) by "trick.hook.side"; memory: by trick, tensors (R, ...).
    """

    step: Tensor
    total: int
    noise: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def stack(runs: Sequence[Sequence[Trick]], dtype: torch.dtype, device: str = "cpu") -> tuple[Stacked, ...]:
    """Return the tricks of an array, in hook order; a run without one of them has it at its off values."""
    present = {trick.name(): trick for tricks in runs for trick in tricks}
    stacked = []
    for trick in ordered(present.values()):
        own = [next((t for t in tricks if t.name() == trick.name()), None) for tricks in runs]
        filled = [t or type(trick).off() or trick for t in own]
        dials = {
            f.name: torch.tensor([float(getattr(t, f.name)) for t in filled], dtype=dtype, device=device)
            for f in trick.dials()
        }
        choices = {name: value for name, value in trick.values.items() if name not in dials}
        stacked.append(Stacked(type(trick), choices, dials, tuple(t is not None for t in own)))
    return tuple(stacked)


def call(
    trick: Stacked, hook: str, arguments: Sequence[Any], axes: Sequence[Any], around: Around, side: str = ""
) -> Any:
    """Return what a hook makes of an array's arguments; `axes` says where each has its run axis (None: nowhere).

    The result has its run axis where the first argument has it; a dict or a tuple has it in front.
    """
    draws = around.noise.get(key(trick, hook, side))
    memory = around.memory.get(trick.name)

    def one(dials: dict[str, Tensor], step: Tensor, noise: Any, kept: Any, *own: Any) -> Any:
        made = object.__new__(
            trick.cls
        )  # unchecked: the values are tensors here, and were checked when planned
        made.__dict__.update(trick.choices, **dials)
        at = (At(step, around.total, noise, kept),) if hook not in ("memory", "sampled") else ()
        return getattr(made, hook)(*own, *at)

    places = (0, 0, None if draws is None else 1, None if memory is None else 0, *axes)
    out = axes[0] if isinstance(axes[0], int) else 0
    return torch.vmap(one, places, out_dims=out)(trick.dials, around.step, draws, memory, *arguments)


def key(trick: Stacked, hook: str, side: str) -> str:
    """Return the name of a hook's draws on one side: also the purpose of its stream."""
    return ".".join(filter(None, (trick.name, hook, side)))


def apply(tricks: Sequence[Stacked], hook: str, value: Tensor, around: Around, side: str = "") -> Tensor:
    """Return `value` (B, R, ...) after every trick's `hook`, each run with its own dials, step and noise."""
    for trick in tricks:
        if trick.cls.fills(hook):
            value = call(trick, hook, (value,), (1,), around, side)
    return value


def any_fills(tricks: Sequence[Stacked], *hooks: str) -> bool:
    """Return whether one of the tricks fills one of these hooks."""
    return any(trick.cls.fills(*hooks) for trick in tricks)
