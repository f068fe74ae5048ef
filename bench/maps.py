"""The report's maps: which runs failed and how, what two tricks do together, and the scores beside the primary one."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from bench import detect, factorial
from bench.analyse import Analysis, Arm
from bench.drawing import (
    BLUE,
    BY_ROLE,
    INK,
    MUTED,
    RED,
    RULE,
    WIDTH,
    Chart,
    add_legend,
    by_seed,
    dot,
    finished,
    limits,
    name_rows,
    new_figure,
    places_of,
    room_for,
    short,
)
from bench.pages import number, ratio_text
from bench.results import MACHINE_FAILURES, METHOD_FAILURES

NAMES = ("failures", "interactions", "other_scores")
SCORES = {
    "kid": "KID × 1000, lower",
    "is": "IS, higher",
    "precision": "precision, higher",
    "recall": "recall, higher",
}


def draw(analysis: Analysis) -> list[Chart]:
    """Return the maps for which the results have data."""
    return [chart for chart in (m(analysis) for m in (failures, interactions, other_scores)) if chart]


# --- 5. failures and symptoms


def failures(analysis: Analysis) -> Chart | None:
    """Return how many runs of each arm had each status and each detector's code."""
    table = failure_table(analysis)
    if table.empty:
        return None
    rows, columns = table.shape
    height = 0.3 * rows + 0.55 + 0.045 * max(len(str(code)) for code in table.columns)
    figure = new_figure(height)
    left = room_for(table.index)
    width = min(WIDTH - left - 1.0, 0.62 * columns)  # the last name leans over the right edge
    axes = figure.add_axes((left / WIDTH, 0.12 / height, width / WIDTH, 0.3 * rows / height))
    runs = np.array([max(1, len(arm.runs)) for arm in analysis.arms])[:, None]
    _cells(axes, table / runs, table.map(lambda k: str(k) if k else ""))
    axes.tick_params(axis="x", pad=15)  # room for the headings
    start = 0
    for heading, count in zip(("status", "failures", "symptoms"), groups(analysis), strict=True):
        if count and start:
            axes.plot([start, start], [-0.55, rows], color=INK, linewidth=1.4, clip_on=False)
        if count:
            axes.text(start + 0.1, -0.15, heading, fontsize=7, color=MUTED)
        start += count
    told = "; ".join(
        f"{arm}: " + ", ".join(f"{k} {code}" for code, k in row.items() if k)
        for arm, row in table.iterrows()
        if row.any()
    )
    partial = int(table.get("collapse_class_partial", pd.Series([0])).sum())
    return finished(
        figure,
        "failures",
        "Failures and symptoms",
        "How many runs of each arm ended in which way (status, where it is not ok), which detectors of failures fired"
        " in them, and which symptoms they had. Several may fire in one run; a symptom does not make a run fail. The"
        " name that a status shares with a detector stands once, as the status. The darker, the larger the share of"
        " the arm's runs."
        + (
            f" `collapse_class_partial` (a class missing or scarce) fired in {partial} of"
            f" {len(analysis.results.runs)} runs and is no failure."
            if partial
            else ""
        ),
        f"Table of counts by arm and code. {told or 'No run failed and no detector fired'}.",
        table.rename_axis("arm").reset_index(),
    )


STATUSES = (*METHOD_FAILURES, *MACHINE_FAILURES)
CODES = tuple(dict.fromkeys(code for own in detect.FAILURES.values() for code in own))


def groups(analysis: Analysis) -> tuple[int, int, int]:
    """Return how many columns of the failure map are statuses, codes of failures, and symptoms, in this order."""
    ended = analysis.results.runs["status"].astype("string")
    statuses = set(ended[ended.isin(STATUSES)])
    columns = failure_table(analysis).columns
    failed = sum(code in CODES and code not in statuses for code in columns)
    return len(statuses), failed, len(columns) - len(statuses) - failed


