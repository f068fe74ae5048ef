"""From a results folder to arms, effects and verdicts: everything the report says, as values."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import stats
from bench.pages import code
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
    level: Estimate  # of the score itself: Hodges-Lehmann over seeds with its 95 % interval

    @property
    def failed(self) -> pd.Series:
        """Which runs are findings of the worst rank, by seed."""
        return self.runs["status"].isin(METHOD_FAILURES)

    @property
    def failures(self) -> int:
        """How many runs failed as training; the machine's failures are not among them."""
        return int(self.failed.sum())

    @property
    def n(self) -> int:
        """How many runs tell something: a score or a failure of the training."""
        return len(self.runs) - int(self.runs["status"].isin(MACHINE_FAILURES).sum())


class Cost(NamedTuple):
    """What a treatment costs, as ratios to its reference; NaN where nothing comparable was measured."""

    seconds: float
    parameters: float
    multiply_adds: float


@dataclass(frozen=True)
class Effect:
    """One contrast of the grid, always told as `with` against `without`: a negative effect is better.

    An arm that lacks some of the reference's tricks (leave-one-out) is the `without` side; else it is `with`.
    """

    arm: Arm
    left_out: bool
    tricks: tuple[str, ...]  # in which the two sides differ
    comparison: Comparison
    pairs: pd.DataFrame  # by seed: `with`, `without` (capped logs), `failed` (either side)
    p_holm: float  # corrected over the family; a control's own p
    verdict: str
    failures_with: tuple[int, int]  # k of n
    failures_without: tuple[int, int]
    cost: Cost
    detectable: float  # as a difference of logs; infinite where n is too small

    @property
    def ratio(self) -> Estimate:
        """The effect as a ratio of scores: below 1 is better."""
        return Estimate(*(float(np.exp(x)) for x in self.comparison.effect))


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


class Readout(NamedTuple):
    """Another way to sample the same generators, against raw weights, last step, running statistics: paired by run.

    `reference` is the comparison over the reference arm's seeds, `arms` each arm's median ratio, by name.
    """

    name: str
    reference: Comparison
    verdict: str
    arms: pd.Series


def readouts(analysis: Analysis) -> list[Readout]:
    """Return what each read-out changed, in the order of the curves; the best point of the budget comes last.

    A read-out is scored on every run, so each arm is its own control; p is uncorrected.
    """
    runs, curves = analysis.results.runs, analysis.results.curves
    usable = runs[~runs["status"].isin((*MACHINE_FAILURES, "diverged"))].set_index("run")
    last = curves[(curves["metric"] == "fd") & curves["run"].isin(usable.index)]
    last = last[last["images"] == last["run"].map(usable["images"])]
    wide = last.pivot_table(index="run", columns="readout", values="value")
    plain_ = usable["fd"].astype("float64")
    scores = {name: wide[name].reindex(usable.index) for name in wide.columns if name != "raw-eval"}
    if runs["fd_best"].notna().any() and scores:
        scores["raw-eval, best point"] = usable["fd_best"].astype("float64")
    found = []
    for name, values in scores.items():
        logs = pd.DataFrame(
            {"arm": usable["arm"], "with": np.log(values), "without": np.log(plain_)}
        ).dropna()
        own = logs[logs["arm"] == analysis.reference.name]
        if own.empty:
            continue
        comparison = stats.compare(own["with"], own["without"])
        ratios = np.exp((logs["with"] - logs["without"]).groupby(logs["arm"]).median())
        found.append(Readout(name, comparison, stats.verdict(comparison, comparison.p), ratios))
    return found


def score_of(extractor: str) -> Score:
    """Return the name of the Fréchet distance in this extractor's features."""
    if extractor.startswith("inception"):
        return Score("FID", "FID")
    return Score("FD", f"FD, {extractor} features")


