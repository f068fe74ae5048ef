"""Hooks, written for one run, lifted over the runs of an array."""

from collections.abc import Callable, Sequence
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


def stack(runs: Sequence[Sequence[Trick]], dtype: torch.dtype, device: str = "cpu") -> tuple[Stacked, ...]:
    """Return the dial tricks of an array, in hook order; a run without one of them has it at its off
    values."""
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


def fills(trick: Stacked, hook: str) -> bool:
    """Return whether the trick fills this hook."""
    return hook in vars(trick.cls)


def lifted(trick: Stacked, hook: str, total: int) -> Callable[[Any, Any, Any, Any], Any]:
    """Return the hook as a function of one run's (dials, value, step, noise)."""

    def one(dials: dict[str, Tensor], value: Any, step: Tensor, noise: Tensor | None) -> Any:
        own = object.__new__(
            trick.cls
        )  # unchecked: the values are tensors here, and were checked when planned
        own.__dict__.update(trick.choices, **dials)
        return getattr(own, hook)(value, At(step, total, noise))

    return one


def apply(
    tricks: Sequence[Stacked],
    hook: str,
    value: Tensor,
    step: Tensor,
    total: int,
    noise: dict[str, Tensor],
) -> Tensor:
    """Return `value` (B, R, ...) after every trick's `hook`, each run with its own dials, step and noise."""
    for trick in tricks:
        if fills(trick, hook):
            draws = noise.get(trick.cls.name())
            dims = (0, 1, 0, 1 if draws is not None else None)
            value = torch.vmap(lifted(trick, hook, total), dims, out_dims=1)(trick.dials, value, step, draws)
    return value
