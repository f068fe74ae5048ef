"""What is known of every step before the first: who moves, and Adam's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lift import Around, Stacked, call
from bench.recipe import Recipe
from bench.trick import Adam, Gates, Optim

PRELUDE = 10_000  # the longest stretch of D-only steps that a gate may open


@dataclass(frozen=True)
class AdamRow:
    """The optimiser's numbers at one step, each (R, 1); `open` is the gate. Without Adam's corrections where it is
    another."""

    open: Tensor
    weight1: Tensor  # 1 - beta1
    beta2: Tensor
    weight2: Tensor  # 1 - beta2
    minus_step: Tensor  # - lr / (1 - beta1^t)
    root2: Tensor  # sqrt(1 - beta2^t)
    any_open: bool
    all_open: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in their order."""
        return self.open, self.weight1, self.beta2, self.weight2, self.minus_step, self.root2


@dataclass(frozen=True)
class Row:
    """One step of the schedule: its number (R,) and both networks' Adam."""

    step: Tensor
    d: AdamRow
    g: AdamRow


class Schedule:
    """The rows from the first open gate to the last step, made from the tricks' `gates` and `optim` hooks.

    Bias corrections count a network's own updates, are computed in double precision exactly as
    torch.optim.Adam does, and only then take the array's dtype.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        tricks: Sequence[Stacked],
        total: int,
        dtype: torch.dtype,
        device: str,
        optimizers: tuple[str, str] = ("adam", "adam"),
    ) -> None:
        self.total, self.dtype, self.device = total, dtype, device
        self._runs = runs = len(recipes)
        double = [
            s._replace(dials={k: t.to("cpu", torch.float64) for k, t in s.dials.items()}) for s in tricks
        ]
        steps = torch.arange(-PRELUDE, total, dtype=torch.float64)
        gates = Gates(d=(steps >= 0).expand(runs, -1), g=(steps >= 0).expand(runs, -1))
        gates = _over_steps(double, "gates", gates, steps, total, runs)
        open_ = (gates.d | gates.g).any(0)
        self.first = int(steps[int(open_.nonzero()[0])])
        kept = slice(self.first + PRELUDE, None)
        steps = steps[kept]
        base = Adam(*(_each(recipes, name, len(steps)) for name in ("lr", "beta1", "beta2")))
        settings = _over_steps(double, "optim", Optim(d=base, g=base), steps, total, runs)
        d = _corrected(gates.d[:, kept], settings.d, optimizers[0])
        g = _corrected(gates.g[:, kept], settings.g, optimizers[1])
        opens = [f(t[0]).tolist() for t in (d, g) for f in (lambda o: o.any(0), lambda o: o.all(0))]
        self._kinds = list(zip(*opens, strict=True))
        steps = steps.to(device, dtype)
        self.table = Table(steps, *(tuple(map(self._on_device, player)) for player in (d, g)))

    def _on_device(self, numbers: Tensor) -> Tensor:
        """Return (R, steps) numbers or gates as (steps, R, 1) in the array's dtype, sharing memory with nothing: what
        shares it would be one input of a recorded step."""
        dtype = numbers.dtype if numbers.dtype == torch.bool else self.dtype
        return torch.empty(*numbers.T.shape, 1, dtype=dtype, device=self.device).copy_(numbers.T[..., None])

    def __getitem__(self, number: int) -> Row:
        at = number - self.first
        step = torch.full((self._runs,), float(number), dtype=self.dtype, device=self.device)
        d, g = (
            AdamRow(*(t[at] for t in player), *open_)
            for player, open_ in zip(self.table[1:], _halves(self.kind(number)), strict=True)
        )
        return Row(step, d, g)

    def kind(self, number: int) -> tuple[bool, ...]:
        """Return whether any and all runs of D, and any and all of G, move at a step."""
        at = number - self.first
        return self._kinds[at]


class Table(NamedTuple):
    """The schedule as tensors on a device, for a step that finds its row there: step (steps,), others (steps, R, 1)."""

    steps: Tensor
    d: tuple[Tensor, ...]
    g: tuple[Tensor, ...]

    def row(self, at: Tensor, kind: tuple[bool, ...]) -> Row:
        """Return the row at a place (1,) in the table; `kind` is that of its step."""
        d, g = (
            AdamRow(*(t.index_select(0, at)[0] for t in table), *open_)
            for table, open_ in zip((self.d, self.g), _halves(kind), strict=True)
        )
        return Row(self.steps.index_select(0, at).expand(len(d.open)), d, g)


def _halves(kind: tuple[bool, ...]) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    return kind[:2], kind[2:]


def _each(recipes: Sequence[Recipe], name: str, steps: int) -> Tensor:
    return torch.tensor([[getattr(r, name)] for r in recipes], dtype=torch.float64).expand(-1, steps)


def _over_steps(
    tricks: Sequence[Stacked], hook: str, value: tuple, steps: Tensor, total: int, runs: int
) -> tuple:
    """Return gates or settings (R, steps) after every trick's hook, which is written for one step of one run."""
    for trick in tricks:
        if trick.cls.fills(hook):
            # Every run at every step is a run of an array of its own.
            wide = trick._replace(dials={k: t.repeat_interleave(len(steps)) for k, t in trick.dials.items()})
            flat = torch.utils._pytree.tree_map(lambda t: t.reshape(-1), value)
            made = call(wide, hook, (flat,), (0,), Around(steps.repeat(runs), total))
            value = torch.utils._pytree.tree_map(lambda t: t.unflatten(0, (runs, -1)), made)
    return value


def _corrected(gate: Tensor, adam: Adam, optimizer: str) -> tuple[Tensor, ...]:
    """Return (gate, 1 - beta1, beta2, 1 - beta2, -lr / (1 - beta1^t), sqrt(1 - beta2^t)), each (R, steps).

    The powers, which are Adam's bias corrections, are left out of the other optimisers'.
    """
    if optimizer != "adam":
        return (gate, 1 - adam.beta1, adam.beta2, 1 - adam.beta2, -adam.lr, torch.ones_like(adam.lr))
    counts = gate.cumsum(1).clamp(min=1)
    # Python's own power and root, number by number: torch's vectorised pow differs in the last bit now and then,
    # and training amplifies a last bit tenfold every ten steps.
    rows = zip(*(t.flatten().tolist() for t in (counts, *adam)), strict=True)
    numbers = [
        (1 - beta1, beta2, 1 - beta2, -(lr / (1 - beta1**t)), (1 - beta2**t) ** 0.5)
        for t, lr, beta1, beta2 in rows
    ]
    table = torch.tensor(numbers, dtype=torch.float64).reshape(*gate.shape, 5)
    return (gate, *table.unbind(-1))
