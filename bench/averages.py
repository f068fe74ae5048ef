"""The report's tables of what arms say together: main effects, pairs of tricks, context, unreplicated screens."""

import math
from collections.abc import Sequence

from bench.analyse import Analysis
from bench.factorial import interactions, main_effects, screened
from bench.pages import Bar, Block, Heading, Table, Text, code, p_value, plain, ratio_text
from bench.qualify import CONTEXT
from bench.sections import VERB, claimed, cost_text, failures_text, measured_text, verdict_text
from bench.stats import Comparison


def main_table(analysis: Analysis) -> list[Block]:
    """Return the verdicts of a design whose effects are averages over its cells; nothing for another design."""
    effects = sorted(main_effects(analysis), key=lambda e: (math.isnan(e.ratio.estimate), e.ratio.estimate))
    if not effects:
        return []
    cells = sum(arm.role != "control" for arm in analysis.arms)
    skipped = len(effects[0].left_out)
    order = list(VERB)
    mixed = any(e.aliases for e in effects)  # else the column would say nothing, row by row
    return [
        Heading(2, "Verdicts"),
        Text(
            f"Each trick on against off, averaged over the {cells} cells of this {plain(_kind(analysis))} design, seed"
            " by seed: an effect among the other tricks, not on the baseline alone."
            + (f" {skipped} seeds in which a cell has no score are left out." if skipped else "")
        ),
        Table(
            [
                "trick",
                "the literature says",
                f"we measured ({analysis.score.short} ratio, {analysis.interval} interval, n)",
                "failures",
                "cost",
                *(["also holds"] if mixed else []),
                "verdict",
            ],
            [
                [
                    code(e.name),
                    claimed({e.factor: e.values}, analysis),
                    measured_text(e.comparison, e.ratio),
                    failures_text(e.failures_on, e.failures_off),
                    cost_text(e.cost),
                    *([_shares(e.aliases) or "nothing but itself"] if mixed else []),
                    verdict_text(e),
                ]
                for e in effects
            ],
            kind="cards",
            label="verdicts",
            marks=[e.verdict for e in effects],
            keys=[
                [
                    *(None, None, e.ratio.estimate, _share(e.failures_on), e.cost.seconds),
                    *([None] if mixed else []),
                    order.index(e.verdict),
                ]
                for e in effects
            ],
            bars=[Bar(*e.ratio) for e in effects],
        ),
    ]


def _kind(analysis: Analysis) -> str:
    return str(analysis.results.environment.get("design"))


def _share(failures: tuple[int, int]) -> float:
    return failures[0] / failures[1] if failures[1] else math.nan


def _shares(aliases: Sequence[tuple[str, float]]) -> str:
    """Return what a number holds besides its own effect, each with its share."""
    return ", ".join(f"{share:+g} × {code(name)}" for name, share in aliases)


def pairs(analysis: Analysis) -> list[Block]:
    """Return a table of the pairs of tricks whose interaction this grid can tell; nothing where there is none."""
    found = [i for i in interactions(analysis) if i.comparison.n] if analysis.scored else []
    if not found:
        return []
    found.sort(key=lambda i: (i.p_bh, i.label))
    return [
        Table(
            [
                "pair",
                f"{analysis.score.short} ÷ product of both effects ({analysis.interval} interval, n)",
                "p",
                "found",
                "the first without → with the second",
                "the second without → with the first",
            ],
            [
                [
                    code(i.label),
                    measured_text(i.comparison, i.ratio),
                    p_value(i.p_bh),
                    ("**yes**" if i.found else "no")
                    + ("" if i.named else ": one of these, which cannot be told apart"),
                    _beside(i.single[:2]),
                    _beside(i.single[2:]),
                ]
                for i in found
            ],
            kind="wide",
            label="interactions",
            keys=[[None, i.ratio.estimate, i.p_bh, None, None, None] for i in found],
        ),
        Text(
            "1: the two tricks do not notice each other; below 1: better together than the product of their single"
            " effects. p after Benjamini and Hochberg over the pairs of this grid; found where it is below .10. Last,"
            f" each one's ratio with its {analysis.interval} interval, without and with its partner, averaged over the"
            " rest."
        ),
    ]


def _beside(single: Sequence[Comparison]) -> str:
    """Return an effect without and with a partner, as ratios; a dash where no arms tell."""
    ratios = [[ratio_text(math.exp(x)) for x in comparison.effect] for comparison in single]
    return " → ".join(f"{estimate} ({low} to {high})" for estimate, low, high in ratios) or "–"


def context(analysis: Analysis) -> list[Block]:
    """Return what each trick does alone and on top of all the others; nothing where arms for it are not there."""
    inside = {e.tricks[0]: e for e in analysis.effects if e.left_out and CONTEXT in e.secondary}
    alone = {e.tricks[0]: e for e in analysis.effects if len(e.tricks) == 1 and CONTEXT in e.secondary}
    both = [(alone[name], effect) for name, effect in inside.items() if name in alone]
    if not both:
        return []
    return [
        Heading(3, "Alone and on top of the others"),
        Table(
            ["trick", "alone", "on top of the others", "ratio of the two", "p", "depends on context"],
            [
                [
                    code(one.arm.name),
                    measured_text(one.comparison, one.ratio),
                    measured_text(other.comparison, other.ratio),
                    ratio_text(math.exp(one.secondary[CONTEXT].effect.estimate)),
                    p_value(one.secondary[CONTEXT].p),
                    "**yes**" if "context-dependent" in one.qualifiers else "not shown",
                ]
                for one, other in both
            ],
            kind="wide",
            label="context",
        ),
        Text("p by itself, not corrected: it says whether anything interacts with the trick, not what."),
    ]


def screen(analysis: Analysis) -> list[Block]:
    """Return the effects of a design with one seed by their size; nothing where there are more."""
    found = screened(analysis)
    if not found:
        return []
    return [
        Heading(3, "Screen"),
        Text(
            "One seed has no spread to test against. Effects far off the line of a half-normal plot, above some 2.5"
            " of Lenth's pseudo standard errors, are worth replicating; there is no p."
        ),
        Table(
            ["effect", f"{analysis.score.short} ratio", "half-normal quantile", "Lenth's standard errors"],
            [
                [code(e.name), ratio_text(math.exp(e.effect)), f"{e.quantile:.2f}", f"{e.lenth:.1f}"]
                for e in reversed(found)
            ],
            kind="wide",
            label="screen",
            keys=[[None, math.exp(e.effect), e.quantile, e.lenth] for e in reversed(found)],
        ),
    ]
