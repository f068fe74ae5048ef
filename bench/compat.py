"""Which tricks go together: what an arm cannot be, and what in an arm does nothing.

A trick's `requires`, `conflicts` and `inert_if` name other tricks or facts (bench.trick.FACTS). Facts about the tables
of layers need a program, and so torch; the others are known from the arm's names and the data set alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.data import SETS
from bench.spec import DataSpec
from bench.trick import FACTS, Trick

if TYPE_CHECKING:  # it imports torch
    from bench.grid import Grid
    from bench.step import Nets


class Problem(NamedTuple):
    """What is wrong with an arm: the trick that says so, and the rest of the sentence."""

    trick: str
    text: str


def impossible(tricks: Sequence[Trick], data: DataSpec, nets: "Nets | None" = None) -> Problem | None:
    """Return why an arm cannot be, or None; without `nets`, of what is known without building its networks."""
    for trick in tricks:
        for key, why in trick.conflicts.items():
            if _holds(key, trick, tricks, data, nets):
                return _problem(trick, f"conflicts with {_named(key, trick, tricks)}: {why}")
        met = [_holds(key, trick, tricks, data, nets) for key in trick.requires]
        if met and not any(known or known is None for known in met):
            wanted = " or ".join(key if key not in FACTS else f"that {FACTS[key]}" for key in trick.requires)
            whys = "; ".join(dict.fromkeys(trick.requires.values()))
            return _problem(trick, f"requires {wanted}, which is not so here: {whys}")
    if nets is not None and (few := _too_few_classes(tricks, data, nets)):
        return few
    losses = [trick for trick in tricks if trick.loss]
    if len(losses) > 1:
        one, other = losses[:2]
        why = f"one puts {other.loss} in the place of the loss, the other {one.loss}; take one of them"
        return _problem(other, f"conflicts with {one.name()}: {why}")
    return None


def _too_few_classes(tricks: Sequence[Trick], data: DataSpec, nets: "Nets") -> Problem | None:
    """Return the trick whose networks are told of fewer classes than the data has."""
    there = len(data.classes or SETS[data.set].class_names)
    least = min((layer.classes for net in nets[:2] for layer in net.layers if layer.labelled), default=there)
    if least >= there:
        return None
    trick = next((trick for trick in tricks if trick.values.get("classes") == least), tricks[0])
    return _problem(trick, f"is made for {least} classes, and the data has {there}")


def pointless(tricks: Sequence[Trick], data: DataSpec, nets: "Nets | None" = None) -> Iterator[Problem]:
    """Yield what in an arm does nothing, and why."""
    for trick in tricks:
        for key, why in trick.inert_if.items():
            if _holds(key, trick, tricks, data, nets):
                yield _problem(trick, f"does nothing, given {_named(key, trick, tricks)}: {why}")


def warnings(grid: "Grid") -> list[str]:
    """Return a line for every trick that does nothing in arms of a grid, and why; builds each arm's networks."""
    from bench.plan import first_runs

    said: dict[tuple[str, str], list[str]] = {}
    for arm, run in first_runs(grid):
        for found in pointless(arm.tricks, grid.data, run.program.nets):
            said.setdefault((grid.where(arm, found.trick), found.text), []).append(arm.name)
    return [f"{where}: warning: {arms(names)}: {text}" for (where, text), names in said.items()]


def arms(names: Sequence[str]) -> str:
    """Return arms for a sentence, the first few of many."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"arm{'s' * (len(names) > 1)} {', '.join(names[:3])}{more}"


def _problem(trick: Trick, text: str) -> Problem:
    return Problem(trick.name(), f"{trick.name()} {text}")


def _named(key: str, trick: Trick | None = None, tricks: Sequence[Trick] = ()) -> str:
    """Return a trick's name, or a fact in words; where another trick's loss makes the fact, that trick's name too."""
    if key not in FACTS:
        return key
    makers = [other.name() for other in tricks if key == OTHER_LOSS and other.loss and other is not trick]
    return f"{makers[0]} ({FACTS[key]})" if makers else f"the fact that {FACTS[key]}"


OTHER_LOSS, NO_LABELS = "other_loss", "no_labels"


def _batch_norm(nets: "Nets", player: str) -> bool:
    from bench.networks import BatchNorm

    return any(isinstance(layer, BatchNorm) for layer in getattr(nets, player).layers)


IN_TABLES: dict[str, Callable[["Nets"], bool]] = {
    "batch_norm_in_d": lambda nets: _batch_norm(nets, "d"),
    "no_batch_norm_in_g": lambda nets: not _batch_norm(nets, "g"),
    "d_sees_one_image_at_a_time": lambda nets: not any(layer.mixes_batch for layer in nets.d.layers),
}


def _holds(
    key: str, trick: Trick, tricks: Sequence[Trick], data: DataSpec, nets: "Nets | None"
) -> bool | None:
    """Return whether a trick beside `trick` is there or a fact is true; None where that takes the networks."""
    others = [other for other in tricks if other is not trick]
    if key == OTHER_LOSS:
        return any(other.loss for other in others)
    if key == NO_LABELS:
        return len(data.classes or SETS[data.set].class_names) < 2
    if key in IN_TABLES:
        return None if nets is None else IN_TABLES[key](nets)
    return any(other.name() == key for other in others)
