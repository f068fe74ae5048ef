"""What the cells of a design say together: main effects and interactions.

Every contrast is taken within a seed, the seed's share cancels, and the seeds' contrasts are judged as everything else
is: Hodges-Lehmann estimate, exact signed-rank test (STATISTICS.md sections 1.3 and 2.6). All effects are differences of
log scores: negative is better, the exponential is a ratio.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bench import design, stats
from bench.analyse import Analysis
from bench.cells import CONDITIONS, in_company
from bench.design import Design, Factor
from bench.effects import Cost
from bench.errors import Refused
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results
from bench.stats import Comparison, Estimate
from bench.verdicts import Case, judge

FRACTIONS = (design.FRACTIONAL, design.PLACKETT_BURMAN, design.SCREENING)
COSTS = ("train_seconds", "parameters", "multiply_adds", "steps")
FALSE_DISCOVERIES = 0.10  # share among the interactions that are called found


@dataclass(frozen=True)
class MainEffect:
    """A trick on against off (a number: high against low), averaged over the cells of the design.

    name: the trick, or trick and value where it has several. factor: the trick. comparison: over the seeds in which
    every cell has a score, `effect` its difference of logs. left_out: the seeds in which one has none. p_holm:
    corrected over the main effects. verdict, reason, qualifiers, detectable, needed: as for an arm, and
    `context-dependent` where an interaction with another trick is found. aliases: what else the number holds, as
    (effect, share). failures_on, failures_off: failed runs of all runs in cells with the trick and without it (a
    number: high, low). values: the trick's settings in these cells. cost: of cells with it against cells without.
    """

    name: str
    factor: str
    comparison: Comparison
    left_out: tuple[int, ...]
    p_holm: float
    p_failures: float
    verdict: str
    reason: str
    qualifiers: tuple[str, ...]
    detectable: float
    needed: int | None
    aliases: tuple[tuple[str, float], ...]
    failures_on: tuple[int, int]
    failures_off: tuple[int, int]
    values: Mapping[str, Any]
    cost: Cost

    @property
    def ratio(self) -> Estimate:
        """The effect as a ratio of scores: below 1 is better."""
        return _ratio(self.comparison)


@dataclass(frozen=True)
class Interaction:
    """By how much two tricks together miss the product of their ratios: (ab - b) - (a - none), in logs.

    In +-1 coding it is four coefficients, twice the textbook's effect, so that it reads the same in a 2x2 of four arms
    and in a fraction of a factorial. Its sign is the same as everywhere: negative, better together than the product.

    pair: the two main effects. named: whether it is this pair's own; else it is not to be told apart from `aliases`,
    the other effects in the number as (effect, share), and `label` says them all. squares: over how many 2x2 of arms
    it is averaged; 0 where the cells hold no whole 2x2 and it is a contrast over all of them. single: over the same
    2x2, the first's effect without the second and with it, and the second's without the first and with it; empty where
    there are none. p_bh: after Benjamini
    and Hochberg over the grid's interactions. found: p_bh is below .10, and there are enough seeds for a test.
    """

    pair: tuple[str, str]
    named: bool
    aliases: tuple[tuple[str, float], ...]
    squares: int
    comparison: Comparison
    single: tuple[Comparison, ...]
    p_bh: float

    @property
    def label(self) -> str:
        """The pair, or all that it is mixed up with: `a:b = c:d` whole, `a:b + .33 c:d` in part."""
        name = ":".join(self.pair)
        whole = [f" = {'-' * (share < 0)}{other}" for other, share in self.aliases if abs(share) == 1]
        part = [
            f" {'-' if share < 0 else '+'} {abs(share):g} {o}" for o, share in self.aliases if abs(share) != 1
        ]
        return name + "".join(whole + part)

    @property
    def found(self) -> bool:
        """Whether it is among the discoveries."""
        return self.comparison.n >= stats.FEWEST_PAIRS and self.p_bh < FALSE_DISCOVERIES

    @property
    def ratio(self) -> Estimate:
        """The factor by which the pair misses the product of its parts' ratios: below 1 is better."""
        return _ratio(self.comparison)


def opposite(a: Comparison, b: Comparison) -> bool:
    """Say whether one effect is surely below 0 and the other surely above: their intervals leave it out."""
    return min(a.effect.high, b.effect.high) < 0 < max(a.effect.low, b.effect.low)


def turns(pair: Interaction) -> bool:
    """Say whether one of a pair helps without the other and hurts beside it, or the other way round."""
    return pair.named and any(opposite(*pair.single[i : i + 2]) for i in range(0, len(pair.single), 2))


