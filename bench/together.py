"""Several result sets on one page: each trick's verdict per set, side by side, no number over two protocols."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench import pages
from bench.analyse import Analysis, Effect, analyse
from bench.errors import Refused
from bench.pages import Block, Heading, Items, Table, Text, code, plain, ratio_text, slug, value_text
from bench.report import ENDINGS, chart_files, picture, write
from bench.results import load
from bench.sections import light, protocol

AGREE = ("signs disagree", "differ", "agree", "undecided", "one set only")


@dataclass(frozen=True)
class Row:
    """One treatment, the same tricks with the same values, in every set: None where a set has no such arm."""

    label: str
    role: str
    effects: tuple[Effect | None, ...]

    @property
    def agreement(self) -> str:
        """Whether the sets' verdicts point one way: one of AGREE."""
        said = [effect.verdict for effect in self.effects if effect]
        decided = {verdict for verdict in said if verdict != "inconclusive"}
        if "helps" in decided and decided & {"hurts", "unstable"}:
            return "signs disagree"
        if len(said) < 2:
            return "one set only"
        if len(decided) > 1:
            return "differ"
        return "agree" if decided and "inconclusive" not in said else "undecided"


def together(folders: Sequence[Path], reports: Path, name: str) -> Path:
    """Write reports/<name>/ about two or more results folders and return it.

    Raises Refused where a folder is broken, stands twice, or the name cannot be a folder's.
    """
    from bench import charts, drawing  # here, because seaborn takes seconds to import

    if slug(name) != name:
        raise Refused(
            f"--together: {name!r} cannot name a folder in {reports}/; allowed: {slug(name)!r} and the like"
        )
    sets = [path.resolve().name for path in folders]
    twice = next((one for i, one in enumerate(sets) if one in sets[:i]), None)
    if len(sets) < 2 or twice:
        why = f"{twice} stands twice" if twice else f"{len(sets)} result set"
        raise Refused(
            f"--together: {why}; give two or more different ones: bench report A B --together {name}"
        )
    if name in sets:
        raise Refused(f"--together: {name!r} is one of the result sets; its own report would be overwritten")
    analyses = [analyse(load(path)) for path in folders]
    rows = across(analyses)
    with drawing.styled():
        drawn = [charts.by_set(sets, [(r.label, r.effects) for r in rows])] if rows else []
    blocks = _blocks(name, analyses, rows, [picture(chart) for chart in drawn])
    files = {
        "index.md": pages.to_markdown(blocks).encode(),
        "index.html": pages.to_html(f"{name}: DCGAN tricks on several sets", blocks).encode(),
        "verdicts.csv": table(analyses, rows)
        .to_csv(index=False, lineterminator="\n", float_format="%.6g")
        .encode(),
    }
    for chart in drawn:
        files |= chart_files(chart)
    return write(Path(reports) / name, files, {f"by_set.{ending}" for ending in ENDINGS})


def across(analyses: Sequence[Analysis]) -> list[Row]:
    """Return one row a treatment, those of most sets first, controls last; a set's order is kept."""
    found: dict[tuple[str, str], list[Effect | None]] = {}
    for i, analysis in enumerate(analyses):
        for effect in analysis.effects:
            key = (_label(effect, analysis), effect.arm.role)
            found.setdefault(key, [None] * len(analyses))[i] = effect
    rows = [Row(label, role, tuple(effects)) for (label, role), effects in found.items()]
    return sorted(rows, key=lambda row: (row.role == "control", sum(e is None for e in row.effects)))


def _label(effect: Effect, analysis: Analysis) -> str:
    """Return the treatment by its tricks and values, not by what a grid calls the arm."""
    tricks = analysis.reference.tricks if effect.left_out else effect.arm.tricks
    each = [
        " ".join([trick, *(f"{field}={value_text(value)}" for field, value in tricks.get(trick, {}).items())])
        for trick in effect.tricks
    ]
    return " + ".join(each) + (" (on top of the others)" if effect.left_out else "")


def table(analyses: Sequence[Analysis], rows: Sequence[Row]) -> pd.DataFrame:
    """Return one row a treatment and set: for machines."""
    lines = [
        {
            "treatment": row.label,
            "role": row.role,
            "set": analysis.results.name,
            "score": analysis.score.long,
            "n": effect.comparison.n,
            "ratio": effect.ratio.estimate,
            "low": effect.ratio.low,
            "high": effect.ratio.high,
            "verdict": effect.verdict,
            "agreement": row.agreement,
        }
        for row in rows
        for analysis, effect in zip(analyses, row.effects, strict=True)
        if effect
    ]
    return pd.DataFrame(lines).replace([np.inf, -np.inf], np.nan)


def _blocks(
    name: str, analyses: Sequence[Analysis], rows: Sequence[Row], drawn: Sequence[Block]
) -> list[Block]:
    sets = [analysis.results.name for analysis in analyses]
    shared = [row for row in rows if sum(e is not None for e in row.effects) > 1 and row.role != "control"]
    apart = [row for row in shared if row.agreement == "signs disagree"]
    same = [row for row in shared if row.agreement == "agree"]
    which = f" ({', '.join(code(row.label) for row in apart)})" if apart else ""
    lead = (
        f"{len(shared)} treatment{'s' * (len(shared) != 1)} stand in more than one of {len(sets)} result sets:"
        f" {len(same)} with the same verdict, {len(apart)} with opposite signs{which}; the others differ otherwise or"
        " are undecided somewhere."
    )
    order = {word: i for i, word in enumerate(AGREE)}
    return [
        Heading(1, f"{plain(name)}: the same tricks on {len(sets)} result sets"),
        Text(lead, "lead"),
        Text(
            "Every number belongs to one set: scores of different data or protocols are never put together. What may be"
            " compared across sets is the verdict and the direction, and with care the ratio."
        ),
        Items([f"{code(a.results.name)}: {protocol(a)} {light(a).text}" for a in analyses]),
        *(
            [
                Heading(2, "Verdicts by set"),
                Table(
                    [
                        "trick",
                        *(f"{code(a.results.name)} ({a.score.short} ratio)" for a in analyses),
                        "together",
                    ],
                    [[code(r.label), *(_cell(effect) for effect in r.effects), r.agreement] for r in rows],
                    kind="cards",
                    label="verdicts by set",
                    keys=[
                        [None, *(e.ratio.estimate if e else np.nan for e in r.effects), order[r.agreement]]
                        for r in rows
                    ],
                ),
            ]
            if rows
            else []
        ),
        *drawn,
        Heading(2, "The reports of the sets"),
        Items([f"[{plain(one)}](../{one}/index.html)" for one in sets]),
    ]


def _cell(effect: Effect | None) -> str:
    if effect is None:
        return "not in this set"
    if not effect.comparison.n:
        return f"**{effect.verdict}**, no pair of runs"
    r = effect.ratio
    return (
        f"**{effect.verdict}** {ratio_text(r.estimate)} ({ratio_text(r.low)} to {ratio_text(r.high)}),"
        f" n = {effect.comparison.n}"
    )
