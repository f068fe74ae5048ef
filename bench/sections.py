"""The report's first screen: the finding in words, the warning light, and the table that is the product."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from bench import stats
from bench.analyse import Analysis, Effect, as_expected, declared_looks, median_score, names
from bench.effects import Cost
from bench.factorial import Interaction, MainEffect, interactions, main_effects, opposite, turns
from bench.pages import (
    Bar,
    Block,
    Counts,
    Fold,
    Heading,
    Items,
    Table,
    Text,
    amount,
    anchor,
    code,
    link,
    number,
    p_text,
    plain,
    ratio_text,
    slug,
    value_text,
)
from bench.stats import Comparison, Estimate

VERB = {
    "helps": ("helps", "help"),
    "hurts": ("hurts", "hurt"),
    "equivalent": ("makes no practical difference", "make no practical difference"),
    "unstable": ("makes training unstable", "make training unstable"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
}
CLAIMED = {-1: "said to help", 0: "no direction", 1: "said to hurt"}
MOST_SEEDS = 200  # beyond which nobody cares how many exactly
MOST_NAMED = 5  # tricks named under each verdict; the table has them all
MOST_PAIRS = 3  # named among the findings
FALLING = ("fid", "fd", "kid")  # scores of which less is better


def finding(analysis: Analysis) -> list[Block]:
    """Return what somebody reads who reads no more: counts, the sentence, the warning light, power, protocol."""
    blocks: list[Block] = []
    if analysis.scored and (tested := judged(analysis)):
        blocks.append(counts(tested))
    blocks.append(Text(headline(analysis), "lead"))
    if points := findings(analysis):
        blocks.append(Items(points))
    if analysis.scored and analysis.effects:
        blocks += [light(analysis), Text(_power(analysis))]
    return [*blocks, Text(protocol(analysis))]


def judged(analysis: Analysis) -> Sequence[Effect | MainEffect]:
    """Return what the grid judges as one family: its main effects where the design averages, else its arms."""
    return main_effects(analysis) or analysis.tricks


def counts(effects: Sequence[Effect | MainEffect]) -> Counts:
    """Return how many tricks got each verdict."""
    each = [(verdict, sum(e.verdict == verdict for e in effects)) for verdict in VERB]
    return Counts(
        [(v, n, VERB[v][n != 1] if v in ("helps", "hurts") else v) for v, n in each if n or v != "unstable"]
    )


def protocol(analysis: Analysis) -> str:
    """Return in one sentence what was trained and how it was scored."""
    environment = analysis.results.environment
    data, budget, score = (environment[key] for key in ("data", "budget", "score"))
    seeds = len(analysis.seeds)
    others = f"{', '.join(score.get('metrics', []))} in {score.get('extractor')} features"
    judged = analysis.score.long if analysis.scored else plain(others)
    ids = ", ".join(code(name) for name in sorted(analysis.results.runs["protocol"].dropna().unique()))
    return (
        f"**Protocol**: {plain(data.get('set', '?'))} at {data.get('size', '?')} pixels,"
        f" {amount(budget.get('amount', '?'))} {plain(budget.get('unit', ''))} of training a run,"
        f" {len(analysis.arms)} arm{'s' * (len(analysis.arms) != 1)} × {seeds} seed{'s' * (seeds != 1)};"
        f"{_baseline(analysis)}"
        f" score: {judged}, {amount(score.get('samples', '?'))} generated images a run"
        f"{f' (protocol {ids})' if ids else ''}."
    )


def _baseline(analysis: Analysis) -> str:
    """Return the recipe's main settings, where environment.json has them, and the reference's steps."""
    recipe, steps = (
        analysis.results.environment.get("recipe") or {},
        analysis.reference.runs["steps"].dropna(),
    )
    told = [
        f"{word} {recipe[key]:g}"
        for word, key in (("batch", "batch_size"), ("learning rate", "lr"), ("base channels", "channels"))
        if isinstance(recipe.get(key), int | float)
    ]
    told += [f"{amount(int(steps.median()))} steps"] if len(steps) else []
    return f" {code(analysis.reference.name)}: {', '.join(told)};" if told else ""


def light(analysis: Analysis) -> Text:
    """Return the warning light: whether the controls did what controls must."""
    judged = [(e, *as_expected(e, analysis.results.tricks)) for e in analysis.controls]
    placebos = [(effect, fine) for effect, placebo, fine in judged if placebo]
    told = " ".join(_control(effect, analysis) for effect in analysis.controls)
    if not all(fine for _, fine in placebos):
        return Text(f"**Warning light: ON.** {told}", "alarm")
    if not placebos:
        return Text(
            f"**Warning light: missing.** This grid has no placebo, so nothing checks the harness. {told}".strip(),
            "note",
        )
    few = [effect for effect, _ in placebos if effect.comparison.n < stats.FEWEST_PAIRS]
    if few:
        n = min(effect.comparison.n for effect in few)
        return Text(
            f"**Warning light: unknown.** The placebo has {n} pair{'s' * (n != 1)} of runs and a test needs"
            f" {stats.FEWEST_PAIRS}: nothing checks the harness yet.",
            "note",
        )
    if alike := [effect for effect, _ in placebos if effect.alike]:
        return Text(
            f"**Warning light: unknown.** Of the placebo {code(alike[0].arm.name)} {alike[0].alike}: nothing checks the"
            " harness.",
            "note",
        )
    if empty := [effect for effect, _ in placebos if effect.reason.startswith("data: ")]:
        why = plain(empty[0].reason.removeprefix("data: "))
        return Text(
            f"**Warning light: unknown.** The placebo {code(empty[0].arm.name)} says nothing ({why}): nothing checks"
            " the harness.",
            "note",
        )
    if not all(fine for *_, fine in judged):
        return Text(f"**Warning light: half on.** {told}", "note")
    return Text(f"**Warning light: off.** {told}", "good")


def headline(analysis: Analysis) -> str:
    """Return the finding in one sentence: how many tricks got which verdict."""
    if not analysis.scored:
        return "These runs were not scored with a Fréchet distance, so no arm can be judged."
    tricks = judged(analysis)
    if not tricks and not analysis.effects:
        seeds = len(analysis.seeds)
        return (
            f"One arm only, {code(analysis.reference.name)}: its median {analysis.score.short} over {seeds}"
            f" seed{'s' * (seeds != 1)} is {number(median_score(analysis.reference))}; there is nothing to compare it"
            " with."
        )
    if not tricks:
        return ""
    parts = []
    for verdict, words in VERB.items():
        if count := sum(e.verdict == verdict for e in tricks):
            every = count == len(tricks) > 1
            told = ("both" if count == 2 else f"all {count}") if every else f"{count}"
            parts.append(f"{told} {words[count > 1]}")
    many, reference = "s" * (len(tricks) != 1), code(analysis.reference.name)
    if isinstance(tricks[0], MainEffect):
        what = f"trick{many}, each averaged over the others,"
    elif all(e.left_out for e in tricks):
        what = f"trick{many}, each judged inside {reference},"
    elif any(e.left_out for e in tricks):
        what = f"contrast{many}, tricks alone and on top of the others,"
    else:
        what = f"variant{many} of {reference},"
    return f"Of {len(tricks)} {what} {_listed(parts)}."


def findings(analysis: Analysis) -> list[str]:
    """Return under each verdict but `inconclusive` the strongest effects with their intervals, then pairs."""
    if not analysis.scored:
        return []
    change = f" (change of {analysis.score.short}, {analysis.interval} interval)"
    about = {"helps": change, "hurts": change, "equivalent": " (within ±5 %)", "unstable": ""}
    points = []
    for verdict, more in about.items():
        if effects := [e for e in judged(analysis) if e.verdict == verdict]:
            count = len(effects)
            points.append(f"**{count} {VERB[verdict][count > 1]}**{more}: {_strongest(effects)}.")
    return points + _pairs_apart(analysis)


def _strongest(effects: Sequence[Effect | MainEffect]) -> str:
    """Return the strongest of effects with one verdict, each trick once, and how many more there are."""
    by_trick: dict[Any, list[Effect | MainEffect]] = {}
    for effect in sorted(effects, key=_weakness):
        what = effect.factor if isinstance(effect, MainEffect) else (effect.tricks, effect.left_out)
        by_trick.setdefault(what, []).append(effect)
    shown = list(by_trick.values())[:MOST_NAMED]
    told = [f"{_called(first)} {_size(first)}{_others(others)}".strip() for first, *others in shown]
    rest = len(effects) - sum(map(len, shown))
    return "; ".join(told) + (f"; and {rest} more, see the table" if rest else "")


def _others(effects: Sequence[Effect | MainEffect]) -> str:
    """Return in short what a trick's other values did."""
    sizes = [_size(e, brief=True) for e in effects[:MOST_NAMED]]
    return f" (its other value{'s' * (len(effects) > 1)}: {', '.join(sizes)})" if any(sizes) else ""


