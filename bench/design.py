"""Designs: which tricks are on in which cell, and the proof that a design is as strong as was asked.

pydoe generates, this module checks: the alias matrix of the cells that are really run decides, not the generator's
word (STATISTICS.md sections 1.1, 1.2 and 4.2). A cell is a tuple of level numbers, one a factor; level 0 is off.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import Refused

OFF = "off"
ONE_AT_A_TIME, LEAVE_ONE_OUT, BOTH, FULL = "one-at-a-time", "leave-one-out", "both", "full-factorial"
FRACTIONAL, PLACKETT_BURMAN, SCREENING = "fractional", "plackett-burman", "definitive-screening"
RANDOM, ARMS = "random", "arms"
KINDS = (ONE_AT_A_TIME, LEAVE_ONE_OUT, BOTH, FULL, FRACTIONAL, PLACKETT_BURMAN, SCREENING, RANDOM)
FACTORIAL = (FULL, FRACTIONAL, PLACKETT_BURMAN, SCREENING, RANDOM)  # effects are averages over all cells
ROMAN = {3: "III", 4: "IV", 5: "V"}
CLEAR = 5e-4  # an alias below this is round-off; values are kept to three digits
MOST_CELLS = 2**16
DRAWS = 50  # random designs are drawn this often, the most informative one is taken

Cell = tuple[int, ...]
# The first row of the 24-run Plackett-Burman design (Plackett and Burman 1946): pydoe builds its own by doubling
# the 12-run one, which aliases 24 main effects fully with interactions; the cyclic one none more than 1/3.
CYCLIC_24 = tuple(1 if sign == "+" else -1 for sign in "+++++-+-++--++--+-+----")


class Factor(NamedTuple):
    """A trick as a factor: its levels by name, `off` first; of a number, low, centre and high."""

    name: str
    levels: tuple[str, ...]
    number: bool = False

    @property
    def effects(self) -> dict[str, tuple[int, ...]]:
        """Its main effects with their coding by level: of a number one slope, else each level against off."""
        if self.number:
            return {self.name: (-1, 0, 1)}
        size = len(self.levels)
        return {
            self.levels[i]: tuple(-1 if j == 0 else int(j == i) for j in range(size)) for i in range(1, size)
        }


class Alias(NamedTuple):
    """Two effects that the cells cannot tell apart: inner product of their columns over the number of cells."""

    one: str
    other: str
    value: float


@dataclass(frozen=True)
class Design:
    """Cells of a design, each with a name; `reference` is the name of the arm with the role baseline.

    resolution: proved by the alias matrix: 3 main effects clear of each other, 4 of pairs too, 5 (V or above) pairs of
        pairs too; None where they are not.
    aliases: every pair of effects (main effects and pairs `a:b`) with a column product that is not zero; None where
        effects are told against the reference arm and there is nothing to average (one-at-a-time and its like).
    """

    kind: str
    factors: tuple[Factor, ...]
    cells: tuple[Cell, ...]
    names: tuple[str, ...]
    reference: str
    resolution: int | None = None
    aliases: tuple[Alias, ...] | None = None

    @property
    def contrasts(self) -> int:
        """How many contrasts are judged as one family."""
        if self.kind in FACTORIAL:
            return sum(len(factor.effects) for factor in self.factors)
        return sum(name != self.reference for name in self.names)

    def detail(self, looks: Sequence[int] = ()) -> dict[str, Any]:
        """Return what environment.json keeps of it, as plain data."""
        return {
            "factors": [factor._asdict() for factor in self.factors],
            "cells": {
                name: {f.name: f.levels[i] for f, i in zip(self.factors, cell, strict=True)}
                for name, cell in zip(self.names, self.cells, strict=True)
            },
            "resolution": self.resolution,
            "aliases": None if self.aliases is None else [list(alias) for alias in self.aliases],
            "looks": list(looks),
        }

    def told(self) -> str:
        """Return a line for people: cells, resolution, and what is mixed up with what."""
        line = f"{self.kind}: {len(self.cells)} cells of {len(self.factors)} tricks"
        if self.aliases is None:
            return f"{line}, each against {self.reference}"
        pairs = [a for a in self.aliases if ":" in a.one and ":" in a.other]
        mains = [a for a in self.aliases if a not in pairs]
        if self.resolution:
            line += f", resolution {ROMAN[self.resolution]}{' or above' * (self.resolution == 5)}"
        if not self.aliases:
            return f"{line}; no main effect and no pair of tricks is mixed up with another"
        if not mains:
            return f"{line}; main effects are clear of pairs of tricks; {_example(pairs, 'pair')}"
        return f"{line}; {_example(mains, 'main effect')}"


def _example(aliases: Sequence[Alias], what: str) -> str:
    """Return how many effects are mixed up with others, with the worst case."""
    worst = max(aliases, key=lambda alias: abs(alias.value))
    count = len({name for a in aliases for name in a[:2] if (":" in name) == (what == "pair")})
    sign = "" if abs(worst.value) == 1 else f" by {abs(worst.value):g}"
    return f"{count} {what}{'s' * (count > 1)} mixed up with others, as {worst.one} with {worst.other}{sign}"


# --- generating


def make(
    kind: str,
    factors: Sequence[Factor],
    resolution: int = 4,
    foldover: bool = False,
    cells: int = 0,
    seed: int | str = 0,
    possible: Callable[[Cell], bool] = lambda cell: True,
) -> Design:
    """Return the design of a kind in KINDS; raise `Refused` for one that cannot be, or is weaker than asked.

    resolution is for fractional, foldover for plackett-burman, cells, seed and possible for random.
    """
    if kind == RANDOM:
        return _named(kind, factors, _random(factors, cells, seed, possible))
    if kind == FULL:
        _check_size(kind, factors)
        return _named(kind, factors, itertools.product(*(range(len(f.levels)) for f in factors)))
    if kind == ONE_AT_A_TIME:
        return _named(kind, factors, [_none(factors), *_singles(factors)])
    for factor in factors:
        if len(factor.levels) != (3 if kind == SCREENING else 2):
            needs = "three values" if kind == SCREENING else "one value"
            raise Refused(f"{kind} needs {needs} of each trick; {factor.name} has {len(factor.levels) - 1}")
    every = tuple(1 for _ in factors)
    less = [tuple(int(i != j) for i in range(len(factors))) for j in range(len(factors))]
    if kind == LEAVE_ONE_OUT:
        return _named(kind, factors, [every, *less])
    if len(factors) < 2:
        raise Refused(f"{kind} needs two tricks or more; there {'is one' if factors else 'are none'}")
    if kind == BOTH:
        return _named(kind, factors, [_none(factors), *_singles(factors), every, *less])
    if kind == FRACTIONAL:
        made, asked = _fraction(len(factors), resolution), resolution
    elif kind == PLACKETT_BURMAN:
        made, asked = _plackett_burman(len(factors), foldover), 4 if foldover else 3
    else:
        made, asked = _screening(len(factors)), 4
    return strong(_named(kind, factors, made), asked)


def strong(design: Design, resolution: int) -> Design:
    """Return the design; raise `Refused` where its alias matrix does not prove what was asked."""
    many = len(design.factors)
    mains = [a for a in design.aliases or () if (":" in a.one) != (":" in a.other)]
    if (design.resolution or 0) < resolution:
        proved = f"resolution {ROMAN[design.resolution]}" if design.resolution else "no resolution"
        worst = f": {_example(design.aliases, 'main effect' if mains else 'pair')}" if design.aliases else ""
        raise Refused(
            f"{design.kind} of resolution {ROMAN[resolution]} was asked, but the {len(design.cells)} cells for {many} "
            f"tricks prove {proved}{worst}; take another design"
        )
    # The 12-, 20- and 24-run designs exist so that no effect hides whole behind another.
    full = [a for a in mains if abs(a.value) > 1 - CLEAR]
    if design.kind == PLACKETT_BURMAN and many > 7 and full:
        raise Refused(
            f"plackett-burman over {many} tricks: the cells alias {full[0].one} fully with {full[0].other}; "
            "take foldover"
        )
    return design


def _none(factors: Sequence[Factor]) -> Cell:
    return tuple(0 for _ in factors)


def _singles(factors: Sequence[Factor]) -> list[Cell]:
    """Return the cells with one trick on, each of its values in turn."""
    return [
        tuple(level if i == j else 0 for i in range(len(factors)))
        for j, factor in enumerate(factors)
        for level in range(1, len(factor.levels))
    ]


def _check_size(kind: str, factors: Sequence[Factor]) -> None:
    cells = math.prod(len(factor.levels) for factor in factors)
    if cells > MOST_CELLS:
        raise Refused(f"{kind} over {len(factors)} tricks has {cells} cells; use {ONE_AT_A_TIME}")


def _fraction(count: int, resolution: int) -> NDArray[np.float64]:
    import pydoe  # here, because it imports scipy, which takes a second

    try:
        made = pydoe.fracfact_by_res(count, resolution)
    except ValueError as error:
        raise Refused(
            f"no fractional design of resolution {resolution} over {count} tricks: {error}"
        ) from None
    return _with_none(made)


def _plackett_burman(count: int, foldover: bool) -> NDArray[np.float64]:
    import pydoe

    if count > 23:
        raise Refused(f"plackett-burman is for up to 23 tricks, here are {count}; take fractional")
    if foldover:
        return pydoe.fold(pydoe.pbdesign(count))
    if count >= 20:
        rows = [np.roll(CYCLIC_24, i) for i in range(23)]
        return np.vstack([-np.ones(23), rows])[:, :count]
    # pydoe's 16 runs for 12 to 15 are a regular fraction with full aliases; columns of the 20 runs have none.
    return _with_none(pydoe.pbdesign(19 if 12 <= count <= 15 else count)[:, :count])


def _screening(count: int) -> NDArray[np.float64]:
    import pydoe

    made = pydoe.definitive_screening_design(count)
    squares = made**2
    if np.abs(made.T @ squares).max() > 0 or set(np.unique(made)) != {-1, 0, 1}:
        raise Refused(f"definitive-screening over {count} tricks: main effects are not clear of curvature")
    return made + 1


def _with_none(signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return signs, mirrored where that brings the cell with everything off in: aliases keep their size."""
    return signs if (signs == -1).all(axis=1).any() else -signs


