"""From a results folder to arms, effects and verdicts: everything the report says, as values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import stats, verdicts
from bench.cells import Cells, cells
from bench.effects import Analysis, Arm, Cost, Effect, Score
from bench.errors import Refused
from bench.pages import code
from bench.qualify import qualified, settings
from bench.results import MACHINE_FAILURES, Results
from bench.stats import ALPHA, Comparison, Estimate


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


def analyse(results: Results, seeds: Sequence[int] | None = None, alpha: float | None = None) -> Analysis:
    """Return the arms, effects and verdicts of a results folder.

    seeds: only these runs, as if there were no others (the first look of a grid with two); all by default.
    alpha: of tests and intervals; by default .05, shared out among the looks that environment.json declares.
    Raises Refused for seeds that no run has, or an alpha that is no level.

    With two looks at alpha / 2 each arm is judged by all the seeds it has: Holm over a family of which some stopped
    at the first look calls something false in at most alpha / 2 + alpha / 2 of all grids, and what the first look
    called stays called, since p values of the others can only join below it.
    """
    looks = declared_looks(results)
    alpha = ALPHA / max(1, len(looks)) if alpha is None else alpha
    if not 0 < alpha < 0.5:
        raise Refused(f"alpha: {alpha}, allowed is a number between 0 and .5, such as {ALPHA}")
    if seeds is not None:
        results = _only(results, seeds)
    runs, environment = results.runs, results.environment
    scored = bool(runs["fd"].notna().any()) or "fid" in environment["score"].get("metrics", ())
    measured = (environment.get("cap") or {}).get("fd")
    worst = float(runs["fd"].max()) if runs["fd"].notna().any() else 1.0
    table = cells(results, float(measured or worst), scored)
    arms = _arms(environment["arms"], runs, table, alpha)
    reference = next(arm for arm in arms if arm.role == "baseline")
    stack = _stack(arms, reference)
    effects = [_effect(arm, reference, stack, table, alpha) for arm in arms if arm is not reference]
    return Analysis(
        results=results,
        score=score_of(environment["score"].get("extractor") or "unnamed"),
        scored=scored,
        cap=table.cap,
        cap_is_measured=bool(measured),
        seeds=tuple(table.seeds.tolist()),
        arms=arms,
        reference=reference,
        effects=tuple(qualified(_judged(effects, alpha), results, table, alpha)),
        family=sum(arm.role == "trick" for arm in arms),
        alpha=alpha,
        unstable_baseline=verdicts.unstable(reference.failures, reference.n),
    )


def declared_looks(results: Results) -> tuple[int, ...]:
    """Return the numbers of seeds at which the grid meant to look, empty where it declared no looks."""
    looks = (results.environment.get("design_detail") or {}).get("looks") or ()
    whole = isinstance(looks, list | tuple) and all(isinstance(x, int) and x > 0 for x in looks)
    if not whole or list(looks) != sorted(set(looks)):
        raise Refused(
            f"{results.path / 'environment.json'}: design_detail.looks is {looks}, allowed are rising numbers of"
            " seeds, such as [10, 20]"
        )
    return tuple(looks)


def _only(results: Results, seeds: Sequence[int]) -> Results:
    """Return the results as if only these seeds had been run."""
    there = set(results.runs["seed"])
    if missing := sorted(set(seeds) - there):
        have = ", ".join(map(str, sorted(there)))
        raise Refused(
            f"seeds: {missing[0]} is not in {results.path / 'runs.csv'}, which has {have or 'none'}"
        )
    runs = results.runs[results.runs["seed"].isin(list(seeds))].reset_index(drop=True)
    return replace(results, runs=runs, curves=results.curves[results.curves["run"].isin(runs["run"])])


def _arms(
    described: Sequence[dict[str, Any]], runs: pd.DataFrame, table: Cells, alpha: float
) -> tuple[Arm, ...]:
    runs = runs.sort_values("seed", kind="stable")
    runs = runs.set_index(runs["seed"].astype(int))
    by_arm = dict(iter(runs.groupby("arm", observed=True)))
    arms = []
    for i, arm in enumerate(described):
        own = by_arm.get(arm["arm"], runs.iloc[:0])
        logs = pd.Series(table.logs[i, np.searchsorted(table.seeds, own.index)], index=own.index)
        level = stats.hodges_lehmann(logs.dropna(), 1 - alpha)
        level = Estimate(*(float(np.exp(x)) for x in level))
        arms.append(Arm(arm["arm"], arm["role"], arm["tricks"], own, logs, level))
    return tuple(arms)


def _extra(arm: Arm, beside: Arm) -> list[str]:
    """Return the tricks that an arm sets otherwise than another."""
    return [name for name, values in arm.tricks.items() if beside.tricks.get(name) != values]


def _stack(arms: Sequence[Arm], reference: Arm) -> Arm | None:
    """Return the arm from which others leave one trick out, where a grid has both designs: all its parts are there.

    Such an arm adds three tricks or more to the reference, every arm that lacks just one of them is in the grid, and
    no other arm but the stack itself adds more than one.
    """
    added = {arm.name: _extra(arm, reference) for arm in arms if arm.role == "trick"}
    stack = max((a for a in arms if a.name in added), key=lambda a: len(added[a.name]), default=None)
    if stack is None or len(added[stack.name]) < 3:
        return None
    less = [a for a in arms if len(added.get(a.name, ())) > 1 and a is not stack]
    gone = [name for a in less if _is_less(a, stack) for name in set(stack.tricks) - set(a.tricks)]
    return stack if sorted(gone) == sorted(added[stack.name]) and len(less) == len(gone) else None


def _is_less(arm: Arm, stack: Arm) -> bool:
    """Say whether an arm is the stack without exactly one of its tricks."""
    return len(arm.tricks) == len(stack.tricks) - 1 and not _extra(arm, stack)


def _effect(arm: Arm, reference: Arm, stack: Arm | None, table: Cells, alpha: float) -> Effect:
    """Compare an arm with its other side, seed by seed; the verdict waits for the family."""
    inside = stack is not None and _is_less(arm, stack) and len(_extra(arm, reference)) > 1
    other = stack if stack is not None and inside else reference
    changed, removed = _extra(arm, other), [name for name in other.tricks if name not in arm.tricks]
    left_out = bool(removed) and not changed
    treated, without = (other, arm) if left_out else (arm, other)
    i, j = (table.arms.index(side.name) for side in (treated, without))
    both = np.isfinite(table.logs[i]) & np.isfinite(table.logs[j])
    a, b, failed = table.logs[i, both], table.logs[j, both], table.failed[[i, j]][:, both]
    pairs = pd.DataFrame(
        {"with": a, "without": b, "failed": failed.any(axis=0)},
        index=pd.Index(table.seeds[both], name="seed"),
    )
    sound = ~failed.any(axis=0)
    return Effect(
        arm=arm,
        other=other,
        left_out=left_out,
        tricks=tuple(removed if left_out else changed + removed),
        comparison=stats.compare(a, b, int(failed.all(axis=0).sum()), alpha),
        pairs=pairs,
        conditional=stats.hodges_lehmann((a - b)[sound], 1 - alpha),
        failures_with=(treated.failures, treated.n),
        failures_without=(without.failures, without.n),
        cost=_cost(table, i, j),
        poi=stats.improvement(a - b),
        poi_of_any=stats.improvement_of_any(a, b),
    )


def _judged(effects: Sequence[Effect], alpha: float) -> list[Effect]:
    """Give the verdicts: tricks as one family, controls by themselves."""
    cases = []
    for e in effects:
        sides = (e.other, e.arm) if e.left_out else (e.arm, e.other)
        lost = [(side.lost, len(side.runs)) for side in sides]
        in_family = e.arm.role == "trick"
        cases.append(verdicts.Case(e.comparison, e.failures_with, e.failures_without, *lost, in_family))
    return [
        replace(
            effect,
            p_holm=said.p_holm,
            p_failures=said.p_failures,
            verdict=said.word,
            reason=said.reason,
            qualifiers=said.tags,
            detectable=said.detectable,
            needed=said.needed,
        )
        for effect, said in zip(effects, verdicts.judge(cases, alpha), strict=True)
    ]


def _cost(table: Cells, treated: int, without: int) -> Cost:
    """Return the cost of one side against the other: medians over seeds of finished runs.

    Seconds are compared only between runs of one seed that were timed under equal conditions.
    """
    finished = ~table.stopped[treated] & ~table.stopped[without]
    alike = table.timing[treated] == table.timing[without]

    def ratio(column: str, among: Any) -> float:
        values = table.columns[column]
        top, bottom = values[treated, among], values[without, among]
        ratios = top[bottom > 0] / bottom[bottom > 0]
        ratios = ratios[np.isfinite(ratios)]
        return float(np.median(ratios)) if len(ratios) else np.nan

    return Cost(
        ratio("train_seconds", finished & alike),
        ratio("parameters", finished),
        ratio("multiply_adds", finished),
    )


def verdict_table(analysis: Analysis) -> pd.DataFrame:
    """Return the verdicts for machines, one row a contrast in grid order: reports/<name>/verdicts.csv.

    Columns of DESIGN.md section 7, then more. trick, values, qualifiers: joined by semicolons; values as
    trick.field=value. n: pairs of runs. ratio: of scores with to without, below 1 is better; low, high: of its
    1 - alpha interval, empty where n is too small for one. failures, failures_baseline: failed trainings among
    `runs` and `runs_baseline`. cost: ratio of training times. poi: probability of improvement. needed: pairs that
    would find the observed effect in 4 of 5 grids.
    """
    rows = []
    for e in analysis.effects:
        bounds = [x if 0 < x < np.inf else np.nan for x in e.ratio]
        rows.append(
            {
                "arm": e.arm.name,
                "trick": ";".join(e.tricks),
                "values": ";".join(settings(e)),
                "n": e.comparison.n,
                **dict(zip(("ratio", "low", "high"), bounds, strict=True)),
                "p_holm": e.p_holm,
                "failures": e.failures_with[0],
                "failures_baseline": e.failures_without[0],
                "cost": e.cost.seconds,
                "verdict": e.verdict,
                "qualifiers": ";".join(e.qualifiers),
                "reason": e.reason,
                "runs": e.failures_with[1],
                "runs_baseline": e.failures_without[1],
                "p_failures": e.p_failures,
                "poi": e.poi,
                "needed": e.needed,
            }
        )
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS)).astype({"needed": "Int64"})


VERDICT_COLUMNS = (
    *(
        "arm",
        "trick",
        "values",
        "n",
        "ratio",
        "low",
        "high",
        "p_holm",
        "failures",
        "failures_baseline",
        "cost",
    ),
    *("verdict", "qualifiers", "reason", "runs", "runs_baseline", "p_failures", "poi", "needed"),
)


def best_of(arm: Arm) -> np.ndarray:
    """Return the expected best score of k = 1 .. n runs of an arm, failed runs at the cap: (n,)."""
    return stats.best_of(np.exp(arm.logs.dropna()))


def last_to_best(arm: Arm) -> Estimate:
    """Return the last score as a ratio to the best along the budget: median and quartiles over finished runs.

    Points of equal sample counts, so 1 = the last was the best; NaN where no run has both.
    """
    ratios = arm.runs["fd"].astype("float64") / arm.runs["fd_best"].astype("float64").where(
        arm.runs["fd_best"] > 0
    )
    return stats.quartiles(ratios.dropna().to_numpy())


def changes_nothing(card: dict[str, Any] | None) -> bool:
    """Say whether a card is a control of which nothing is claimed: a placebo."""
    return bool(card and card.get("control")) and not any(c.get("direction") for c in card["claims"])


def as_expected(effect: Effect, cards: dict[str, Any]) -> tuple[bool, bool]:
    """Return (is a placebo, did what a control should): a placebo nothing, any other hurts or fails."""
    placebo = bool(effect.tricks) and all(changes_nothing(cards.get(name)) for name in effect.tricks)
    if placebo:
        return True, effect.verdict not in ("helps", "hurts", "unstable")
    return False, effect.verdict in ("hurts", "unstable")


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