class Screened(NamedTuple):
    """An effect of an unreplicated design: no p value, but its place on a half-normal plot.

    effect: difference of logs; of a pair half of what `Interaction` says, so that all have one standard error.
    quantile: of the half-normal distribution at its rank. lenth: its size over Lenth's pseudo standard error; what
    stands far off the line, say above 2.5, is worth replicating.
    """

    name: str
    effect: float
    quantile: float
    lenth: float


def _ratio(comparison: Comparison) -> Estimate:
    return Estimate(*(float(np.exp(x)) for x in comparison.effect))


# --- reading


class _Blocks(NamedTuple):
    """Capped log scores of the design's cells: a row a seed, a column a cell's arm."""

    design: Design
    logs: pd.DataFrame
    failed: pd.DataFrame
    runs: pd.DataFrame  # those that count: not lost to the machine
    lost: pd.DataFrame
    alpha: float


def _blocks(analysis: Analysis) -> _Blocks:
    there = read_design(analysis.results)
    logs = {arm.name: arm.logs for arm in analysis.arms}
    failed = {arm.name: arm.runs["status"].isin(METHOD_FAILURES) for arm in analysis.arms}
    lost = {arm.name: arm.runs["status"].isin(MACHINE_FAILURES) for arm in analysis.arms}
    counted = {name: ~column for name, column in lost.items()}

    def table(columns: Mapping[str, pd.Series]) -> pd.DataFrame:
        empty = pd.Series(dtype=float)
        return pd.DataFrame({name: columns.get(name, empty).astype(float) for name in there.names})

    return _Blocks(there, table(logs), table(failed), table(counted), table(lost), analysis.alpha)


def read_design(results: Results) -> Design:
    """Return the design of results, from `design_detail`, or for older ones from the arms' tricks.

    Raises `Refused` where the record is broken.
    """
    environment = results.environment
    arms = {arm["arm"]: arm for arm in environment["arms"]}
    [reference] = [name for name, arm in arms.items() if arm["role"] == "baseline"]
    kind = environment.get("design") or design.ARMS
    detail = environment.get("design_detail")
    if detail is None:
        tricks = {name: arm["tricks"] for name, arm in arms.items() if arm["role"] != "control"}
        there = design.of_arms(tricks, reference)
        return design.known(kind, there.factors, there.cells, there.names, reference)
    try:
        factors = [Factor(f["name"], tuple(f["levels"]), f["number"]) for f in detail["factors"]]
        cells = [
            tuple(factor.levels.index(levels[factor.name]) for factor in factors)
            for levels in detail["cells"].values()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(
            f"{results.path / 'environment.json'}: design_detail is broken ({error}); restore the file from version "
            "control, or delete it and let `bench run` write it again"
        ) from None
    return design.known(kind, factors, cells, tuple(detail["cells"]), reference)


# --- main effects


def main_effects(analysis: Analysis) -> tuple[MainEffect, ...]:
    """Return the main effects of a design whose effects are averages over its cells; empty for another design."""
    if analysis.results.environment.get("design") not in design.FACTORIAL:
        return ()
    blocks = _blocks(analysis)
    found = blocks.design
    if not found.factors:
        return ()
    model = design.main_model(found.factors, found.cells)
    if np.linalg.matrix_rank(model) < model.shape[1]:
        return ()  # cells that do not tell them apart: arms of an older design, or a file edited by hand
    weights = np.linalg.pinv(model)[1:]  # least squares with a mean of its own for each seed
    logs = blocks.logs.dropna()
    left_out = tuple(int(seed) for seed in blocks.logs.index.difference(logs.index))
    comparisons = [_contrast(blocks, logs, row) for row in weights]
    alike = [_alike(blocks, logs, row, float(np.log(analysis.cap))) for row in weights]
    named = [(factor, name, codes) for factor in found.factors for name, codes in factor.effects.items()]
    levels, effects = np.array(found.cells), design.effects(found.factors, found.cells)
    signs = [np.array(codes)[levels[:, found.factors.index(factor)]] for factor, _, codes in named]
    cases = [
        Case(
            comparison,
            *(_counted(blocks.failed, blocks.runs, sign * side > 0) for side in (1, -1)),
            *(_counted(blocks.lost, blocks.runs + blocks.lost, sign * side > 0) for side in (1, -1)),
            alike=why,
        )
        for comparison, sign, why in zip(comparisons, signs, alike, strict=True)
    ]
    dependent = {name for pair in interactions(analysis) if pair.found and pair.named for name in pair.pair}
    return tuple(
        MainEffect(
            name=name,
            factor=factor.name,
            comparison=case.comparison,
            left_out=left_out,
            p_holm=verdict.p_holm,
            p_failures=verdict.p_failures,
            verdict=verdict.word,
            reason=verdict.reason,
            qualifiers=(*verdict.tags, *(["context-dependent"] if name in dependent else [])),
            detectable=verdict.detectable,
            needed=verdict.needed,
            aliases=_shares(row, effects, 2, name),
            failures_on=case.failures_with,
            failures_off=case.failures_without,
            values=_values(
                analysis, [cell for cell, on in zip(found.names, sign > 0, strict=True) if on], factor.name
            ),
            cost=_cost(analysis, found.names, row),
        )
        for (factor, name, _), row, sign, case, verdict in zip(
            named, weights, signs, cases, judge(cases, blocks.alpha), strict=True
        )
    )


def _values(analysis: Analysis, cells: Sequence[str], trick: str) -> Mapping[str, Any]:
    """Return a trick's settings in the first of these cells that has it."""
    arms = {arm.name: arm.tricks for arm in analysis.arms}
    return next((arms[cell][trick] for cell in cells if trick in arms.get(cell, {})), {})


def _cost(analysis: Analysis, cells: Sequence[str], weights: NDArray[np.float64]) -> Cost:
    """Return what a contrast costs: the geometric mean over cells of their median costs, on against off.

    Of runs that finished. Seconds are compared only where all cells were timed on equal terms, and each by itself.
    """
    everything = analysis.results.runs
    finished = ~everything["status"].isin((*MACHINE_FAILURES, "diverged"))
    own = everything[everything["arm"].isin(cells)]
    apart = len(own[list(CONDITIONS)].drop_duplicates()) == 1 and not in_company(everything)[own.index].any()
    medians = own[finished[own.index]].groupby("arm")[list(COSTS)].median().reindex(cells)

    def ratio(column: str) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.exp(weights @ np.log(medians[column].to_numpy(dtype=float))))

    seconds = ratio("train_seconds") if apart else np.nan
    return Cost(seconds, ratio("parameters"), ratio("multiply_adds"), ratio("steps"))


