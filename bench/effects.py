"""The nouns of an analysis: arms, effects, and the analysis itself, all frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results
from bench.stats import Comparison, Estimate


class Score(NamedTuple):
    """How the primary score is called: the bare word FID is kept for Inception."""

    short: str
    long: str


@dataclass(frozen=True)
class Arm:
    """One cell of the design with its runs; `logs` are capped log scores by seed, NaN where there is none."""

    name: str
    role: str
    tricks: dict[str, dict[str, Any]]
    runs: pd.DataFrame
    logs: pd.Series
    level: Estimate  # of the score itself: Hodges-Lehmann over seeds with its 1 - alpha interval

    @cached_property
    def failed(self) -> pd.Series:
        """Which runs are findings of the worst rank, by seed."""
        return self.runs["status"].isin(METHOD_FAILURES)

    @cached_property
    def failures(self) -> int:
        """How many runs failed as training; the machine's failures are not among them."""
        return int(self.failed.sum())

    @cached_property
    def lost(self) -> int:
        """How many runs the machine lost."""
        return int(self.runs["status"].isin(MACHINE_FAILURES).sum())

    @property
    def n(self) -> int:
        """How many runs tell something: a score or a failure of the training."""
        return len(self.runs) - self.lost


class Cost(NamedTuple):
    """What a treatment costs, as ratios to its reference; NaN where nothing comparable was measured."""

    seconds: float
    parameters: float
    multiply_adds: float
    steps: float  # of G


@dataclass(frozen=True)
class Effect:
    """One contrast of the grid, always told as `with` against `without`: a negative effect is better.

    An arm that lacks some of the reference's tricks (leave-one-out) is the `without` side; else it is `with`.
    """

    arm: Arm
    other: Arm  # what the arm is compared with: the reference, or the stack that it leaves a trick out of
    left_out: bool
    tricks: tuple[str, ...]  # in which the two sides differ
    comparison: Comparison
    pairs: pd.DataFrame  # by seed: `with`, `without` (capped logs), `failed` (either side)
    conditional: Estimate  # the effect in the pairs of which neither side failed
    failures_with: tuple[int, int]  # k of n
    failures_without: tuple[int, int]
    cost: Cost
    poi: float  # probability of improvement: share of pairs in which `with` is better, ties count half
    poi_of_any: float  # the same over all combinations of a run with and a run without
    alike: str = ""  # why the pairs say nothing: `bench.stats.alike`
    p_holm: float = np.nan  # corrected over the family; a control's own p
    p_failures: float = np.nan  # Barnard's test on the failures, corrected alike
    verdict: str = ""
    reason: str = ""  # of unstable and inconclusive ("data: ..." or "power: ..."), else empty
    qualifiers: tuple[str, ...] = ()
    detectable: float = np.inf  # as a difference of logs; infinite where n is too small
    needed: int | None = None  # pairs that find the observed effect in 4 of 5 grids
    secondary: Mapping[str, Comparison] = field(
        default_factory=dict
    )  # `bench.qualify`: axes, metrics, context

    @property
    def ratio(self) -> Estimate:
        """The effect as a ratio of scores: below 1 is better."""
        return Estimate(*(float(np.exp(x)) for x in self.comparison.effect))

    @property
    def standardised(self) -> float:
        """The effect in robust standard deviations of the differences; NaN where they do not spread."""
        spread = self.comparison.spread
        return self.comparison.effect.estimate / spread if spread > 0 else np.nan

    @property
    def values(self) -> dict[str, dict[str, Any]]:
        """The settings of the tricks that are judged."""
        tricks = self.other.tricks if self.left_out else self.arm.tricks
        return {name: tricks.get(name, {}) for name in self.tricks}


@dataclass(frozen=True)
class Analysis:
    """All that the report says in numbers."""

    results: Results
    score: Score
    scored: bool  # whether the grid asked for the primary score at all
    cap: float
    cap_is_measured: bool
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    reference: Arm
    effects: tuple[Effect, ...]  # in grid order, without the reference
    family: int  # contrasts corrected for
    alpha: float  # of the tests and intervals
    unstable_baseline: bool  # the reference's failure rate is surely above 5 %

    @property
    def interval(self) -> str:
        """How sure its intervals are, in words: 95 % unless a grid has two looks."""
        return f"{100 * (1 - self.alpha):g} %"

    @property
    def tricks(self) -> list[Effect]:
        """The effects that are judged as one family."""
        return [effect for effect in self.effects if effect.arm.role == "trick"]

    @property
    def controls(self) -> list[Effect]:
        """The effects that judge the harness."""
        return [effect for effect in self.effects if effect.arm.role == "control"]

    @property
    def detectable(self) -> float:
        """The effect (difference of logs) that the typical contrast of the family finds with 80 % power."""
        return float(np.median([e.detectable for e in self.tricks or self.effects] or [np.inf]))


def changes_nothing(card: dict[str, Any] | None) -> bool:
    """Say whether a card is a control of which nothing is claimed: a placebo."""
    return bool(card and card.get("control")) and not any(c.get("direction") for c in card["claims"])


def is_placebo(effect: Effect, cards: Mapping[str, Any]) -> bool:
    """Say whether the two sides differ in nothing but a placebo."""
    return bool(effect.tricks) and all(changes_nothing(cards.get(name)) for name in effect.tricks)
