"""`bench compare A B`: are two result sets of the same experiment the same? An equivalence test for every arm.

B may come from another torch, another GPU, another precision or a changed trick. Reads results only; no torch.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.doubts import doubts
from bench.errors import Refused
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, Results
from bench.stats import ALPHA, FEWEST_PAIRS, Estimate

MARGIN = 0.05
SAME_VERDICTS = ("identical", "equivalent")  # identical: to the last digit, which takes no statistic
VERDICTS = (*SAME_VERDICTS, "different", "inconclusive")
SAME = ("data", "recipe", "budget")  # what must be equal in environment.json, besides the protocol
OF_ROWS = ("dtype", "mode", "device", "runs_per_array", "threads", "source")  # what is compared, by column


@dataclass(frozen=True)
class ArmComparison:
    """One arm in both sets. Ratios are B / A of the Fréchet distance, failed runs at the cap; intervals are 90 %.

    `runs` = runs of A and of B that tell something (the machine's failures do not); `n` = pairs where `paired`, else
    the smaller of the two; `unshared` = such runs of a seed that the other set lacks, left out where paired, and
    `missing` = those seeds of A that B lacks, none where unpaired.
    `failures` = failed trainings of A and of B, `risk` = share of B less share of A with its 95 % interval, and
    `p_failures` Barnard's exact test, corrected by Holm over the arms as `p_holm` is. `identical` = runs with
    one id and one score, to the last digit.
    """

    arm: str
    paired: bool
    n: int
    runs: tuple[int, int]
    unshared: int
    missing: tuple[int, ...]
    ratio: Estimate
    p: float
    p_holm: float
    failures: tuple[int, int]
    risk: Estimate
    p_failures: float
    identical: int
    verdict: str


@dataclass(frozen=True)
class Overall:
    """All arms pooled: the ratio B / A with its 90 % interval over `n` seeds (runs, where some arm is unpaired).

    pooled: what this ratio says by itself; verdict: the same, but `different` where some arm is.
    """

    n: int
    ratio: Estimate
    p: float
    pooled: str
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two result sets, compared; `differs` = (what, in A, in B), `only` = arms that one set lacks.

    doubts: why a set cannot be trusted, with its name.
    """

    names: tuple[str, str]
    margin: float
    differs: tuple[tuple[str, str, str], ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    doubts: tuple[str, ...]
    arms: tuple[ArmComparison, ...]
    overall: Overall

    @property
    def exit_code(self) -> int:
        """0 where all arms and seeds are there and can be trusted, no arm differs and all are equivalent, else 1."""
        same = self.overall.verdict in SAME_VERDICTS and all(a.verdict != "different" for a in self.arms)
        whole = not any(self.only) and not any(arm.missing for arm in self.arms)
        return 0 if same and whole and not self.doubts else 1


def compare(a: Results, b: Results, margin: float = MARGIN, unpaired: bool = False) -> Comparison:
    """Compare two result sets arm by arm, and all arms together.

    An arm is paired by seed where the sets share all of one's seeds or at least six; else, or where `unpaired`,
    its runs are two independent samples. Raises `Refused` where the sets are not one experiment, naming the key.
    """
    if not 0 < margin < 1:
        raise Refused(
            f"--margin {margin:g}: allowed is a share of the score between 0 and 1, such as {MARGIN}"
        )
    _refuse_other(a, b)
    common = [arm for arm in _arms(a) if arm in _arms(b)]
    cap = (a.environment.get("cap") or {}).get("fd") or max(a.runs["fd"].max(), b.runs["fd"].max())
    pairs = {arm: _Sides.of(a, b, arm, float(cap), unpaired) for arm in common}
    pairs = {arm: sides for arm, sides in pairs.items() if min(len(sides.a), len(sides.b))}
    if not pairs:
        raise Refused(f"{a.path} and {b.path} share no arm with scored runs in both; nothing to compare")
    tests = {arm: sides.test() for arm, sides in pairs.items()}
    counts = {arm: (sides.failures("a"), sides.failures("b")) for arm, sides in pairs.items()}
    p_holm = dict(zip(pairs, stats.holm([p for _, p in tests.values()]), strict=True))
    barnard = {arm: stats.barnard(*counts[arm][0], *counts[arm][1]) for arm in pairs}
    barnard = dict(zip(pairs, stats.holm(list(barnard.values())), strict=True))
    arms = tuple(
        _judged(arm, pairs[arm], *tests[arm], float(p_holm[arm]), float(barnard[arm]), *counts[arm], margin)
        for arm in pairs
    )
    names = (a.name, b.name) if a.name != b.name else (str(a.path), str(b.path))
    return Comparison(
        names=names,
        margin=margin,
        differs=tuple(_differences(a, b, common)),
        only=(
            tuple(arm for arm in _arms(a) if arm not in pairs),
            tuple(arm for arm in _arms(b) if arm not in pairs),
        ),
        doubts=tuple(f"{name}: {text}" for name, r in zip(names, (a, b), strict=True) for text in doubts(r)),
        arms=arms,
        overall=_overall(list(pairs.values()), arms, margin),
    )


# --- one arm


@dataclass(frozen=True)
class _Sides:
    """Capped log scores of one arm in both sets, by seed; `failed` says which were failures."""

    a: pd.Series
    b: pd.Series
    failed_a: pd.Series
    failed_b: pd.Series
    paired: bool
    unshared: int
    missing: tuple[int, ...]
    identical: int

    @staticmethod
    def of(a: Results, b: Results, arm: str, cap: float, unpaired: bool) -> "_Sides":
        tables = []
        for results in (a, b):
            runs = results.runs[results.runs["arm"] == arm].set_index("seed")
            runs = runs[~runs["status"].isin(MACHINE_FAILURES)]
            failed = runs["status"].isin(METHOD_FAILURES)
            logs = pd.Series(stats.capped_log(runs["fd"].to_numpy(), failed, cap), index=runs.index).dropna()
            tables.append((runs, logs, failed[logs.index]))
        (rows_a, logs_a, failed_a), (rows_b, logs_b, failed_b) = tables
        shared = logs_a.index.intersection(logs_b.index)
        enough = max(1, min(FEWEST_PAIRS, len(logs_a), len(logs_b)))
        paired = not unpaired and len(shared) >= enough
        same = [seed for seed in shared if _same_run(rows_a.loc[seed], rows_b.loc[seed])]
        unshared = len(logs_a) + len(logs_b) - 2 * len(shared)
        missing = tuple(int(seed) for seed in logs_a.index.difference(logs_b.index)) if paired else ()
        if paired:
            logs_a, logs_b = logs_a[shared], logs_b[shared]
        return _Sides(logs_a, logs_b, failed_a, failed_b, paired, unshared, missing, len(same))

    def failures(self, side: str) -> tuple[int, int]:
        failed = getattr(self, f"failed_{side}")
        return int(failed.sum()), len(failed)

    def test(self) -> tuple[Estimate, float]:
        """Return the difference of logs with its 90 % interval, and the two-sided p."""
        if self.paired:
            d = (self.b - self.a).to_numpy()
            return stats.hodges_lehmann(d, 0.90), stats.signed_rank(d)
        return _two_samples(self.b.to_numpy(), self.a.to_numpy())

    @property
    def both_failed(self) -> int:
        if not self.paired:
            return min(int(self.failed_a.sum()), int(self.failed_b.sum()))
        return int((self.failed_a[self.a.index] & self.failed_b[self.b.index]).sum())

    @property
    def silent(self) -> bool:
        """Whether most pairs failed on both sides: their differences of zero would read as equivalence."""
        return 2 * self.both_failed > min(len(self.a), len(self.b))


def _same_run(a: pd.Series, b: pd.Series) -> bool:
    """Say whether two rows are one run with one outcome, to the last digit."""
    same_score = a["fd"] == b["fd"] or (pd.isna(a["fd"]) and pd.isna(b["fd"]))
    return a["run"] == b["run"] and a["status"] == b["status"] and same_score


def _judged(
    arm: str,
    sides: _Sides,
    difference: Estimate,
    p: float,
    p_holm: float,
    p_failures: float,
    failures_a: tuple[int, int],
    failures_b: tuple[int, int],
    margin: float,
) -> ArmComparison:
    n = min(len(sides.a), len(sides.b))
    if sides.paired and sides.identical == n:
        verdict = "identical"  # the same runs gave the same numbers: no statistic is needed
    elif p_failures < ALPHA:
        verdict = "different"
    elif sides.silent:
        verdict = "inconclusive"
    else:
        verdict = _verdict(n, difference, p_holm, margin)
    return ArmComparison(
        arm=arm,
        paired=sides.paired,
        n=n,
        runs=(failures_a[1], failures_b[1]),
        unshared=sides.unshared,
        missing=sides.missing,
        ratio=_exp(difference),
        p=p,
        p_holm=p_holm,
        failures=(failures_a[0], failures_b[0]),
        risk=newcombe(*failures_b, *failures_a),
        p_failures=p_failures,
        identical=sides.identical,
        verdict=verdict,
    )


def _verdict(n: int, difference: Estimate, p: float, margin: float) -> str:
    """Judge by the order of STATISTICS.md section 2.4: enough runs, equivalence, significance."""
    if n < FEWEST_PAIRS:
        return "inconclusive"
    if max(-difference.low, difference.high) < math.log1p(margin):
        return "equivalent"
    return "different" if p < ALPHA else "inconclusive"


def _overall(sides: list[_Sides], arms: tuple[ArmComparison, ...], margin: float) -> Overall:
    """Pool the arms: where all are paired the unit is a seed, with the median of its differences over the arms.

    An arm that fails on both sides says nothing of a difference, and is left out.
    """
    identical = all(s.paired and s.identical == len(s.a) for s in sides)
    telling = [s for s in sides if not s.silent]
    sides = telling or sides
    if all(s.paired for s in sides):
        by_seed = pd.concat([s.b - s.a for s in sides], axis=1).median(axis=1).to_numpy()
        n, difference, p = len(by_seed), stats.hodges_lehmann(by_seed, 0.90), stats.signed_rank(by_seed)
    else:  # logs less the median of their arm in A
        logs_a = np.concatenate([s.a - s.a.median() for s in sides])
        logs_b = np.concatenate([s.b - s.a.median() for s in sides])
        n, (difference, p) = min(len(logs_a), len(logs_b)), _two_samples(logs_b, logs_a)
    pooled = _verdict(n, difference, p, margin) if telling else "inconclusive"
    pooled = "identical" if identical else pooled
    verdict = "different" if any(arm.verdict == "different" for arm in arms) else pooled
    return Overall(n, _exp(difference), p, pooled, verdict)


# --- statistics that bench.stats does not have


def _two_samples(b: NDArray[np.float64], a: NDArray[np.float64]) -> tuple[Estimate, float]:
    """Return the Hodges-Lehmann shift of b against a with its exact 90 % interval, and the rank-sum test's p.

    The interval inverts the exact Mann-Whitney distribution; Hollander, Wolfe and Chicken 2014, section 4.2 and 4.3.
    """
    from scipy.stats import mannwhitneyu  # here, because importing scipy takes a second

    apart = np.sort(np.subtract.outer(b, a), axis=None)
    k = int(np.argmax(rank_sum_cdf(len(b), len(a)) > 0.05))
    low, high = (apart[k - 1], apart[-k]) if k else (-np.inf, np.inf)
    p = 1.0 if np.ptp(np.concatenate([a, b])) == 0 else float(mannwhitneyu(b, a).pvalue)
    return Estimate(float(np.median(apart)), float(low), float(high)), p


def rank_sum_cdf(n: int, m: int) -> NDArray[np.float64]:
    """Return P(U <= u) for u = 0 .. n m, U the Mann-Whitney statistic of untied samples of n and m.

    By the generating function prod (1 - x^(m+i)) / (1 - x^i), in whole numbers of any length.
    """
    ways = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            ways[u] -= ways[u - m - i]
        for u in range(i, n * m + 1):
            ways[u] += ways[u - i]
    total = math.comb(n + m, n)
    return np.cumsum([way / total for way in ways])


def newcombe(k1: int, n1: int, k2: int, n2: int) -> Estimate:
    """Return k1/n1 - k2/n2 with Newcombe's 95 % interval (his method 10, from Wilson's limits)."""
    one, two = stats.wilson(k1, n1), stats.wilson(k2, n2)
    d = one.estimate - two.estimate
    low = d - math.hypot(one.estimate - one.low, two.high - two.estimate)
    high = d + math.hypot(one.high - one.estimate, two.estimate - two.low)
    return Estimate(d, low, high)


def _exp(difference: Estimate) -> Estimate:
    return Estimate(*(float(np.exp(x)) for x in difference))


# --- what must be equal, and what may differ


def _arms(results: Results) -> dict[str, dict[str, Any]]:
    """Return the tricks of each arm, by name."""
    return {arm["arm"]: arm["tricks"] for arm in results.environment["arms"]}


def _refuse_other(a: Results, b: Results) -> None:
    """Refuse sets whose scores do not mean the same, naming what differs."""
    for results in (a, b):
        if not len(results.runs):
            raise Refused(f"{results.path / 'runs.csv'}: no rows; nothing to compare")
        if results.runs["fd"].isna().all():
            raise Refused(f"{results.path / 'runs.csv'}: no run has a score fd; nothing to compare")
    for key in SAME:
        refuse_different(a.path, b.path, key, *(_meaning(key, r.environment[key]) for r in (a, b)))
    refuse_different(a.path, b.path, "protocol", _protocol(a), _protocol(b))


def _meaning(key: str, value: dict[str, Any]) -> dict[str, Any]:
    """Leave out where a folder of pictures lies: its checksum says what it holds."""
    return {k: v for k, v in value.items() if k != "path"} if key == "data" else value


def _protocol(results: Results) -> dict[str, Any]:
    used = results.runs["protocol"].dropna()
    return results.environment["protocols"][used.iloc[0]] if len(used) else {}


def refuse_different(
    first: object, second: object, kind: str, a: dict[str, Any], b: dict[str, Any], why: str = "compared"
) -> None:
    """Refuse two descriptions that differ, naming their keys and values."""
    keys = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    if keys:
        told = ", ".join(
            f"{key} ({_short(a.get(key, 'absent'))} against {_short(b.get(key, 'absent'))})" for key in keys
        )
        raise Refused(f"{first} and {second} cannot be {why}: {kind} differs in {told}")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _differences(a: Results, b: Results, common: list[str]) -> list[tuple[str, str, str]]:
    """Return what differs between the sets: environments, columns of the rows, and tricks of one arm's name."""
    found, tables = [], [r.runs[r.runs["arm"].isin(common)] for r in (a, b)]
    records = [
        [r.environment["environments"][key] for key in rows["environment"].dropna().unique()]
        for r, rows in zip((a, b), tables, strict=True)
    ]
    keys = dict.fromkeys(key for side in records for record in side for key in record)
    for key in keys:
        there = [_values([record.get(key) for record in side]) for side in records]
        if there[0] != there[1]:
            found.append((key, *there))
    named = {key for key, *_ in found}
    for column in OF_ROWS:
        there = [_values(rows[column].dropna().tolist()) for rows in tables]
        if there[0] != there[1] and column not in named:
            found.append((column, *there))
    for arm in common:
        there = [_arms(r)[arm] for r in (a, b)]
        if there[0] != there[1]:
            found.append((f"tricks of {arm}", *(json.dumps(tricks) for tricks in there)))
    return found


def _values(values: list[Any]) -> str:
    """Return distinct values in order, a few of many."""
    return _few(sorted({"none" if value is None else str(value) for value in values}))


def _few(some: Sequence[object]) -> str:
    return ", ".join(map(str, some[:3])) + (f" and {len(some) - 3} more" if len(some) > 3 else "")


# --- for people and machines


def lines(c: Comparison) -> list[str]:
    """Return the comparison as lines of text: what differs, a table of the arms, the verdict."""
    a, b = c.names
    out = [f"NOT TO BE TRUSTED: {text}" for text in c.doubts]
    out += [f"{a} (A) against {b} (B): FD ratios B / A with 90 % intervals, margin {c.margin:.3g}"]
    out += [f"  {what}: {one} | {other}" for what, one, other in c.differs] or ["  nothing else differs"]
    for name, only in zip(("A", "B"), c.only, strict=True):
        if only:
            out.append(
                f"  only in {name}, or without a score in the other, so not compared: {', '.join(only)}"
            )
    if short := [arm for arm in c.arms if arm.missing]:
        told = "; ".join(f"{arm.arm}: {_few(arm.missing)}" for arm in short)
        out.append(f"  NOT WHOLE: B has no score for seeds that A has, so they are not compared: {told}")
    paired = [arm.paired for arm in c.arms]
    how = (
        "paired by seed"
        if all(paired)
        else "unpaired"
        if not any(paired)
        else "paired where the table says so"
    )
    out.append(f"  runs are {how}: the same seed has the same initial weights, data order and latents")
    header = [
        "arm",
        "n",
        "ratio",
        "90 % interval",
        "p (Holm)",
        "failed A",
        "failed B",
        "identical",
        "verdict",
    ]
    table = [header]
    for arm in c.arms:
        table.append(
            [
                arm.arm,
                f"{arm.n} pairs" if arm.paired else f"{arm.runs[0]}, {arm.runs[1]} runs",
                f"{arm.ratio.estimate:.3f}",
                "-" if arm.verdict == "identical" else f"{arm.ratio.low:.3f} to {arm.ratio.high:.3f}",
                f"{arm.p_holm:.2g}",
                *(f"{k}/{n}" for k, n in zip(arm.failures, arm.runs, strict=True)),
                f"{arm.identical}",
                arm.verdict,
            ]
        )
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    out += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    unable = [
        a.arm
        for a in c.arms
        if a.paired and a.verdict != "identical" and len(c.arms) * 2.0 ** (1 - a.n) >= ALPHA
    ]
    if unable and len(unable) == len(c.arms):
        out.append(f"with {c.arms[0].n} pairs and {len(c.arms)} arms no single arm can be called different")
    for arm in c.arms:
        if arm.p_failures < ALPHA:
            told = f"{arm.risk.estimate:+.2f} ({arm.risk.low:+.2f} to {arm.risk.high:+.2f})"
            out.append(f"{arm.arm}: failures differ: {told}, Barnard's p (Holm) {arm.p_failures:.2g}")
    return [*out, *_overall_lines(c)]


def _overall_lines(c: Comparison) -> list[str]:
    """Return the verdict in words: the pooled ratio, but which arms differ first, whose ratio that is not."""
    o, count, paired = c.overall, len(c.arms), all(arm.paired for arm in c.arms)
    ratio = f"ratio {o.ratio.estimate:.3f} ({o.ratio.low:.3f} to {o.ratio.high:.3f})"
    unit = ("seed" if paired else "run") + "s" * (o.n != 1)
    different = [arm.arm for arm in c.arms if arm.verdict == "different"]
    if o.verdict == "identical":
        return [f"overall, {count} arm{'s' * (count != 1)}, {o.n} {unit}: identical to the last digit"]
    if not different or count == 1:
        return [f"overall, {count} arm{'s' * (count != 1)}, {o.n} {unit}: {ratio}: {o.verdict}"]
    others = [f"{n} {word}" for word in VERDICTS if word != "different" for n in [_counted(c, word)] if n]
    rest = f"; the others: {', '.join(others)}" if others else ""
    what = "the median over the arms" if paired else "the runs of all arms together"
    return [
        f"overall, {count} arms: different, in {len(different)} of {count}: {', '.join(different)}{rest}",
        f"  {what}, {o.n} {unit}: {ratio}, by itself {o.pooled}",
    ]


def _counted(c: Comparison, verdict: str) -> int:
    return sum(arm.verdict == verdict for arm in c.arms)


def document(c: Comparison) -> dict[str, Any]:
    """Return the comparison as plain data for JSON; an infinite limit is null."""

    def interval(e: Estimate) -> dict[str, float | None]:
        return {k: v if math.isfinite(v) else None for k, v in e._asdict().items()}

    return {
        "a": c.names[0],
        "b": c.names[1],
        "margin": c.margin,
        "differs": [{"what": what, "a": one, "b": other} for what, one, other in c.differs],
        "doubts": list(c.doubts),
        "only": {"a": list(c.only[0]), "b": list(c.only[1])},
        "arms": [vars(arm) | {"ratio": interval(arm.ratio), "risk": interval(arm.risk)} for arm in c.arms],
        "overall": vars(c.overall) | {"ratio": interval(c.overall.ratio)},
        "exit_code": c.exit_code,
    }


def table(c: Comparison) -> pd.DataFrame:
    """Return one row an arm and the last row for all arms, as `--csv` prints them."""
    rows = [
        {
            "arm": arm.arm,
            "paired": arm.paired,
            "n": arm.n,
            "ratio": arm.ratio.estimate,
            "low": arm.ratio.low,
            "high": arm.ratio.high,
            "p_holm": arm.p_holm,
            "failures_a": f"{arm.failures[0]}/{arm.runs[0]}",
            "failures_b": f"{arm.failures[1]}/{arm.runs[1]}",
            "p_failures": arm.p_failures,
            "identical": arm.identical,
            "verdict": arm.verdict,
        }
        for arm in c.arms
    ]
    o = c.overall
    whole = {
        "arm": "(all)",
        "paired": all(arm.paired for arm in c.arms),
        "n": o.n,
        "ratio": o.ratio.estimate,
        "low": o.ratio.low,
        "high": o.ratio.high,
        "p_holm": o.p,
        "identical": sum(arm.identical for arm in c.arms),
        "verdict": o.verdict,
    }
    return pd.DataFrame([*rows, whole])
