"""Several result sets on one page: each trick's verdict per set, side by side, no number over two protocols."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import pages
from bench.analyse import Analysis, analyse
from bench.effects import Effect
from bench.errors import Refused
from bench.factorial import MainEffect, main_effects
from bench.pages import Block, Fold, Heading, Items, Table, Text, code, plain, ratio_text, slug
from bench.qualify import settings
from bench.report import ENDINGS, chart_files, picture, read, write
from bench.sections import light, meant, protocol

CONTEXTS = (  # of a trick: one that an arm has, one that it leaves out, one on against off in a whole design
    "alone",
    "on top of the others",
    "averaged over the others",
)
YES = {"True": "yes", "False": "no"}
AGREE = ("signs disagree", "differ", "agree", "undecided", "same runs", "one set only")


@dataclass(frozen=True)
class Row:
    """One treatment, the same tricks with the same values, in every set: None where a set has no such arm.

    An element of `said` is a row of `across`; runs: the ids of the treated runs behind each.
    """

    label: str
    control: bool
    said: tuple[Any, ...]
    runs: tuple[frozenset[str], ...] = ()

    @property
    def shared(self) -> bool:
        """Whether more than one set has it: what stands in one only is that set's report's business."""
        return sum(one is not None for one in self.said) > 1

    @property
    def agreement(self) -> str:
        """Whether the sets' verdicts point one way: one of AGREE."""
        there = [one for one in self.said if one]
        decided = {one.verdict for one in there} - {"inconclusive"}
        if there[0].disagree:
            return "signs disagree"
        if len(there) < 2:
            return "one set only"
        behind = [own for own in self.runs if own]
        if len(behind) > 1 and all(a & b for a, b in combinations(behind, 2)):
            return "same runs"
        if len(decided) > 1:
            return "differ"
        return "agree" if decided and all(one.verdict != "inconclusive" for one in there) else "undecided"


class Treated(NamedTuple):
    """One treatment of a result set: its tricks and their values, joined by semicolons, and what is said of it.

    context: one of CONTEXTS; runs: the ids of the runs that had it.
    """

    trick: str
    values: str
    context: str
    said: Effect | MainEffect
    runs: frozenset[str]


def treatments(analysis: Analysis) -> list[Treated]:
    """Return what a set judges: its main effects and controls where its design averages, else its arms."""
    mains, found = main_effects(analysis), []
    for e in mains:
        having = [arm for arm in analysis.arms if e.values.items() <= arm.tricks.get(e.factor, {}).items()]
        runs = frozenset(run for arm in having if e.factor in arm.tricks for run in arm.runs["run"])
        found.append(Treated(e.factor, ";".join(settings({e.factor: e.values})), CONTEXTS[2], e, runs))
    for e in analysis.controls if mains else analysis.effects:
        runs = frozenset(e.arm.runs["run"])
        found.append(Treated(";".join(e.tricks), ";".join(settings(e.values)), CONTEXTS[e.left_out], e, runs))
    return found


def across(analyses: Sequence[Analysis]) -> pd.DataFrame:
    """Return what several result sets say of the same trick with the same values: one row a trick and result set.

    Columns: trick, values, context (one of CONTEXTS), results, data, budget, score, protocol, n, ratio, low, high,
    verdict, qualifiers, disagree. Ratios of different protocols stand side by side and are never pooled. `disagree` =
    it helps in one result set and hurts in another; its rows then carry `dataset-dependent` where data sets differ
    between these, else `budget-dependent`.
    """
    columns = "trick values context results data budget score protocol n ratio low high verdict qualifiers"
    rows = []
    for analysis in analyses:
        environment, runs = analysis.results.environment, analysis.results.runs
        data, budget = environment["data"], environment["budget"]
        setting = (
            analysis.results.name,
            " ".join(str(data[key]) for key in ("set", "classes", "size") if data.get(key)),
            f"{budget.get('amount')} {budget.get('unit')}",
            analysis.score.long,
            ";".join(sorted(runs["protocol"].dropna().unique())),
        )
        for one in treatments(analysis):
            e = one.said
            told = (e.comparison.n, *e.ratio, e.verdict, ";".join(e.qualifiers))
            rows.append((one.trick, one.values, one.context, *setting, *told))
    table = pd.DataFrame(rows, columns=columns.split())
    table = table.sort_values(["trick", "values", "context"], kind="stable", ignore_index=True)
    table["disagree"] = False
    for _, group in table.groupby(["trick", "values", "context"], sort=False):
        opposed = group[group["verdict"].isin(["helps", "hurts"])]
        if opposed["verdict"].nunique() == 2:
            word = "dataset-dependent" if opposed["data"].nunique() > 1 else "budget-dependent"
            table.loc[group.index, "disagree"] = True
            more = [";".join(dict.fromkeys(filter(None, [*q.split(";"), word]))) for q in group["qualifiers"]]
            table.loc[group.index, "qualifiers"] = more
    return table


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
    analyses = [analyse(read(path)) for path in folders]
    table = across(analyses)
    rows = rows_of(table, analyses)
    with drawing.styled():
        shown = [(row.label, row.said) for row in rows if not row.control and row.shared]
        drawn = [charts.by_set(sets, shown)] if shown else []
    blocks = _blocks(name, analyses, rows, [picture(chart) for chart in drawn])
    files = {
        "index.md": pages.to_markdown(blocks).encode(),
        "index.html": pages.to_html(f"{name}: DCGAN tricks on several sets", blocks).encode(),
        "verdicts.csv": table.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode(),
    }
    for chart in drawn:
        files |= chart_files(chart)
    return write(Path(reports) / name, files, {f"by_set.{ending}" for ending in ENDINGS})


