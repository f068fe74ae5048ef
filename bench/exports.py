"""The verdict table for machines and for papers: verdicts.csv and verdicts.tex."""

import math

import pandas as pd

from bench.analyse import Analysis, Effect
from bench.pages import p_value, value_text
from bench.sections import best_first


def files(analysis: Analysis) -> dict[str, bytes]:
    """Return the exports by file name; none where there is nothing to judge."""
    if not analysis.effects:
        return {}
    return {
        "verdicts.csv": table(analysis)
        .to_csv(index=False, lineterminator="\n", float_format="%.6g")
        .encode(),
        "verdicts.tex": latex(analysis).encode(),
    }


def table(analysis: Analysis) -> pd.DataFrame:
    """Return one row a contrast in grid order (DESIGN.md section 7).

    ratio, low, high: scores with the trick to scores without, with the 95 % interval, empty where n is too small for
    one. failures, failures_baseline: failed trainings among `runs` and `runs_baseline`. cost: ratio of training times.
    """
    rows = [_row(effect, analysis) for effect in analysis.effects]
    return pd.DataFrame(rows).replace([math.inf, -math.inf], math.nan)


def _row(effect: Effect, analysis: Analysis) -> dict[str, object]:
    tricks = analysis.reference.tricks if effect.left_out else effect.arm.tricks
    values = [
        f"{trick}.{field}={value_text(value)}"
        for trick in effect.tricks
        for field, value in tricks.get(trick, {}).items()
    ]
    return {
        "arm": effect.arm.name,
        "trick": ";".join(effect.tricks),
        "values": ";".join(values),
        "n": effect.comparison.n,
        "ratio": effect.ratio.estimate,
        "low": effect.ratio.low,
        "high": effect.ratio.high,
        "p_holm": effect.p_holm,
        "failures": effect.failures_with[0],
        "failures_baseline": effect.failures_without[0],
        "cost": effect.cost.seconds,
        "verdict": effect.verdict,
        "runs": effect.failures_with[1],
        "runs_baseline": effect.failures_without[1],
    }


def latex(analysis: Analysis) -> str:
    """Return the verdicts as a LaTeX table (package booktabs), best first, in which no name is markup."""
    rows = [
        (
            " ".join(effect.arm.name.split()),
            _number(effect.ratio.estimate),
            f"{_number(effect.ratio.low)} to {_number(effect.ratio.high)}",
            str(effect.comparison.n),
            "{} of {}".format(*effect.failures_with),
            _number(effect.cost.seconds),
            p_value(effect.p_holm),
            effect.verdict,
        )
        for effect in (*best_first(analysis.tricks), *best_first(analysis.controls))
    ]
    header = [
        "trick",
        f"{analysis.score.short} ratio",
        "95 % interval",
        "n",
        "failed",
        "time ratio",
        "p",
        "verdict",
    ]
    styled = pd.DataFrame(rows, columns=header).style
    styled = styled.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    return styled.to_latex(hrules=True, column_format="lrlrrrrl")


def _number(x: float) -> str:
    return f"{x:.2f}" if 0 < x < math.inf else "--"