def analyse(results: Results) -> Analysis:
    """Return the arms, effects and verdicts of a results folder."""
    runs, environment = results.runs, results.environment
    scored = bool(runs["fd"].notna().any()) or "fid" in environment["score"].get("metrics", ())
    cap = (environment.get("cap") or {}).get("fd")
    worst = float(runs["fd"].max()) if runs["fd"].notna().any() else 1.0
    seeds = tuple(sorted(int(seed) for seed in runs["seed"].unique()))
    arms = tuple(
        _arm(arm, runs[runs["arm"] == arm["arm"]], float(cap or worst), scored) for arm in environment["arms"]
    )
    reference = next(arm for arm in arms if arm.role == "baseline")
    family = sum(arm.role == "trick" for arm in arms)
    effects = [_effect(arm, reference, family) for arm in arms if arm is not reference]
    return Analysis(
        results=results,
        score=score_of(environment["score"].get("extractor") or "unnamed"),
        scored=scored,
        cap=float(cap or worst),
        cap_is_measured=bool(cap),
        seeds=seeds,
        arms=arms,
        reference=reference,
        effects=tuple(_judged(effects)),
        family=family,
    )


def _arm(arm: dict[str, Any], runs: pd.DataFrame, cap: float, scored: bool) -> Arm:
    runs = runs.set_index(runs["seed"].astype(int)).sort_index()
    machine = runs["status"].isin(MACHINE_FAILURES)
    scores = runs["fd"].mask(machine)
    failed = runs["status"].isin(METHOD_FAILURES) & scored
    logs = pd.Series(stats.capped_log(scores, failed, cap), index=runs.index)
    level = Estimate(*(float(np.exp(x)) for x in stats.hodges_lehmann(logs.dropna())))
    return Arm(arm["arm"], arm["role"], arm["tricks"], runs, logs, level)


def _effect(arm: Arm, reference: Arm, family: int) -> Effect:
    """Compare an arm with the reference, seed by seed; the verdict waits for the family."""
    removed = [name for name in reference.tricks if name not in arm.tricks]
    kept = all(reference.tricks.get(name) == values for name, values in arm.tricks.items())
    left_out = bool(removed) and kept
    changed = [name for name, values in arm.tricks.items() if reference.tricks.get(name) != values]
    treated, without = (reference, arm) if left_out else (arm, reference)
    pairs = pd.DataFrame({"with": treated.logs, "without": without.logs}).dropna()
    failed = pd.DataFrame({"with": treated.failed, "without": without.failed}).reindex(pairs.index)
    comparison = stats.compare(pairs["with"], pairs["without"], both_failed=int(failed.all(axis=1).sum()))
    in_family = family if arm.role == "trick" else 1
    return Effect(
        arm=arm,
        left_out=left_out,
        tricks=tuple(removed if left_out else changed + removed),
        comparison=comparison,
        pairs=pairs.assign(failed=failed.any(axis=1)),
        p_holm=comparison.p,
        verdict="",
        failures_with=(treated.failures, treated.n),
        failures_without=(without.failures, without.n),
        cost=_cost(treated, without),
        detectable=stats.detectable(comparison.spread, comparison.n, in_family),
    )


def _judged(effects: list[Effect]) -> list[Effect]:
    """Correct the family's p values by Holm, leave the controls their own, and give the verdicts."""
    family = [effect for effect in effects if effect.arm.role == "trick"]
    corrected = dict(
        zip([e.arm.name for e in family], stats.holm([e.comparison.p for e in family]), strict=True)
    )
    judged = []
    for effect in effects:
        p = float(corrected.get(effect.arm.name, effect.comparison.p))
        judged.append(replace(effect, p_holm=p, verdict=stats.verdict(effect.comparison, p)))
    return judged


def _cost(treated: Arm, without: Arm) -> Cost:
    """Return the cost of one side against the other: medians over seeds.

    Seconds are compared only between finished runs of one seed that were timed under equal conditions.
    """
    conditions = ["mode", "dtype", "runs_per_array", "threads", "device", "environment"]
    cut_short = ("diverged", *MACHINE_FAILURES)
    a, b = (side.runs[~side.runs["status"].isin(cut_short)] for side in (treated, without))
    seeds = a.index.intersection(b.index)
    a, b = a.loc[seeds], b.loc[seeds]
    equal = (a[conditions].astype("string").fillna("") == b[conditions].astype("string").fillna("")).all(
        axis=1
    )

    def ratio(column: str, among: Any = slice(None)) -> float:
        top, bottom = (side[column].astype("float64")[among] for side in (a, b))
        ratios = (top / bottom.where(bottom > 0)).dropna()
        return float(ratios.median()) if len(ratios) else np.nan

    return Cost(ratio("train_seconds", equal), ratio("parameters"), ratio("multiply_adds"))