def _weakness(effect: Effect | MainEffect) -> float:
    """Return a number that is lowest for the strongest of effects with one verdict."""
    if effect.verdict == "unstable":
        k, n = _failed(effect)
        return -k / n
    size = effect.comparison.effect.estimate
    return abs(size) if effect.verdict == "equivalent" else -abs(size)


def _pairs_apart(analysis: Analysis) -> list[str]:
    """Return what is found of pairs that do not add up, the strongest first."""
    found = [i for i in interactions(analysis) if i.found] if judged(analysis) else []
    if not found:
        return []
    ordered = sorted(found, key=lambda i: -abs(i.comparison.effect.estimate))
    which = "; ".join(f"{code(i.label)} {_interval(i.ratio)}" for i in ordered[:MOST_PAIRS])
    rest = len(found) - MOST_PAIRS
    more = f"; and {rest} more, see the section on interactions" if rest > 0 else ""
    title = f"{len(found)} pairs do" if len(found) > 1 else "1 pair does"
    points = [
        f"**{title} not add up**: beside each other against the product of both effects (10 % false discoveries)"
        f" {which}{more}."
    ]
    return points + [_turned(pair) for pair in ordered if turns(pair)][:MOST_PAIRS]


def _turned(pair: Interaction) -> str:
    """Say of a pair that turns around what each does without the other and beside it."""
    told = [
        f"{code(name)} {_change(math.exp(a.effect.estimate))} without {code(other)},"
        f" {_change(math.exp(b.effect.estimate))} beside it"
        for name, other, a, b in (
            (*pair.pair, *pair.single[:2]),
            (*pair.pair[::-1], *pair.single[2:]),
        )
        if opposite(a, b)
    ]
    return f"**A sign turns around**, where an average says little: {'; '.join(told)}."


