"""From a results folder to arms, effects and verdicts: everything the report says, as values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import stats, verdicts
from bench.cells import cells, in_company
from bench.contrasts import arms_of, effect_of, judged, stack_of
from bench.doubts import doubts
from bench.effects import Analysis, Arm, Effect, Score, is_placebo
from bench.errors import Refused
from bench.pages import code
from bench.qualify import EQUAL_SECONDS, mistimed, qualified, settings
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
    arms = arms_of(environment["arms"], runs, table, alpha)
    reference = next(arm for arm in arms if arm.role == "baseline")
    stack = stack_of(arms, reference)
    effects = [effect_of(arm, reference, stack, table, alpha) for arm in arms if arm is not reference]
    return Analysis(
        results=results,
        score=score_of(environment["score"].get("extractor") or "unnamed"),
        scored=scored,
        cap=table.cap,
        cap_is_measured=bool(measured),
        seeds=tuple(table.seeds.tolist()),
        arms=arms,
        reference=reference,
        effects=tuple(qualified(judged(effects, alpha), results, table, alpha)),
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
                "values": ";".join(settings(e.values)),
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


def as_expected(effect: Effect, cards: dict[str, Any]) -> tuple[bool, bool]:
    """Return (is a placebo, did what a control should): a placebo nothing, any other hurts or fails."""
    if is_placebo(effect, cards):
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
    results, notes = analysis.results, _seeds_caveats(analysis)
    runs = results.runs
    machine = runs["status"].isin(MACHINE_FAILURES).sum()
    if machine:
        notes.append(
            f"{machine} of {len(runs)} runs stopped by the machine's fault (status failed or timeout);"
            " their pairs"
            " are left out. `bench run --retry-failed` tries them again."
        )
    if len(analysis.seeds) < stats.FEWEST_PAIRS:
        notes.append(
            f"With {len(analysis.seeds)} seed{'s' * (len(analysis.seeds) > 1)} no exact test can reach p < .05 and a"
            " 95 % interval is infinite: every verdict is inconclusive until there are"
            f" {stats.FEWEST_PAIRS} or more."
        )
    reference = analysis.reference
    if not len(reference.runs):
        notes.append(
            f"The reference arm {code(reference.name)} has no runs: there is nothing to compare with."
        )
    if analysis.unstable_baseline:
        notes.append(
            f"The reference arm {code(reference.name)} is itself unstable: {reference.failures} of"
            f" {reference.n} runs"
            " failed, so every comparison stands on soft ground."
        )
    same = [a.name for a in analysis.arms if not a.failures and len(a.logs.dropna()) > 1 == a.logs.nunique()]
    if same:
        notes.append(
            f"All seeds of {names(same)} gave the same number: they may not be independent runs, and nothing can be"
            " concluded from them."
        )
    for alike in _twins(analysis):
        notes.append(
            f"{names(alike)} have the same scores to the last digit in every seed: what tells these arms apart does"
            " nothing there, and an average that counts it as there says too little."
        )
    notes += doubts(results)
    doomed = [a.name for a in analysis.arms if a.n and a.failures == a.n]
    if doomed:
        notes.append(
            f"Every run of {names(doomed)} failed: all scores there are the cap, and a ratio to or from it says no"
            " more than that."
        )
    mostly = [a.name for a in analysis.arms if a.n / 2 < a.failures < a.n]
    if mostly:
        notes.append(f"Most runs of {names(mostly)} failed: a ratio to or from it is mostly the cap's.")
    alone = [
        e.arm.name
        for e in analysis.effects
        if not e.comparison.n and e.arm.logs.notna().any() and e.other.logs.notna().any()
    ]
    if alone:
        notes.append(
            f"No seed of {names(alone)} was also run in what it is compared with: there are no pairs, so no verdict."
        )
    if not analysis.scored:
        notes.append("This grid did not ask for the metric `fid`, so there is nothing to judge arms by.")
    elif not analysis.cap_is_measured:
        notes.append(
            "environment.json names no cap (the score of the untrained generator); failed runs count as the worst"
            " score of the grid instead."
        )
    stale = [a.name for a in analysis.arms if a.runs["source"].nunique() > 1]
    if stale:
        notes.append(
            f"Rows of different source digests stand side by side in {names(stale)}: part of these rows was made by"
            " another version of the code and kept."
        )
    used = [results.environment["environments"][key] for key in sorted(runs["environment"].dropna().unique())]
    if len(used) > 1:
        differ = [key for key in used[0] if len({str(one.get(key)) for one in used}) > 1]
        notes.append(
            f"The rows were made in {len(used)} environments, which differ in {names(differ)} (see the setting below)."
        )
    dirty = [bool(environment.get("git_dirty")) for environment in used]
    if any(dirty):
        whole = "All rows were" if all(dirty) else "Part of the rows was"
        notes.append(f"{whole} made from a working tree with uncommitted changes.")
    if together := sorted(set(runs["arm"][in_company(runs)])):
        notes.append(
            f"{names(together)} shared arrays, and the runs of an array are timed together: what each of these arms"
            " costs in time is not known."
        )
    if effect := mistimed(analysis.effects, results.tricks, analysis.alpha):
        at = effect.secondary.get(EQUAL_SECONDS)
        score = f", and its ratio at equal time is {np.exp(at.effect.estimate):.2f}" if at and at.n else ""
        notes.append(
            f"{code(effect.arm.name)}, which does next to nothing, took × {effect.cost.seconds:.2f} the time of what it"
            f" is compared with{score}: the machine had other work. No cost in time, nor the comparison at equal time,"
            " is better known than that, and no verdict hangs on it."
        )
    for column, what in (("mode", "modes"), ("dtype", "dtypes")):
        if runs[column].nunique() > 1:
            notes.append(
                f"The rows were computed in different {what}: {names(sorted(runs[column].unique()))}."
            )
    return notes


def _twins(analysis: Analysis) -> list[list[str]]:
    """Return the arms that cannot be told apart by their scores, group by group; failed runs are alike anyway."""
    groups: dict[tuple, list[str]] = {}
    for arm in analysis.arms:
        logs = arm.logs.dropna().sort_index()
        if len(logs) > 1 and not arm.failures:
            groups.setdefault((tuple(logs.index), tuple(logs)), []).append(arm.name)
    return [group for group in groups.values() if len(group) > 1]


def _seeds_caveats(analysis: Analysis) -> list[str]:
    """Return what is odd about which seeds there are: runs to come, and runs that were added later."""
    results, seeds = analysis.results, analysis.seeds
    looks = declared_looks(results)
    decided = {e.arm.name for e in analysis.effects if e.verdict != "inconclusive"} if looks else set()
    enough = {a.name: looks[0] if a.name in decided else len(seeds) for a in analysis.arms}
    short = {a.name: enough[a.name] - len(a.runs) for a in analysis.arms if len(a.runs) < enough[a.name]}
    notes = []
    if short:
        there = len(results.runs)
        notes.append(
            f"The grid is not finished: {there} of {there + sum(short.values())} runs are here; runs are missing in"
            f" {names(list(short))}."
        )
    declared = results.environment.get("seeds")  # when the folder was begun
    most = looks[-1] if looks else len(declared) if isinstance(declared, list) else len(seeds)
    if len(seeds) > most:
        notes.append(
            f"The grid declared {most} seeds and has {len(seeds)}: seeds that are added after looking make false"
            " calls more likely than the p values say."
        )
    return notes


def names(words: list[str]) -> str:
    """Return `a`, `b` and `c`."""
    quoted = [code(word) for word in words]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