def _contrast(blocks: _Blocks, logs: pd.DataFrame, weights: NDArray[np.float64]) -> Comparison:
    """Compare the cells with a positive weight with those with a negative one, seed by seed."""
    values = logs.to_numpy()
    failed = blocks.failed.loc[logs.index, logs.columns].to_numpy(dtype=float) > 0
    on, off = np.maximum(weights, 0), np.maximum(-weights, 0)
    # Where a part of the cells fails on both sides, this part of the contrast is the cap less the cap.
    both = np.minimum(failed @ on / on.sum(), failed @ off / off.sum()).sum()
    return stats.compare(values @ on, values @ off, int(both + 1e-9), alpha=blocks.alpha)


def _alike(blocks: _Blocks, logs: pd.DataFrame, weights: NDArray[np.float64], cap: float) -> str:
    """Return why a contrast's seeds say nothing, see `bench.stats.alike`."""
    used = np.abs(weights) > 1e-9
    failed = blocks.failed.loc[logs.index, logs.columns].to_numpy(dtype=bool)[:, used].any(axis=1)
    values = logs.to_numpy()
    means = [values @ np.maximum(sign * weights, 0) / np.maximum(sign * weights, 0).sum() for sign in (1, -1)]
    return stats.alike(*means, failed, cap)


def _shares(
    weights: NDArray[np.float64], effects: design.Effects, whole: int, own: str
) -> tuple[tuple[str, float], ...]:
    """Return the pairs that stand in a contrast's number too, as shares of a coefficient, of which it is `whole`."""
    shares = weights @ effects.columns / whole
    return tuple(
        (name, round(float(share), 3))
        for name, about, share in zip(effects.names, effects.about, shares, strict=True)
        if len(about) == 2 and name != own and abs(share) > design.CLEAR
    )


def _counted(some: pd.DataFrame, all_: pd.DataFrame, cells: NDArray[np.bool_]) -> tuple[int, int]:
    return tuple(int(np.nansum(table.to_numpy()[:, cells])) for table in (some, all_))


# --- interactions


def interactions(analysis: Analysis) -> tuple[Interaction, ...]:
    """Return the two-factor interactions that the arms of a grid can tell of, in the order of its tricks.

    Where four arms {none, a, b, a and b} on one background are there: the difference of differences, averaged over
    such backgrounds. In a fraction of a factorial: the contrast over all cells, main effects taken out; a pair that is
    a main effect's alias is left to that main effect, and pairs that are one column are one entry.
    """
    blocks = _blocks(analysis)
    found = blocks.design
    pairs = _fraction(found) if found.kind in FRACTIONS else _squares(found)

    def contrast(weights: NDArray[np.float64]) -> Comparison:
        used = np.abs(weights) > 1e-9
        return _contrast(blocks, blocks.logs.loc[:, used].dropna(), weights[used])

    comparisons = [contrast(pair.weights) for pair in pairs]
    p_bh = benjamini_hochberg([c.p for c in comparisons])
    return tuple(
        Interaction(
            pair=pair.effects,
            named=not pair.aliases,
            aliases=pair.aliases,
            squares=pair.squares,
            comparison=comparison,
            single=tuple(map(contrast, pair.single)),
            p_bh=float(p),
        )
        for pair, comparison, p in zip(pairs, comparisons, p_bh, strict=True)
    )


