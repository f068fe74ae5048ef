"""What a grid can find out, before it costs anything: how noisy a pilot is, what it detects, the seeds it takes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from bench import stats
from bench import trick as tricks_
from bench.analyse import score_of
from bench.design import FACTORIAL, main_model
from bench.effects import changes_nothing
from bench.errors import Refused
from bench.grid import Arm, Grid, parse
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results
from bench.stats import Estimate

SUFFIX = "-pilot"
SEEDS = 6  # of a pilot: the fewest that a verdict takes
EFFECTS = (0.05, 0.10, 0.20)
POWER = 0.8
MOST = 1_000  # seeds; beyond, the answer is another budget
NOISY = 0.1  # spread of log scores above which ten seeds see only effects of 20 % (STATISTICS.md section 2.4)


class Spread(NamedTuple):
    """A standard deviation of log scores: as it is, as the median deviation sees it, its 95 % limits, of how many.

    The limits are those of normal values (chi-square).
    """

    sd: float
    robust: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Pilot:
    """What rows that are there say about noise; spreads are of log scores, failed runs left out and counted.

    differences: SD of an arm's paired differences to the baseline, the median of `arms` arms (controls that are known
        to change something are not asked); without such an arm, that of two independent runs.
    correlation: of an arm and the baseline over seeds: median and quartiles of the arms.
    evaluation: SD when the same generator is scored at other latents, of the baseline's runs together.
    seconds: of one run by arm, training and scoring, medians.
    """

    name: str
    score: str
    seeds: Spread
    arms: int
    differences: float
    correlation: Estimate
    failures: tuple[int, int]  # of runs: the baseline's
    failures_arms: tuple[int, int]  # and those of the arms
    seconds: dict[str, float]
    evaluation: float = math.nan


def spread(logs: np.ndarray) -> Spread:
    """Return the spread of log scores (n,) with its limits; NaN and infinite for fewer than two."""
    n = len(logs)
    if n < 2:
        return Spread(np.nan, np.nan, 0.0, np.inf, n)
    from scipy.stats import chi2  # here, because importing scipy takes a second

    sd = float(np.std(logs, ddof=1))
    low, high = (sd * math.sqrt((n - 1) / float(chi2.ppf(q, n - 1))) for q in (0.975, 0.025))
    return Spread(sd, stats.robust_spread(logs), low, high, n)


def read(results: Results) -> Pilot | None:
    """Return what a results folder says about noise, or None where its baseline has fewer than three scores."""
    runs, environment = results.runs, results.environment
    told = runs[~runs["status"].isin(MACHINE_FAILURES)]
    failed = told["status"].isin(METHOD_FAILURES)
    fine = told[~failed & told["fd"].notna()]
    logs = np.log(fine["fd"].astype("float64").clip(lower=stats.TINY))
    wide = logs.groupby([fine["arm"].astype(str), fine["seed"].astype(int)]).first().unstack(0)
    base = next(arm["arm"] for arm in environment["arms"] if arm["role"] == "baseline")
    if base not in wide or wide[base].notna().sum() < 3:
        return None
    asked = [arm["arm"] for arm in environment["arms"] if _asked(arm, environment, results.tricks)]
    pairs = [wide[[name, base]].dropna() for name in asked if name in wide]
    pairs = [pair for pair in pairs if len(pair) > 2]
    own = spread(wide[base].dropna().to_numpy())
    apart = [float(np.std(pair.iloc[:, 0] - pair.iloc[:, 1], ddof=1)) for pair in pairs]
    together = [stats.correlation(pair.iloc[:, 0], pair.iloc[:, 1]) for pair in pairs]
    seconds = (told["train_seconds"] + told["score_seconds"].fillna(0)).groupby(told["arm"].astype(str))
    return Pilot(
        name=results.name,
        score=score_of(environment["score"].get("extractor") or "unnamed").short,
        seeds=own,
        arms=len(pairs),
        differences=float(np.median(apart)) if apart else math.sqrt(2) * own.sd,
        correlation=stats.quartiles([r for r in together if not math.isnan(r)]),
        failures=_count(failed[told["arm"] == base]),
        failures_arms=_count(failed[told["arm"].isin(asked)]),
        seconds={str(arm): float(value) for arm, value in seconds.median().dropna().items()},
        evaluation=_evaluation_spread(results, told.loc[told["arm"] == base, "run"]),
    )


def _evaluation_spread(results: Results, runs: pd.Series) -> float:
    """Return the root mean square of what the runs' own scores say of their noise (`bench.score.frechet_spread`)."""
    curves = results.curves
    found = curves.loc[(curves["metric"] == "fd_spread") & curves["run"].isin(runs), "value"]
    return float(np.sqrt(np.mean(found.astype("float64") ** 2))) if len(found) else math.nan


def _count(failed: pd.Series) -> tuple[int, int]:
    return int(failed.sum()), len(failed)