def changes_nothing(card: dict[str, Any] | None) -> bool:
    """Say whether a card is a control of which nothing is claimed: a placebo."""
    return bool(card and card.get("control")) and not any(c.get("direction") for c in card["claims"])


def as_expected(effect: Effect, cards: dict[str, Any]) -> tuple[bool, bool]:
    """Return (is a placebo, did what a control should): a placebo nothing, any other control hurts."""
    placebo = bool(effect.tricks) and all(changes_nothing(cards.get(name)) for name in effect.tricks)
    if placebo:
        return True, effect.verdict not in ("helps", "hurts")
    return False, effect.verdict == "hurts"


def median(arm: Arm, column: str) -> float:
    """Return the median over the arm's runs that have a value, NaN for none."""
    values = arm.runs[column].astype("float64").dropna()
    return float(values.median()) if len(values) else np.nan


def median_score(arm: Arm) -> float:
    """Return the median score over seeds, failed runs at the cap, NaN for none."""
    logs = arm.logs.dropna()
    return float(np.exp(logs.median())) if len(logs) else np.nan


def interquartile_score(arm: Arm) -> float:
    """Return the interquartile mean of the scores, failed runs at the cap, NaN for none."""
    return stats.interquartile_mean(np.exp(arm.logs.dropna()))


def caveats(analysis: Analysis) -> list[str]:
    """Return what a reader must know before trusting the numbers, one sentence each."""
    results, notes = analysis.results, []
    runs = results.runs
    planned = len(analysis.arms) * len(analysis.seeds)
    if len(runs) < planned:
        short = [a.name for a in analysis.arms if len(a.runs) < len(analysis.seeds)]
        notes.append(
            f"The grid is not finished: {len(runs)} of {planned} runs are here; runs are missing in"
            f" {names(short)}."
        )
    machine = runs["status"].isin(MACHINE_FAILURES).sum()
    if machine:
        notes.append(
            f"{machine} of {len(runs)} runs stopped by the machine's fault (status failed or timeout);"
            " their pairs"
            " are left out. `bench run --retry-failed` tries them again."
        )
    if len(analysis.seeds) < stats.FEWEST_PAIRS:
        notes.append(
            f"With {len(analysis.seeds)} seed{'s' * (len(analysis.seeds) > 1)} no exact test can reach p <"
            " .05 and a"
            " 95 % interval is infinite: every verdict is inconclusive until there are"
            f" {stats.FEWEST_PAIRS} or more."
        )
    reference = analysis.reference
    if reference.failures and stats.wilson(reference.failures, reference.n).low > 0.05:
        notes.append(
            f"The reference arm {code(reference.name)} is itself unstable: {reference.failures} of"
            f" {reference.n} runs"
            " failed, so every comparison stands on soft ground."
        )
    scores = reference.logs.dropna()
    if len(scores) > 1 and scores.nunique() == 1 and not reference.failures:
        notes.append("All seeds of the reference arm have the same score: they may not be independent runs.")
    if not analysis.scored:
        notes.append("This grid did not ask for the metric `fid`, so there is nothing to judge arms by.")
    elif not analysis.cap_is_measured:
        notes.append(
            "environment.json names no cap (the score of the untrained generator); failed runs count as"
            " the worst"
            " score of the grid instead."
        )
    stale = [a.name for a in analysis.arms if a.runs["source"].nunique() > 1]
    if stale:
        notes.append(
            f"Rows of different source digests stand side by side in {names(stale)}: part of these rows"
            " was made by"
            " another version of the code and kept."
        )
    used = [results.environment["environments"][key] for key in sorted(runs["environment"].dropna().unique())]
    if len(used) > 1:
        notes.append(f"The rows were made in {len(used)} different environments (see the setting below).")
    if any(environment.get("git_dirty") for environment in used):
        notes.append("Part of the rows was made from a working tree with uncommitted changes.")
    for column, what in (("mode", "modes"), ("dtype", "dtypes")):
        if runs[column].nunique() > 1:
            notes.append(
                f"The rows were computed in different {what}: {names(sorted(runs[column].unique()))}."
            )
    return notes


def names(words: list[str]) -> str:
    """Return `a`, `b` and `c`."""
    quoted = [code(word) for word in words]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