def rows_of(table: pd.DataFrame, analyses: Sequence[Analysis]) -> list[Row]:
    """Return one row a treatment, those of most sets first, controls last; the sets' order is kept."""
    sets = [analysis.results.name for analysis in analyses]
    controls = {";".join(e.tricks) for analysis in analyses for e in analysis.controls}
    treated = {(a.results.name, *one[:3]): one.runs for a in analyses for one in treatments(a)}
    cards = {name: card for a in analyses for name, card in a.results.tricks.items()}
    rows = []
    for (trick, values, context), group in table.groupby(["trick", "values", "context"], sort=False):
        by_set = {one.results: one for one in group.itertuples()}
        where = "" if context == "alone" else f" ({context})"
        own = (_setting(v, cards).removeprefix(f"{trick}.") for v in values.split(";") if v)
        label = " ".join([trick.replace(";", "+"), *own]) + where
        runs = tuple(treated.get((one, trick, values, context), frozenset()) for one in sets)
        rows.append(Row(label, trick in controls, tuple(by_set.get(one) for one in sets), runs))
    return sorted(rows, key=lambda row: (row.control, row.said.count(None)))


def _setting(told: str, cards: Mapping[str, Any]) -> str:
    """Return `trick.field=value` for people."""
    place, value = told.split("=", 1)
    trick, field = place.split(".", 1)
    with suppress(ValueError):
        value = meant(cards.get(trick), field, float(value)) or value
    return f"{place}={YES.get(value, value)}"


def _blocks(
    name: str, analyses: Sequence[Analysis], rows: Sequence[Row], drawn: Sequence[Block]
) -> list[Block]:
    sets = [analysis.results.name for analysis in analyses]
    shared = [row for row in rows if row.shared and not row.control]
    apart = [row for row in shared if row.agreement == "signs disagree"]
    same = [row for row in shared if row.agreement == "agree"]
    which = f" ({', '.join(code(row.label) for row in apart)})" if apart else ""
    lead = (
        f"{len(shared)} treatment{'s' * (len(shared) != 1)} stand in more than one of {len(sets)} result sets:"
        f" {len(same)} with the same verdict, {len(apart)} with opposite signs{which}; the others differ otherwise or"
        " are undecided somewhere."
    )
    lights = [(analysis, light(analysis)) for analysis in analyses]
    alone = _table(analyses, "", [row for row in rows if not row.shared])
    return [
        Heading(1, f"{plain(name)}: the same tricks on {len(sets)} result sets"),
        Text(lead, "lead"),
        Text(
            "Every number belongs to one set: scores of different data or protocols are never put together. What may be"
            " compared across sets is the verdict and the direction, and with care the ratio."
        ),
        *[Text(f"{code(a.results.name)}: {one.text}", one.kind) for a, one in lights if one.kind == "alarm"],
        *_shared_runs(analyses),
        *_table(analyses, "Verdicts by set", [row for row in rows if row.shared]),
        *drawn,
        *([Fold("In one set only", alone, "one_set_only")] if alone else []),
        Heading(2, "The sets"),
        Items(
            [
                f"[{plain(a.results.name)}](../{a.results.name}/index.html). {protocol(a)} {one.text}"
                for a, one in lights
            ]
        ),
    ]


def _table(analyses: Sequence[Analysis], title: str, rows: Sequence[Row]) -> list[Block]:
    """Return the verdicts by set under a title, nothing without a row."""
    if not rows:
        return []
    order = {word: i for i, word in enumerate(AGREE)}
    sets = [f"{code(a.results.name)} ({a.score.short} ratio)" for a in analyses]
    table = Table(
        ["trick", *sets, "together"],
        [[code(r.label), *(_cell(one) for one in r.said), r.agreement] for r in rows],
        kind="cards",
        label="verdicts by set" if title else "verdicts in one set only",
        keys=[[None, *(one.ratio if one else np.nan for one in r.said), order[r.agreement]] for r in rows],
    )
    return [*([Heading(2, title)] if title else []), table]


def _shared_runs(analyses: Sequence[Analysis]) -> list[Block]:
    """Warn of sets that hold the same runs: where they agree, they do so with themselves."""
    told = []
    for a, b in combinations(analyses, 2):
        if count := len(set(a.results.runs["run"]) & set(b.results.runs["run"])):
            told.append(f"{code(a.results.name)} and {code(b.results.name)} share {count}")
    if not told:
        return []
    return [
        Text(
            f"**Note.** Some runs are the same: {'; '.join(told)}. Agreement there is no second opinion.",
            "note",
        )
    ]


def _cell(one: Any) -> str:
    if one is None:
        return "not in this set"
    if not one.n:
        return f"**{one.verdict}**, no pair of runs"
    limits = f"({ratio_text(one.low)} to {ratio_text(one.high)})"
    tags = "".join(f", {plain(tag)}" for tag in one.qualifiers.split(";") if tag)
    return f"**{one.verdict}** {ratio_text(one.ratio)} {limits}, n = {one.n}{tags}"