def _random(
    factors: Sequence[Factor], count: int, seed: int | str, possible: Callable[[Cell], bool]
) -> list[Cell]:
    """Return different cells in which each trick is on with chance 1/2, at any of its values with equal chance.

    Cells that are not `possible` are drawn again. Of DRAWS such designs the one that tells most (largest determinant)
    is taken; the draws depend on the seed alone, on any machine.
    """
    needed = 1 + sum(len(factor.effects) for factor in factors)
    most = math.prod(len(factor.levels) for factor in factors)
    if not needed <= count <= most:
        raise Refused(
            f"{count} random contexts for {len(factors)} tricks: {needed} or more tell {needed - 1} effects apart, "
            f"and there are {most}"
        )
    dice = random.Random(str(seed))
    best, best_size = None, -math.inf
    for _ in range(DRAWS):
        drawn: dict[Cell, None] = {}
        for _ in range(100 * count):
            cell = tuple(
                1 + int(dice.random() * (len(f.levels) - 1)) if dice.random() < 0.5 else 0 for f in factors
            )
            if cell not in drawn and possible(cell):
                drawn[cell] = None
            if len(drawn) == count:
                break
        if len(drawn) < count:
            break  # too few combinations are possible
        model = main_model(factors, list(drawn))
        sign, size = np.linalg.slogdet(model.T @ model)
        if sign > 0 and size > best_size + 1e-9:
            best, best_size = list(drawn), size
    if best is None:
        raise Refused(
            f"{count} random contexts that are possible and tell {needed - 1} effects apart were not found; take more "
            "or fewer cells, or leave out tricks that conflict"
        )
    return best