def failure_table(analysis: Analysis) -> pd.DataFrame:
    """Return counts of runs: arms (rows) by failed status, then by detectors' code; unseen codes have no column."""
    runs = analysis.results.runs
    order = [arm.name for arm in analysis.arms]
    bad = runs[runs["status"] != "ok"]
    statuses = pd.crosstab(bad["arm"].astype("string"), bad["status"].astype("string"))
    statuses = statuses.reindex(columns=[s for s in STATUSES if s in statuses])
    fired = runs.assign(code=runs["detectors"].str.split(";")).explode("code", ignore_index=True)
    fired = fired.dropna(subset="code")
    codes = pd.crosstab(fired["arm"].astype("string"), fired["code"].astype("string"))
    known = [code for code in (*CODES, *detect.SYMPTOMS) if code in codes]
    codes = codes.reindex(columns=[*known, *codes.columns.difference(known)])
    codes = codes.drop(columns=statuses.columns, errors="ignore") if len(codes) else codes
    both = [part.reindex(order).fillna(0).astype(int) for part in (statuses, codes) if len(part)]
    return pd.concat(both, axis=1) if both else pd.DataFrame()


def _cells(axes: Axes, shares: pd.DataFrame, words: pd.DataFrame) -> None:
    """Draw a table of cells, the fuller the nearer to 1 (red) or -1 (blue); see-through, for light and dark pages."""
    rows, columns = shares.shape
    for i, j in np.ndindex(rows, columns):
        share = shares.iat[i, j]
        if np.isfinite(share) and share:
            color = RED if share > 0 else BLUE
            axes.add_patch(
                Rectangle((j, i), 1, 1, facecolor=color, alpha=0.12 + 0.6 * min(1, abs(share)), linewidth=0)
            )
        axes.text(j + 0.5, i + 0.5, words.iat[i, j], ha="center", va="center", fontsize=8.5)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.set_xticks(range(columns + 1), minor=True)
    axes.set_yticks(range(rows + 1), minor=True)
    axes.grid(which="minor", color=RULE, linewidth=0.8)
    axes.xaxis.tick_top()
    names = [short(str(name)) for name in shares.columns]
    axes.set_xticks(np.arange(columns) + 0.5, names, rotation=32, ha="left", fontsize=8)
    name_rows(axes, {str(name): i + 0.5 for i, name in enumerate(shares.index)})
    axes.tick_params(which="both", length=0)
    sns.despine(ax=axes, left=True, bottom=True)


# --- 6. interactions


def interaction_table(analysis: Analysis) -> pd.DataFrame:
    """Return the pairs of tricks whose interaction the grid can tell.

    Columns: first, second, label, n, ratio, low, high, p, found. ratio: of the pair's score to the product of both
    effects. label: the pair with what it is mixed up with.
    """
    if not analysis.scored:
        return pd.DataFrame()
    rows = [
        (*i.pair, i.label, i.comparison.n, *i.ratio, i.p_bh, i.found)
        for i in factorial.interactions(analysis)
        if i.comparison.n
    ]
    return pd.DataFrame(rows, columns=["first", "second", "label", "n", "ratio", "low", "high", "p", "found"])


def interactions(analysis: Analysis) -> Chart | None:
    """Return how far pairs of tricks are from the product of their effects, as a heat map."""
    table = interaction_table(analysis)
    if table.empty:
        return None
    labels = list(dict.fromkeys([*table["first"], *table["second"]]))
    grid = pd.DataFrame(np.nan, index=labels, columns=labels)
    words = pd.DataFrame("", index=labels, columns=labels)
    for row in table.itertuples():
        for a, b in ((row.first, row.second), (row.second, row.first)):
            grid.loc[a, b] = np.log(row.ratio)
            words.loc[a, b] = f"{ratio_text(row.ratio)}{'*' if row.found else ''}"
    left = room_for(labels)
    side = min(WIDTH - left - 0.9, 1.1 * len(labels))  # the last name leans over the right edge
    cell = min(side / len(labels), 0.4)
    height = cell * len(labels) + 0.4 + 0.055 * max(len(short(name)) for name in labels)
    figure = new_figure(height)
    axes = figure.add_axes((left / WIDTH, 0.1 / height, side / WIDTH, cell * len(labels) / height))
    most = max(float(grid.abs().max(axis=None)), 0.1)
    _cells(axes, grid / most, words)
    told = "; ".join(f"{r.label} {ratio_text(r.ratio)} ({limits(r.low, r.high)})" for r in table.itertuples())
    return finished(
        figure,
        "interactions",
        "What two tricks do together",
        f"{analysis.score.short} of the arm with both tricks ÷ what the product of their single effects predicts,"
        " paired by seed. 1: they do not notice each other; below 1 (blue): better together than the product; above 1"
        " (red): worse. A star marks those found: p below .10 after Benjamini and Hochberg over all pairs.",
        f"Heat map of interactions between tricks. {told}.",
        table,
    )


