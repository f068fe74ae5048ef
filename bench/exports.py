"""The verdict table for machines and for papers: verdicts.csv and verdicts.tex."""

import math

import pandas as pd

from bench.analyse import Analysis, verdict_table
from bench.pages import p_value
from bench.sections import best_first


def files(analysis: Analysis) -> dict[str, bytes]:
    """Return the exports by file name; none where there is nothing to judge."""
    if not analysis.effects:
        return {}
    table = verdict_table(analysis).to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return {"verdicts.csv": table.encode(), "verdicts.tex": latex(analysis).encode()}


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