def _named(kind: str, factors: Sequence[Factor], cells: Iterable[Iterable[float]]) -> Design:
    """Return the design with names for its cells, the reference first, and its alias matrix."""
    factors = tuple(factors)
    rows = [tuple(int(x) for x in row) for row in cells]
    if any(level < 0 for row in rows for level in row):  # signs
        rows = [tuple(int(x > 0) for x in row) for row in rows]
    rows = list(dict.fromkeys(rows))
    centre = tuple(1 for _ in factors)
    first = centre if kind in (LEAVE_ONE_OUT, SCREENING) else _none(factors)
    if first in rows:
        rows.remove(first)
        if kind in (FRACTIONAL, PLACKETT_BURMAN):
            rows.sort(key=lambda row: (sum(row), [-x for x in row]))
        rows.insert(0, first)
    names = tuple(_name(kind, factors, row) for row in rows)
    return known(kind, factors, rows, names, _name(kind, factors, first))


def known(
    kind: str, factors: Sequence[Factor], cells: Sequence[Cell], names: Sequence[str], reference: str
) -> Design:
    """Return a design whose cells are known, with what they prove where effects are averages over them."""
    design = Design(kind, tuple(factors), tuple(cells), tuple(names), reference)
    if kind not in FACTORIAL:
        return design
    found = effects(factors, cells)
    return replace(design, resolution=proved(found), aliases=aliases(found))


def _name(kind: str, factors: Sequence[Factor], cell: Cell) -> str:
    """Return a cell's name: what is on, or where that is shorter, what is off."""
    if kind == SCREENING:
        named = [f.levels[i] for f, i in zip(factors, cell, strict=True)]
        return "+".join(named) if any(i != 1 for i in cell) else "centre"
    on = [f.levels[i] for f, i in zip(factors, cell, strict=True) if i]
    off = [f.name for f, i in zip(factors, cell, strict=True) if not i]
    single = all(len(f.levels) == 2 for f in factors)
    if kind == LEAVE_ONE_OUT or (
        single and len(on) > 1 and (not off or (kind != FULL and len(off) < len(on)))
    ):
        return "-".join(["all", *off])
    return "+".join(on) or "baseline"