def _control(effect: Effect, analysis: Analysis) -> str:
    placebo, fine = as_expected(effect, analysis.results.tricks)
    name, verdict = code(effect.arm.name), VERB[effect.verdict][0]
    r = effect.ratio
    size = (
        f"{ratio_text(r.estimate)} ({ratio_text(r.low)} to {ratio_text(r.high)})"
        if effect.comparison.n
        else "–"
    )
    if placebo:
        if fine:
            return f"The placebo {name} {verdict}, {size}: nothing is claimed where there is nothing."
        return f"The placebo {name} {verdict}, {size}, which it cannot; distrust every verdict of this grid."
    if fine:
        return f"The control {name} {verdict}, {size}, as it should."
    return f"The control {name}, which is known to hurt, {verdict} here, {size}: this grid is weak."


def _size(effect: Effect | MainEffect, brief: bool = False) -> str:
    """Return the change, or where failures carry the verdict how many: the ratio is then mostly the cap's."""
    if effect.verdict == "unstable":
        k, n = _failed(effect)
        return f"{k} of {n} runs fail"
    if effect.verdict == "equivalent":
        return ""
    if brief:
        return _change(effect.ratio.estimate)
    steps = f" at {effect.cost.steps:.3g} × the steps" * _differs(effect.cost.steps)
    words = "".join(f", {word}" for word in effect.qualifiers if word != "large")
    return f"{_interval(effect.ratio)}{steps}{words}"


def _failed(effect: Effect | MainEffect) -> tuple[int, int]:
    return effect.failures_on if isinstance(effect, MainEffect) else effect.failures_with


def _interval(ratio: Estimate) -> str:
    """Return a change with its limits."""
    return f"{_change(ratio.estimate)} ({_change(ratio.low)} to {_change(ratio.high)})"


def _called(effect: Effect | MainEffect) -> str:
    """Return the name of what is judged: the arm, what it leaves out, or the main effect."""
    if isinstance(effect, MainEffect):
        return code(effect.name)
    if not effect.left_out:
        return code(effect.arm.name)
    return names(list(effect.tricks)) + (" on top" if effect.other.role != "baseline" else "")