class _Pair(NamedTuple):
    """A pair of main effects and the weights of its contrasts over the cells; see `Interaction`."""

    effects: tuple[str, str]
    squares: int
    weights: NDArray[np.float64]
    single: tuple[NDArray[np.float64], ...] = ()
    aliases: tuple[tuple[str, float], ...] = ()


def _squares(found: Design) -> list[_Pair]:
    """Return the pairs of levels of which the cells hold whole 2x2, with their mean contrast, in the factors' order."""
    row = {cell: i for i, cell in enumerate(found.cells)}
    corners: dict[tuple[int, int, int, int], list[list[int]]] = {}
    for cell in found.cells:
        on = [i for i, level in enumerate(cell) if level]
        for a, b in itertools.combinations(on, 2):
            four = [_off(cell, gone) for gone in ((), (a,), (b,), (a, b))]
            if all(corner in row for corner in four):
                corners.setdefault((a, b, cell[a], cell[b]), []).append([row[corner] for corner in four])
    pairs = []
    for (a, b, i, j), squares in sorted(corners.items()):
        # With both, with the second, with the first, with neither: the cells of each corner, over all squares.
        corners_of = np.zeros((4, len(found.cells)))
        for square in squares:
            corners_of[range(4), square] += 1 / len(squares)
        both, second, first, neither = corners_of
        pairs.append(
            _Pair(
                effects=(found.factors[a].levels[i], found.factors[b].levels[j]),
                squares=len(squares),
                weights=both - second - first + neither,
                single=(first - neither, both - second, second - neither, both - first),
            )
        )
    return pairs


def _off(cell: design.Cell, gone: Sequence[int]) -> design.Cell:
    return tuple(0 if i in gone else level for i, level in enumerate(cell))


def _fraction(found: Design) -> list[_Pair]:
    """Return the pairs with their contrast over all cells, main effects taken out, each column once."""
    model = design.main_model(found.factors, found.cells)
    aside = np.eye(len(model)) - model @ np.linalg.pinv(model)
    effects = design.effects(found.factors, found.cells)
    pairs: list[_Pair] = []
    for name, about, column in zip(effects.names, effects.about, effects.columns.T, strict=True):
        rest = aside @ column
        size = float(rest @ rest)
        if len(about) < 2 or size < 1e-9 * len(model):
            continue  # a main effect, or a main effect's alias
        weights = 4 * rest / size
        aliases = _shares(weights, effects, 4, name)
        if not any(
            abs(share) == 1 and other in {":".join(p.effects) for p in pairs} for other, share in aliases
        ):
            pairs.append(_Pair(tuple(about.values()), 0, weights, aliases=aliases))
    return pairs


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Return p values adjusted for the false discovery rate, in the order given: (m,) in [0, 1]."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(-p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1)))
    return adjusted


# --- one seed


def screened(analysis: Analysis) -> tuple[Screened, ...]:
    """Return the effects of an unreplicated design (one seed), smallest first; empty where there are more seeds.

    Source: Daniel 1959 (half-normal plots); Lenth 1989.
    """
    mains = main_effects(analysis)
    if not mains or any(e.comparison.n != 1 for e in mains):
        return ()
    effects = {e.name: e.comparison.effect.estimate for e in mains}
    effects |= {i.label: i.comparison.effect.estimate / 2 for i in interactions(analysis)}
    error = lenth(list(effects.values()))
    ordered = sorted(effects, key=lambda name: abs(effects[name]))
    quantile = NormalDist().inv_cdf
    return tuple(
        Screened(
            name,
            effects[name],
            quantile(0.5 + (rank + 0.5) / len(ordered) / 2),
            abs(effects[name]) / error if error else np.nan,
        )
        for rank, name in enumerate(ordered)
    )


def lenth(effects: ArrayLike) -> float:
    """Return Lenth's pseudo standard error of effects of which most are noise; NaN for fewer than three.

    effects: (m,) with equal standard errors. Source: Lenth 1989, Technometrics 31(4): 1.5 times the median size of
    those below 2.5 times 1.5 times the median size of all.
    """
    sizes = np.abs(np.asarray(effects, dtype=float))
    if len(sizes) < 3:
        return np.nan
    rough = 1.5 * np.median(sizes)
    small = sizes[sizes < 2.5 * rough]
    return float(1.5 * np.median(small)) if len(small) else 0.0