def of_arms(arms: Mapping[str, Mapping[str, Mapping[str, Any]]], reference: str) -> Design:
    """Return listed arms (their tricks with values, by name) as a design.

    A trick's levels are the values it has somewhere, named after the trick and the fields that differ; a trick that
    every arm has with the same values is no factor.
    """
    values: dict[str, dict[str, Mapping[str, Any]]] = {}
    for tricks in arms.values():
        for trick, fields in tricks.items():
            values.setdefault(trick, {}).setdefault(_key(fields), fields)
    values = {
        trick: v
        for trick, v in values.items()
        if len(v) > 1 or not all(trick in tricks for tricks in arms.values())
    }
    factors = tuple(Factor(trick, (OFF, *_levels(trick, list(v.values())))) for trick, v in values.items())
    cells = tuple(
        tuple(1 + list(v).index(_key(tricks[trick])) if trick in tricks else 0 for trick, v in values.items())
        for tricks in arms.values()
    )
    return Design(ARMS, factors, cells, tuple(arms), reference)


def _key(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


def _levels(trick: str, several: list[Mapping[str, Any]]) -> list[str]:
    differ = [key for key in several[0] if len({_key({key: fields.get(key)}) for fields in several}) > 1]
    if len(several) == 1 or not differ:
        return [trick]
    return [f"{trick}.{','.join(f'{key}={fields.get(key)}' for key in differ)}" for fields in several]


# --- checking


class Effects(NamedTuple):
    """The columns of all main effects and pairs: (cells, effects), and which levels each is about."""

    names: tuple[str, ...]
    about: tuple[dict[str, str], ...]  # factor: main effect
    columns: NDArray[np.float64]


def effects(factors: Sequence[Factor], cells: Sequence[Cell]) -> Effects:
    """Return the coded columns of main effects, then of pairs of tricks: -1 off, 1 on, 0 another value."""
    levels = np.array(cells, dtype=int).reshape(len(cells), len(factors))
    mains = [
        ({factor.name: name}, np.array(codes, dtype=float)[levels[:, i]])
        for i, factor in enumerate(factors)
        for name, codes in factor.effects.items()
    ]
    pairs = [(a | b, x * y) for (a, x), (b, y) in itertools.combinations(mains, 2) if a.keys() != b.keys()]
    about = tuple(a for a, _ in mains + pairs)
    columns = [column for _, column in mains + pairs]
    matrix = np.array(columns).T if columns else np.zeros((len(cells), 0))
    return Effects(tuple(":".join(a.values()) for a in about), about, matrix)


def _products(found: Effects) -> NDArray[np.float64]:
    """Return the alias matrix (effects, effects): column products over the number of cells, the diagonal 0.

    Two values of one trick are never on together, which is no alias: their entries are 0.
    """
    matrix = found.columns.T @ found.columns / len(found.columns)
    np.fill_diagonal(matrix, 0)
    by_factor: dict[str, dict[str, list[int]]] = {}
    for i, about in enumerate(found.about):
        for factor, name in about.items():
            by_factor.setdefault(factor, {}).setdefault(name, []).append(i)
    for groups in by_factor.values():
        for one, other in itertools.permutations(groups.values(), 2):
            matrix[np.ix_(one, other)] = 0
    return matrix


def aliases(found: Effects) -> tuple[Alias, ...]:
    """Return the off-diagonal entries of the alias matrix that are not zero, each pair of effects once."""
    matrix = np.triu(_products(found), 1)
    return tuple(
        Alias(found.names[i], found.names[j], round(float(matrix[i, j]), 3))
        for i, j in zip(*np.nonzero(np.abs(matrix) > CLEAR), strict=True)
    )


def proved(found: Effects) -> int | None:
    """Return the resolution that the alias matrix proves, up to 5, or None (STATISTICS.md section 4.2).

    Main effects must also be clear of the mean: as many cells on as off.
    """
    matrix = np.abs(_products(found)) > CLEAR
    main = np.array([len(about) == 1 for about in found.about], dtype=bool)
    uneven = np.abs(found.columns[:, main].mean(axis=0)) > CLEAR
    if uneven.any() or matrix[np.ix_(main, main)].any():
        return None
    if matrix[np.ix_(main, ~main)].any():
        return 3
    return 4 if matrix.any() else 5


def main_model(factors: Sequence[Factor], cells: Sequence[Cell]) -> NDArray[np.float64]:
    """Return the model matrix (cells, 1 + main effects) whose least-squares coefficients are the main effects.

    A coefficient is the step from off to the level, or from low to high for a number.
    """
    levels = np.array(cells, dtype=int).reshape(len(cells), len(factors))
    columns = [np.ones(len(cells))]
    for i, factor in enumerate(factors):
        for codes in factor.effects.values():
            column = np.array(codes, dtype=float)[levels[:, i]]
            columns.append(column / 2 if factor.number else (column > 0).astype(float))
    return np.array(columns).T