def _asked(arm: Mapping, environment: Mapping, cards: Mapping) -> bool:
    """Return whether an arm's noise is that of a trick: any trick, and the control that changes nothing."""
    if arm["role"] != "control":
        return arm["role"] == "trick"
    base = next(a["tricks"] for a in environment["arms"] if a["role"] == "baseline")
    more = [name for name in arm["tricks"] if name not in base]
    return bool(more) and all(changes_nothing(cards.get(name)) for name in more)


# --- from spread to seeds


def seeds_to_detect(
    spread: float, effect: float, family: int = 1, scale: float = 1.0, alpha: float = stats.ALPHA
) -> int | None:
    """Return the fewest seeds that find a relative `effect` with 80 % power after Holm; None beyond MOST.

    spread: SD of the paired differences of logs. scale: of a contrast's SD to it (see `contrasts`).
    """
    return _fewest(lambda n: stats.detectable(scale * spread, n, family, POWER, alpha) <= math.log1p(effect))


def seeds_for_equivalence(spread: float, scale: float = 1.0, alpha: float = stats.ALPHA) -> int | None:
    """Return the fewest seeds with which a trick that does nothing is called equivalent in 80 of 100 grids; None beyond
    MOST, or where the spread is not known."""
    enough = stats.needed_for_equivalence(scale * spread, POWER, alpha)
    return enough if enough and enough <= MOST else None


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest n from 2 to MOST that is enough, where more is never worse."""
    if not enough(MOST):
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def contrasts(grid: Grid) -> tuple[int, float]:
    """Return how many contrasts Holm corrects for, and the widest one's SD in SDs of a paired difference.

    In a factorial they are the main effects of `bench.factorial`, whose weights over the cells of a seed are those of
    least squares: of a trick in half of the cells sqrt(2 / cells).
    """
    if grid.cells and grid.cells.factors and grid.design in FACTORIAL:
        weights = np.linalg.pinv(main_model(grid.cells.factors, grid.cells.cells))[1:]
        return len(weights), math.sqrt((weights**2).sum(axis=1).max() / 2)
    return max(1, sum(arm.role == "trick" for arm in grid.arms)), 1.0


# --- what is printed


def too_few(grid: Grid) -> list[str]:
    """Return the plan's line on seeds so few that no result could reach a verdict, or none where they are enough.

    Of two looks the grid's reader has refused a first one that can reject nothing.
    """
    seeds, (family, _) = len(grid.seeds), contrasts(grid)
    floor = stats.fewest(family)
    over = f" after Holm over {family} contrasts" if family > 1 else ""
    if seeds >= floor:
        return []
    if seeds >= stats.FEWEST_PAIRS:
        return [
            f"verdicts  no `helps` or `hurts` possible below {floor} seeds, this grid has {seeds}: no exact test"
            f" reaches .05{over}; only equivalent, unstable or inconclusive"
        ]
    more = f", and no `helps` or `hurts` below {floor}{over}" if floor > stats.FEWEST_PAIRS else ""
    return [
        f"verdicts  no verdict possible below {stats.FEWEST_PAIRS} seeds, this grid has {seeds}: no exact test reaches"
        f" .05{more}; every arm will be inconclusive"
    ]


def lines(pilot: Pilot, grid: Grid, seconds: Mapping[str, float], slots: int) -> list[str]:
    """Return the plan's lines on power: `seconds` of a run by arm, on so many slots."""
    family, scale = contrasts(grid)
    own, apart = pilot.seeds, pilot.differences
    looks = grid.looks or (len(grid.seeds),)
    alpha = stats.ALPHA / len(looks)
    said = [
        f"power     from {pilot.name}: the baseline's {own.n} scored runs, {pilot.arms} arm{'s' * (pilot.arms != 1)} "
        "paired with it",
        f"  spread over seeds     {own.sd:.3f} of log {pilot.score} ({own.low:.3f} to {own.high:.3f}; robust "
        f"{own.robust:.3f})",
        f"  spread of evaluation  {_evaluation(pilot)}",
        f"  paired arms           {_paired(pilot)}; SD of their differences {apart:.3f}",
        f"  failed runs           the baseline's {_failed(*pilot.failures)}; the arms' {_failed(*pilot.failures_arms)}",
        *(
            f"  {name:20}  {_detectable(stats.detectable(scale * apart, n, family, POWER, alpha), n)}, after Holm over"
            f" {family} contrast{'s' * (family > 1)}{f' at {alpha:g}' * (len(looks) > 1)}"
            for name, n in zip(("detectable", "  at the second look"), looks, strict=False)
        ),
        "",
        f"  {'to find':20}  {'seeds':>6}  {'runs':>7}  {'hours':>8}",
    ]
    wanted = [(f"{e:.0%}", seeds_to_detect(apart, e, family, scale, alpha)) for e in EFFECTS]
    wanted += [
        (f"equivalence ({math.exp(stats.MARGIN) - 1:.0%})", seeds_for_equivalence(apart, scale, alpha))
    ]
    for what, count in wanted:
        said.append(f"  {what:20}  {_priced(count, grid, seconds, slots)}")
    if own.sd > NOISY and grid.design not in FACTORIAL:  # there a contrast averages over cells
        said.append(
            f"  a spread above {NOISY:g} lets ten seeds see effects of 20 % at best: a larger budget narrows it "
            "before more seeds do"
        )
    return said


