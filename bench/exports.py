"""The verdict table for machines and for papers: verdicts.csv and verdicts.tex."""

import math
from collections.abc import Container

import pandas as pd

from bench.analyse import Analysis, verdict_table
from bench.factorial import main_effects
from bench.pages import p_value
from bench.qualify import settings


def files(analysis: Analysis) -> dict[str, bytes]:
    """Return the exports by file name; none where there is nothing to judge."""
    if not analysis.effects:
        return {}
    found = verdicts(analysis)
    table = found.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    controls = {e.arm.name for e in analysis.controls}
    return {
        "verdicts.csv": table.encode(),
        "verdicts.tex": latex(found, analysis.score.short, controls, analysis.interval).encode(),
    }


def verdicts(analysis: Analysis) -> pd.DataFrame:
    """Return the verdicts, one row each: of main effects where the design averages, else of arms; controls last."""
    table = verdict_table(analysis)
    mains = main_effects(analysis)
    if not mains:
        return table
    rows = [
        {
            "arm": e.name,
            "trick": e.factor,
            "n": e.comparison.n,
            **{
                key: x if 0 < x < math.inf else math.nan
                for key, x in zip(("ratio", "low", "high"), e.ratio, strict=True)
            },
            "values": ";".join(settings({e.factor: e.values})),
            "p_holm": e.p_holm,
            "failures": e.failures_on[0],
            "failures_baseline": e.failures_off[0],
            "cost": e.cost.seconds,
            "verdict": e.verdict,
            "qualifiers": ";".join(e.qualifiers),
            "reason": e.reason,
            "runs": e.failures_on[1],
            "runs_baseline": e.failures_off[1],
            "p_failures": e.p_failures,
            "needed": e.needed,
        }
        for e in mains
    ]
    controls = table[table["arm"].isin([e.arm.name for e in analysis.controls])]
    judged = pd.DataFrame(rows).astype({"needed": "Int64"})
    return pd.concat([judged, controls], ignore_index=True)[list(table.columns)]


def latex(verdicts: pd.DataFrame, score: str, controls: Container[str] = (), interval: str = "95 %") -> str:
    """Return the verdicts as a LaTeX table (package booktabs), best first, controls last; no name in it is markup."""
    ordered = verdicts.sort_values("ratio", kind="stable")
    ordered = ordered.sort_values(
        "arm", kind="stable", key=lambda arms: arms.map(lambda arm: arm in controls)
    )
    rows = [
        (
            " ".join(row.arm.split()) + " (control)" * (row.arm in controls),
            _number(row.ratio),
            f"{_number(row.low)} to {_number(row.high)}",
            str(row.n),
            f"{row.failures} of {row.runs}",
            _number(row.cost),
            p_value(row.p_holm),
            ", ".join(filter(None, [row.verdict, *row.qualifiers.split(";")])),
        )
        for row in ordered.itertuples()
    ]
    header = [
        "trick",
        f"{score} ratio",
        f"{interval} interval",
        "n",
        "failed",
        "time ratio",
        "p (Holm)",
        "verdict",
    ]
    styled = pd.DataFrame(rows, columns=header).style
    styled = styled.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    return styled.to_latex(hrules=True, column_format="lrlrrrrl")


def _number(x: float) -> str:
    return f"{x:.2f}" if 0 < x < math.inf else "--"