def _change(ratio: float) -> str:
    """Return a ratio as a change in percent, or as a factor where that is clearer."""
    if ratio >= 3:
        return f"× {ratio:.1f}" if ratio < 9.95 else f"× {ratio_text(ratio)}"
    percent = 100 * (ratio - 1)
    return f"{percent:+.{1 if abs(percent) < 0.95 else 0}f} %".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _power(analysis: Analysis) -> str:
    """Say what this grid could and could not detect."""
    n = len(analysis.seeds)
    family, can = analysis.family, analysis.detectable
    if mains := main_effects(analysis):
        family = len(mains)
        each = [
            stats.detectable(e.comparison.spread, e.comparison.n, family, alpha=analysis.alpha) for e in mains
        ]
        can = median(each)
    against = f"{family} contrasts" if family > 1 else "one contrast"
    if math.isinf(can):
        pairs = round(median([e.comparison.n for e in mains or analysis.tricks or analysis.effects]))
        have = f"{n} seed{'s' * (n != 1)}" if pairs == n else f"{pairs} of {n} pairs of runs there"
        return (
            f"What it could detect: nothing. With {have} and {against}, no exact test"
            f" can reach p < {_level(analysis)} after Holm's correction, however large the effect."
        )
    if not can > 0:
        return (
            f"What it could detect: unknown. Most of the {n} seeds gave the same difference, so how far chance goes"
            " cannot be told."
        )
    up = math.exp(can)
    return (
        f"What it could detect: with {n} seeds and {against}, a typical trick that changes the score by a factor of"
        f" {up:.2f} or more (or {1 / up:.2f} or less) is found in 4 of 5 such grids; smaller effects mostly end as"
        " inconclusive, which is not the same as no effect."
    )


# --- the product


def best_first(effects: Sequence[Effect]) -> list[Effect]:
    """Return the effects by their ratio, those without a pair last."""
    return sorted(effects, key=lambda e: (math.isnan(e.ratio.estimate), e.ratio.estimate))


def verdict_table(analysis: Analysis) -> list[Block]:
    """Return the table: trick, claim, measurement, failures, cost, verdict; best first, controls last."""
    if not analysis.effects:
        return []
    cells = bool(main_effects(analysis))  # arms of a design: the first table has the claims and the verdicts
    effects = [*best_first(analysis.tricks), *best_first(analysis.controls)]
    order = list(VERB)
    columns: list[tuple[str, Callable[[Effect], str], Callable[[Effect], float | None]]] = [
        ("trick", lambda e: _who(e, analysis), _text_itself),
        ("the literature says", lambda e: claimed(e.values, analysis), _text_itself),
        (
            f"we measured ({analysis.score.short} ratio, {analysis.interval} interval, n)",
            lambda e: plain(e.alike) or measured_text(e.comparison, e.ratio),
            lambda e: e.ratio.estimate,
        ),
        ("failures", lambda e: failures_text(e.failures_with, e.failures_without), _share),
        ("cost", lambda e: cost_text(e.cost), lambda e: e.cost.seconds),
        ("verdict", lambda e: verdict_text(e, cells), lambda e: order.index(e.verdict)),
    ]
    if cells:
        del columns[1]
    return [
        Heading(2, "Cells against the reference" if cells else "Verdicts"),
        Table(
            [title for title, *_ in columns],
            [[text(e) for _, text, _ in columns] for e in effects],
            kind="cards",
            label="cells" if cells else "verdicts",
            marks=[e.verdict for e in effects],
            keys=[[key(e) for *_, key in columns] for e in effects],
            bars=[Bar(*e.ratio) for e in effects],
            barred=len(columns) - 4,
        ),
    ]


def _text_itself(_: Effect) -> None:
    """Sort a column by its text."""


def _share(effect: Effect) -> float:
    k, n = effect.failures_with
    return k / n if n else math.nan


def _who(effect: Effect, analysis: Analysis) -> str:
    """Return the arm with the values that its name does not show."""
    values = [
        f"{field} {meant(analysis.results.tricks.get(trick), field, value) or value_text(value)}"
        for trick, fields in effect.values.items()
        for field, value in fields.items()
        if f"{field}={value}" not in effect.arm.name
    ]
    most = 8 if len(effect.tricks) == 1 else 4  # of several tricks they would not say whose they are
    more = [f"({plain(', '.join(values))})"] if 0 < len(values) <= most else []
    if effect.left_out:
        more.append(f"on top of the others: arm {code(effect.arm.name)}")
    if effect.arm.role == "control":
        more.append("· control")
    return " ".join([_called(effect), *more])