# --- 7. the other scores


def other_scores(analysis: Analysis) -> Chart | None:
    """Return KID, Inception score, precision and recall of every run at the end, one column a score."""
    runs = analysis.results.runs
    shown = {column: title for column, title in SCORES.items() if runs[column].notna().any()}
    if not shown:
        return None
    arms = analysis.arms
    places = places_of([[a.name for a in arms if a.role == r] for r in ("baseline", "trick", "control")])
    height = 0.25 * (max(places.values()) + 1.2) + 1.05
    figure = new_figure(height)
    left = room_for(places)
    each = (WIDTH - left - 0.15) / len(shown)
    jitter = by_seed(analysis.seeds, 0.2)
    for i, (column, title) in enumerate(shown.items()):
        axes = figure.add_axes(
            ((left + i * each) / WIDTH, 0.3 / height, (each - 0.12) / WIDTH, 1 - 1.02 / height)
        )
        fair = pd.concat([_end_values(a, column)[a.runs["status"] == "ok"] for a in arms])
        edges = (
            (fair.min(), fair.max()) if len(fair) else (-np.inf, np.inf)
        )  # a failure must not squeeze the rest
        for arm in arms:
            values = _end_values(arm, column)
            y, color = places[arm.name], BY_ROLE[arm.role]
            inside = values[values.between(*edges)]
            axes.scatter(
                inside, [y + jitter[s] for s in inside.index], s=8, alpha=0.5, linewidth=0, color=color
            )
            for out, edge, arrow in ((values < edges[0], edges[0], "<"), (values > edges[1], edges[1], ">")):
                heights = [y + jitter[s] for s in values[out].index]
                axes.scatter(
                    np.full(len(heights), edge), heights, marker=arrow, s=9, color=RED, clip_on=False
                )
            if len(values) and edges[0] <= values.median() <= edges[1]:
                axes.plot([values.median()] * 2, [y - 0.36, y + 0.36], color=color, linewidth=2)
        reference = _end_values(analysis.reference, column)
        if len(reference):
            axes.axvline(reference.median(), color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=0)
        axes.set_ylim(max(places.values()) + 0.7, -0.7)
        name_rows(axes, places if i == 0 else {})
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=7.5, length=2.5)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_title(f"{title} is better".replace(", ", "\n"), loc="left", fontsize=8)
        sns.despine(ax=axes, left=True)
    handles = [dot(MUTED, "one run"), Line2D([], [], color=MUTED, linewidth=2, label="median over seeds")]
    handles.append(
        Line2D([], [], color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), label="median of the reference")
    )
    add_legend(figure, handles)
    medians = {
        title.split(",")[0]: ", ".join(
            f"{a.name} {number(float(_end_values(a, column).median()))}" for a in arms
        )
        for column, title in shown.items()
    }
    return finished(
        figure,
        "other_scores",
        "The other scores at the end",
        "Every run that has a score, failed runs that could be sampled included. Described, not tested: one primary"
        " score keeps the false alarms at 5 %. Red arrows at the edge: failed runs further out than any good run. All"
        " are computed from the same features as the primary score.",
        "Dot plots by arm. Medians: "
        + "; ".join(f"{title}: {told}" for title, told in medians.items())
        + ".",
        runs[["arm", "seed", "status", *shown]],
    )


def _end_values(arm: Arm, column: str) -> pd.Series:
    """Return the arm's values by seed, KID in thousandths."""
    return arm.runs[column].astype("float64").dropna() * (1000 if column == "kid" else 1)
