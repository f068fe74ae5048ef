"""The verdict table for machines and for papers: verdicts.csv and verdicts.tex."""

import math

import pandas as pd

from bench.analyse import Analysis, Effect
from bench.pages import value_text
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
    """Return one row a contrast, best first, controls last (columns: DESIGN.md section 7, and the role).

    ratio, low, high: scores with the trick to scores without, with the 95 % interval. failures: of the side with
    the trick, `k/n`. cost: ratio of training times. Values are empty where nothing was measured.
    """
    rows = [_row(e, analysis) for e in (*best_first(analysis.tricks), *best_first(analysis.controls))]
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
        "role": effect.arm.role,
        "trick": "+".join(effect.tricks),
        "values": ";".join(values),
        "n": effect.comparison.n,
        "ratio": effect.ratio.estimate,
        "low": effect.ratio.low,
        "high": effect.ratio.high,
        "p_holm": effect.p_holm,
        "failures": "{}/{}".format(*effect.failures_with),
        "failures_baseline": "{}/{}".format(*effect.failures_without),
        "cost": effect.cost.seconds,
        "verdict": effect.verdict,
    }


def latex(analysis: Analysis) -> str:
    """Return the verdicts as a LaTeX table (package booktabs) in which no name is markup."""
    rows = table(analysis)
    shown = pd.DataFrame(
        {
            "trick": [" ".join(str(arm).split()) for arm in rows["arm"]],
            f"{analysis.score.short} ratio": rows["ratio"].map(_number),
            "95 % interval": [f"{_number(a)} to {_number(b)}" for a, b in rows[["low", "high"]].to_numpy()],
            "n": rows["n"],
            "failures": rows["failures"],
            "time": rows["cost"].map(_number),
            "p": ["< .001" if p < 0.001 else f"{p:.3f}" for p in rows["p_holm"]],
            "verdict": rows["verdict"],
        }
    )
    escaped = shown.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    return escaped.to_latex(hrules=True, column_format="lrlrrrrl")


def _number(x: float) -> str:
    return "--" if math.isnan(x) else f"{x:.2f}"