def meant(card: Mapping[str, Any] | None, field: str, value: Any) -> str:
    """Return in words what a value stands for where the trick says that it is no number like others, else nothing.

    A field's doc says so after a semicolon: `D's rate; 0 is the usual one: ...`, `channels; 0: as published`.
    """
    doc = next((f.get("doc") or "" for f in (card or {}).get("fields", []) if f.get("name") == field), "")
    found = re.search(r"; (-?\d+(?:\.\d+)?)(?: is|:)? ([^:,;]+)", doc)
    number_ = isinstance(value, int | float) and not isinstance(value, bool)
    return found[2].strip() if found and number_ and float(found[1]) == value else ""


def _in_order(trick: str, values: Mapping[str, Any], analysis: Analysis) -> list[tuple[bool, dict]]:
    """Return a trick's claims and whether each is about these settings: such first, then those about the score."""
    claims = analysis.results.tricks.get(trick, {}).get("claims", [])
    known = [(all(values.get(k) == v for k, v in (c.get("about") or {}).items()), c) for c in claims]
    return sorted(known, key=lambda at: (not at[0], at[1].get("metric") not in ("fid", "fd")))


def claim_text(claim: dict) -> str:
    """Return a claim with what it says in one word, its source, and how far that was checked."""
    direction = claim.get("direction") or 0
    word = CLAIMED[direction if claim.get("metric") in FALLING else -direction]
    source = claim.get("source", "")
    source = f" ({link(source, claim.get('url') or '')})" if source else ""
    unchecked = " [from memory, not checked]" if claim.get("evidence") == "recalled" else ""
    about = ", ".join(f"{key} {value_text(value)}" for key, value in (claim.get("about") or {}).items())
    about = f" for {plain(about)}" if about else ""
    return f"**{word}**{about}: {plain(claim.get('text', ''))}{source}{unchecked}"


def claimed(tricks: Mapping[str, Mapping[str, Any]], analysis: Analysis) -> str:
    """Return the first thing that the literature says of each trick as it is set here, and where the rest is."""
    told = []
    for trick, values in tricks.items():
        claims = _in_order(trick, values, analysis)
        if claims:
            (here, first), *others = claims
            more = f"; {anchor(f'{len(others)} more', f'card-{slug(trick)}')}" if others else ""
            told.append(("" if here else "not of these settings: ") + claim_text(first) + more)
    return "; ".join(told) or "–"


def measured_text(comparison: Comparison, r: Estimate) -> str:
    """Return a ratio with its interval and the number of pairs behind it."""
    n = comparison.n
    if not n:
        return "no pair of runs"
    infinite = ": too few pairs for an interval" if math.isinf(r.high) else ""
    return f"**{ratio_text(r.estimate)}** ({ratio_text(r.low)} to {ratio_text(r.high)}), n = {n}{infinite}"


def failures_text(with_it: tuple[int, int], without: tuple[int, int]) -> str:
    """Return failed of all runs on both sides, with Wilson's interval of the first."""
    (k, n), (k0, n0) = with_it, without
    share = stats.wilson(k, n)
    interval = f" ({100 * share.low:.0f} to {100 * share.high:.0f} %)" if n else ""
    return f"{k}/{n}{interval}; without: {k0}/{n0}"


def cost_text(cost: Cost) -> str:
    """Return time, and sizes where they differ, as factors."""
    parts = [f"time × {ratio_text(cost.seconds)}" if not math.isnan(cost.seconds) else "time not comparable"]
    for what, ratio in (
        ("steps", cost.steps),
        ("parameters", cost.parameters),
        ("multiply-adds", cost.multiply_adds),
    ):
        if _differs(ratio):
            parts.append(f"{what} × {ratio_text(ratio)}")
    return ", ".join(parts)


def _differs(ratio: float) -> bool:
    return not math.isnan(ratio) and abs(ratio - 1) > 0.005