def _evaluation(pilot: Pilot) -> str:
    if math.isnan(pilot.evaluation):
        return "not known: these results are older than the figure that says it"
    if not pilot.evaluation:
        return "none: the same generators score alike at other latents"
    share = pilot.seeds.sd / pilot.evaluation
    worth = "more samples a score would pay" if share < 3 else "seeds are what counts"
    return f"{pilot.evaluation:.3f}, the same generators at other latents; seeds spread {share:.1f} times that: {worth}"


def _paired(pilot: Pilot) -> str:
    if not pilot.arms:
        return "none with three pairs, so a correlation of 0 is taken"
    r = pilot.correlation
    if math.isnan(r.estimate):
        return "correlation unknown, a side is constant"
    return f"correlation {r.estimate:.2f}" + (f" (quartiles {r.low:.2f} to {r.high:.2f})" * (pilot.arms > 2))


def _failed(k: int, n: int) -> str:
    share = stats.wilson(k, n)
    return f"{k} of {n} ({share.low:.0%} to {share.high:.0%})"


def _detectable(found: float, n: int) -> str:
    if math.isinf(found):
        return f"with {n} seed{'s' * (n != 1)} nothing, however large"
    change = f"{math.exp(found) - 1:.0%} higher or {1 - math.exp(-found):.0%} lower"
    return f"with {n} seed{'s' * (n != 1)} a score {change}, in 80 of 100 grids"


def _priced(count: int | None, grid: Grid, seconds: Mapping[str, float], slots: int) -> str:
    if count is None:
        return f"{f'>{MOST}':>6}"
    hours = f"{sum(seconds.values()) * count / slots / 3600:8.2f}" if seconds else f"{'unknown':>8}"
    return f"{count:6}  {count * len(grid.arms):7,}  {hours}"


def differences(pilot: Results, grid: Grid) -> list[str]:
    """Return in what a pilot's rows were made otherwise than the grid's: data, recipe, budget, score, dtype."""
    there = pilot.environment
    now = {
        "data": {"set": grid.data.set, "size": grid.data.size, "classes": list(grid.data.classes)},
        "recipe": grid.recipe.spec,
        "budget": {"unit": grid.budget.unit, "amount": grid.budget.amount},
        "score": {"extractor": grid.score.extractor, "samples": grid.score.samples},
    }
    said = [k for k, wanted in now.items() if any(there[k].get(key) != v for key, v in wanted.items())]
    return said + ["dtype"] * (there.get("dtype", grid.dtype) != grid.dtype)


# --- the pilot


def pilot(grid: Grid, count: int = SEEDS) -> Grid:
    """Return the pilot of a grid: its baseline and the control that changes nothing, at its own budget.

    The seeds are none of the grid's (STATISTICS.md section 1.3): what picks the number of seeds is not judged with.
    """
    inert = next((c for c in tricks_.registry().values() if c.control and changes_nothing(c.card())), None)
    if inert is None:
        raise Refused("a pilot needs a control of which nothing is claimed, and tricks/ has none")
    base = next(arm for arm in grid.arms if arm.role == "baseline").tricks
    own = next((t for arm in grid.arms for t in arm.tricks if type(t) is inert), inert())
    arms = (Arm("baseline", "baseline", base), Arm(own.name(), "control", tricks_.ordered({*base, own})))
    first = 0 if count <= min(grid.seeds) else -(-(max(grid.seeds) + 1) // 100) * 100
    made = replace(
        grid,
        name=f"{grid.name}{SUFFIX}",
        arms=arms,
        design="one-at-a-time",
        seeds=tuple(range(first, first + count)),
    )
    return replace(made, text=_text(made, grid.text))


def _text(grid: Grid, before: str) -> str:
    """Return the pilot as a grid file."""
    [(top, _)] = parse(before, grid.file)
    kept = {k: v for k, v in top.plain().items() if k not in ("tricks", "controls", "design", "tiny")}
    base, control = (arm.tricks for arm in grid.arms)
    kept |= {
        "name": grid.name,
        "controls": {t.name(): t.values or None for t in control if t not in base},
        "design": {"kind": grid.design, "baseline": {t.name(): t.values for t in base}}
        if base
        else grid.design,
        "seeds": {"count": len(grid.seeds), "first": grid.seeds[0]},
    }
    return "# The pilot of a grid: how noisy are its runs? Written by bench plan --pilot.\n" + yaml.safe_dump(
        kept, sort_keys=False, allow_unicode=True
    )