def verdict_text(effect: Effect | MainEffect, cell: bool = False) -> str:
    """Return the verdict with what carries it: its p, or the reason, then the qualifiers.

    Of a `cell` of a design it need not say that its own pairs are too few: the main effects use those of all cells.
    """
    if effect.verdict in ("helps", "hurts"):
        told = f"**{effect.verdict}** ({p_text(effect.p_holm)})"
    elif effect.verdict == "unstable":
        told = f"**unstable** ({p_text(effect.p_failures)})"
    elif effect.verdict == "equivalent":
        told = "**equivalent** (within ±5 %)"
    elif cell and effect.reason.startswith("power: ") and math.isinf(effect.detectable):
        told = f"not judged by itself: {effect.comparison.n} pairs cannot decide so many cells"
    elif math.isinf(effect.detectable) or effect.reason.startswith("data: "):
        told = f"inconclusive ({plain(effect.reason.partition(': ')[2]) or 'too few pairs'})"
    else:
        many = (
            f"about {amount(effect.needed)}" if (effect.needed or 0) <= MOST_SEEDS else f"over {MOST_SEEDS}"
        )
        more = (effect.needed or 0) > effect.comparison.n
        seeds = f"; {many} seeds would show it" if more else ""
        told = f"inconclusive (could see × {math.exp(effect.detectable):.2f}{seeds})"
    return ", ".join([told, *(plain(tag) for tag in effect.qualifiers)])


def words(analysis: Analysis) -> list[Block]:
    """Say what each verdict means, in the numbers of this grid."""
    if not analysis.effects:
        return []
    family = len(main_effects(analysis)) or analysis.family
    correction = (
        f"corrected by Holm for the {family} contrasts of this grid" if family > 1 else "one contrast only"
    )
    score, level = analysis.score.short, _level(analysis)
    looks = (
        f" This grid declared two looks: each is judged at {level}, with intervals of {analysis.interval},"
        " so that .05 and 95 % hold over both."
        if declared_looks(analysis.results)
        else ""
    )
    meanings = [
        Table(
            ["verdict", "means"],
            [
                [
                    "**helps**",
                    f"lower {score} than without the trick: exact signed-rank p < {level}, {correction}",
                ],
                ["**hurts**", f"higher {score}, by the same test"],
                [
                    "**equivalent**",
                    f"any effect is within ±5 %: the {100 * (1 - 2 * analysis.alpha):g} % interval of the ratio lies"
                    " inside it",
                ],
                [
                    "**unstable**",
                    "training fails more often with it than without it: Barnard's exact test on the failures, corrected"
                    " alike, and a failure rate surely above 5 %",
                ],
                [
                    "inconclusive",
                    "neither could be shown with this many seeds; “could see × 1.30” = the smallest true factor that"
                    " this contrast would have called in 4 of 5 grids",
                ],
            ],
            kind="pairs",
            label="what the words mean",
        ),
        Text(
            "The ratio is the Hodges-Lehmann estimate of (with ÷ without), paired by seed on the log scale, with its"
            f" exact {analysis.interval} interval; below 1 is better. Runs that diverged, collapsed or did not learn"
            f" count as the worst score ({cap_text(analysis)}) and are never dropped; failures are k of n runs with"
            " Wilson's 95 % interval. Cost is the median over seeds of the ratio of training times on equal terms, and"
            " of sizes where they differ. Controls test the harness: they are outside the family and keep their own p."
            " With few seeds the exact test has few values: many effects may share the smallest p that Holm's"
            f" correction leaves.{looks}"
        ),
    ]
    meanings.append(
        Text(
            "Words after a verdict: large, the interval leaves out ±5 % too; size uncertain, it does not;"
            " budget-dependent, metric-dependent, context-dependent: earlier in training, at equal time or at equal"
            " steps or by another score the sign is the other one, or beside other tricks the effect is another (the"
            " sections on context and interactions say by how much); limit-dependent: not"
            " unstable, were the failure detectors' limits twice as lenient; stabilises: fewer failures than without"
            " it."
        )
    )
    return [Fold("What the words mean", meanings, "words")]


def _level(analysis: Analysis) -> str:
    """Return the level of the tests: .05, or each look's share of it."""
    return f"{analysis.alpha:g}".lstrip("0")


def cap_text(analysis: Analysis) -> str:
    """Return what a failed run counts as."""
    if analysis.cap_is_measured:
        return f"the cap, {number(analysis.cap)}: the score of an untrained generator"
    return f"{number(analysis.cap)}, the worst of this grid"
