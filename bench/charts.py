"""The report's charts of effects: one function each, from an analysis to one figure with its words and its data."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench import curves, maps
from bench.analyse import Analysis, Arm, Effect, names
from bench.drawing import (
    AMBER,
    BAND,
    BLUE,
    BY_ROLE,
    BY_VERDICT,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    RED,
    RULE,
    WIDTH,
    Chart,
    add_legend,
    by_seed,
    canvas,
    dot,
    draw_interval,
    finished,
    interval_handle,
    limits,
    log_axis,
    new_figure,
    places_of,
    short,
    small_panels,
    styled,
    write_note,
)
from bench.effects import Cost
from bench.factorial import main_effects
from bench.labels import Box, Label, around, beside, near
from bench.pages import number, ratio_text
from bench.stats import MARGIN, Estimate

NAMES = (
    "ratio",
    "pairs",
    "score_by_arm",
    "cost",
    *maps.NAMES,
    *curves.NAMES,
)  # every chart that there can be


def draw(analysis: Analysis) -> dict[str, Chart]:
    """Return all charts for which the results have data, by name."""
    with styled():
        drawn = [chart(analysis) for chart in (ratio, pairs, score_by_arm, cost)]
        drawn += [*maps.draw(analysis), *curves.draw(analysis)]
    return {chart.name: chart for chart in drawn if chart}


# --- 1. the score of every run


def score_by_arm(analysis: Analysis) -> Chart | None:
    """Return every run's score by arm, failed runs as crosses at the cap, with each arm's interval."""
    if not analysis.scored:
        return None
    arms = analysis.arms
    of_role = {r: [a.name for a in arms if a.role == r] for r in ("baseline", "trick", "control")}
    places = places_of(list(of_role.values()))
    figure, axes = canvas([a.name for a in arms], 0.62, 1.5, places)
    jitter = by_seed(analysis.seeds)
    logs = pd.concat([a.logs for a in arms]).dropna()
    any_failed = any(a.failures for a in arms)
    top = max(float(np.exp(logs.max())), analysis.cap if any_failed else 0) if len(logs) else 10.0
    bottom = float(np.exp(logs.min())) if len(logs) else 1.0
    log_axis(axes.xaxis, bottom / 1.12, top * 1.12)
    if any_failed:
        axes.axvline(analysis.cap, color=RED, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    for arm in arms:
        y, color = places[arm.name], BY_ROLE[arm.role]
        draw_interval(axes, y, *arm.level, color)
        scores = np.exp(arm.logs[~arm.failed]).dropna()
        if len(scores):
            heights = [y + jitter[seed] for seed in scores.index]
            sns.scatterplot(
                x=scores.to_numpy(), y=heights, ax=axes, color=color, s=15, alpha=0.6, linewidth=0, zorder=3
            )
        crosses = arm.logs[arm.failed]
        axes.scatter(
            np.exp(crosses),
            [y + jitter[seed] for seed in crosses.index],
            marker="x",
            s=20,
            color=RED,
            zorder=4,
        )
        write_note(axes, y, _failures_note(arm), RED if arm.failures else MUTED)
    axes.set(xlabel=f"{analysis.score.long}, at the end of the budget (log axis, lower is better)", ylabel="")
    cap = "the untrained generator's score" if analysis.cap_is_measured else "the worst score of the grid"
    handles = [dot(BY_ROLE[role], f"{role} run") for role, members in of_role.items() if members]
    if any_failed:
        handles.append(dot(RED, "failed run, at the cap", "x"))
    add_legend(figure, [*handles, interval_handle(f"estimate, {analysis.interval} interval")])
    failed = [f"{a.name} {a.failures} of {a.n}" for a in arms if a.failures]
    levels = "; ".join(f"{a.name} {number(a.level.estimate)}" for a in arms)
    return finished(
        figure,
        "score_by_arm",
        f"{analysis.score.short} of every run",
        f"Each dot is one training run; a seed keeps its height in every row. Diamond and bar: Hodges-Lehmann"
        f" estimate over seeds with its exact {analysis.interval} interval, a bar that ends in an arrow has no limit on"
        " that side."
        f" Failed runs are crosses at the cap ({cap}, {number(analysis.cap)}), never dropped.",
        f"Dot plot of {analysis.score.long} by arm, lower is better. Estimates: {levels}."
        f" Failed runs: {', '.join(failed) or 'none'}.",
        pd.DataFrame(
            [
                (arm.name, arm.role, seed, np.exp(log), arm.failed[seed], *arm.level)
                for arm in arms
                for seed, log in arm.logs.items()
            ],
            columns=["arm", "role", "seed", "score", "failed", "estimate", "low", "high"],
        ),
    )


def _failures_note(arm: Arm) -> str:
    """Return what a reader must know about the row's n."""
    if not len(arm.runs):
        return "no run yet"
    lost = len(arm.runs) - arm.n
    words = [f"{arm.failures} of {arm.n} failed"] if arm.failures else [f"n = {arm.n}"]
    return " · ".join(words + [f"{lost} lost"] * bool(lost))


def ratio(analysis: Analysis) -> Chart | None:
    """Return each arm's ratio to the reference, paired by seed, sorted, with controls set apart."""
    if not analysis.scored or not analysis.effects:
        return None

    def ordered(effects: list[Effect]) -> list[str]:
        middle = {e.arm.name: e.comparison.effect.estimate for e in effects}
        return sorted(middle, key=lambda name: (math.isnan(middle[name]), middle[name]))

    # In a design whose effects are averages these are what is judged; its cells are shown, without a verdict.
    mains = sorted(main_effects(analysis), key=lambda e: e.comparison.effect.estimate)
    averages = {f"{e.name}, on average": e for e in mains}
    places = places_of([list(averages), ordered(analysis.tricks), ordered(analysis.controls)])
    figure, axes = canvas(list(places), 0.78, 2.3, places)
    log_axis(axes.xaxis, *_ratio_limits(analysis))
    for label, average in averages.items():
        draw_interval(axes, places[label], *average.ratio, BY_VERDICT[average.verdict], "D")
        _write_verdict(axes, places[label], average.ratio, average.verdict)
    axes.axvspan(np.exp(-MARGIN), np.exp(MARGIN), color=BAND, zorder=0, linewidth=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    jitter = by_seed(analysis.seeds)
    left, right = axes.get_xlim()
    for effect in analysis.effects:
        y = places[effect.arm.name]
        color = MUTED if mains and effect.arm.role == "trick" else BY_VERDICT[effect.verdict]
        draw_interval(axes, y, *effect.ratio, color, "D" if effect.arm.role == "trick" else "s")
        ratios = np.exp(effect.pairs["with"] - effect.pairs["without"])
        heights = np.array([y + jitter[seed] for seed in ratios.index])
        inside = ((ratios >= left) & (ratios <= right)).to_numpy(dtype=bool)
        failed = effect.pairs["failed"].to_numpy(dtype=bool)
        dots = inside & ~failed
        if dots.any():
            style = {"color": MUTED, "s": 12, "alpha": 0.65, "linewidth": 0, "zorder": 3}
            sns.scatterplot(x=ratios[dots].to_numpy(), y=heights[dots], ax=axes, **style)
        crosses = inside & failed
        axes.scatter(ratios[crosses], heights[crosses], marker="x", s=16, color=RED, zorder=3)
        for outside, edge, arrow in ((ratios < left, left, "<"), (ratios > right, right, ">")):
            out = outside.to_numpy(dtype=bool)
            colors = np.where(failed[out], RED, MUTED)
            axes.scatter(
                np.full(out.sum(), edge),
                heights[out],
                marker=arrow,
                s=9,
                color=colors,
                clip_on=False,
                zorder=3,
            )
        _write_verdict(axes, y, effect.ratio, "" if mains and effect in analysis.tricks else effect.verdict)
    reference, called = short(analysis.reference.name), analysis.score.short
    if any(e.left_out for e in analysis.effects):
        title = f"{called} with the trick ÷ {called} without it, paired by seed"
    else:
        title = f"{called} of the arm ÷ {called} of {reference}, paired by seed"
    axes.set(xlabel=f"{title}\n← better        (log axis)        worse →", ylabel="")
    handles = [
        dot(MUTED, "one seed"),
        interval_handle(f"estimate, {analysis.interval} interval"),
        Patch(color=BAND, label="within ±5 %"),
    ]
    if analysis.controls:
        handles.append(dot(MUTED, "control", "s", 6))
    if any(e.pairs["failed"].any() for e in analysis.effects):
        handles.append(dot(RED, "a run failed", "x"))
    add_legend(figure, handles)
    named = {**averages, **{e.arm.name: e for e in analysis.effects}}
    told = "; ".join(
        f"{name} {ratio_text(e.ratio.estimate)} ({limits(e.ratio.low, e.ratio.high)}), {e.verdict}"
        for name, e in named.items()
        if e.comparison.n
    )
    return finished(
        figure,
        "ratio",
        "What each trick changed",
        f"{analysis.score.long}: each run divided by the run of the same seed"
        + (
            " without the trick"
            if any(e.left_out for e in analysis.effects)
            else f" of {names([analysis.reference.name])}"
        )
        + f". Left of 1 is better. Diamond and bar: Hodges-Lehmann estimate with its exact {analysis.interval} interval"
        " (also printed at the right); the shaded band is ±5 %, less than which nobody should care. Squares are"
        " controls, which test the harness and not a trick. Marks that would fall outside sit at the edge as arrows."
        + (
            " First the tricks averaged over the combinations, which are judged; then each combination, which is not."
            if mains
            else ""
        ),
        f"Forest plot of the ratio of {analysis.score.long} with and without each trick; below 1 is better. {told}.",
        pd.DataFrame(
            [
                (name, role, *e.ratio, e.comparison.n, e.p_holm, e.verdict)
                for name, e in named.items()
                for role in ["average" if name in averages else e.arm.role]
            ],
            columns=["arm", "role", "ratio", "low", "high", "n", "p", "verdict"],
        ),
    )


def _write_verdict(axes: Axes, y: float, ratio: Estimate, verdict: str) -> None:
    """Write a ratio with its interval, and the verdict, to the right of the axes."""
    unknown = math.isnan(ratio.estimate)
    write_note(
        axes,
        y,
        "no pair" if unknown else f"{ratio_text(ratio.estimate)} ({limits(ratio.low, ratio.high)})",
    )
    axes.text(
        1.0 + 1.36 / (WIDTH * axes.get_position().width),
        y,
        verdict,
        transform=axes.get_yaxis_transform(),
        va="center",
        color=BY_VERDICT.get(verdict, MUTED),
        fontsize=8.5,
        fontweight="normal" if verdict == "inconclusive" else "bold",
    )


def _ratio_limits(analysis: Analysis) -> tuple[float, float]:
    """Return limits that show the tricks' intervals, not squeezed by a control or a failure far away."""
    ends = [x for e in analysis.tricks or analysis.effects for x in e.ratio if math.isfinite(x) and x > 0]
    middles = [e.ratio.estimate for e in analysis.tricks if e.comparison.n]
    low, high = max(min(ends, default=1), 1 / 3), min(max(ends, default=1), 3.0)
    low, high = min([0.87, low, *middles]), max([1.15, high, *middles])
    return max(low, 1 / 8) / 1.06, min(high, 8.0) * 1.06


# --- 3. pairs


def pairs(analysis: Analysis) -> Chart | None:
    """Return, arm by arm, the score with the trick against the score without it: one dot a seed."""
    judged = [e for e in analysis.effects if len(e.pairs)]
    if not analysis.scored or not judged:
        return None
    every = pd.concat([e.pairs for e in judged])
    good = every[~every["failed"].astype(bool)]
    shown = (
        good if len(good) else every
    )  # a failed run counts as the cap, which would squeeze the others to a blob
    shown = np.exp(shown[["without", "with"]].to_numpy(dtype=float))
    low, high = shown.min(axis=0) / 1.12, shown.max(axis=0) * 1.12
    handles = [
        dot(BLUE, "one seed"),
        Line2D([], [], color=MUTED, linewidth=1, label="no difference"),
        Patch(color=BAND, label="within ±5 %"),
    ]
    if any(e.pairs["failed"].any() for e in judged):
        handles.append(dot(RED, "a run failed, at the edge", "x"))
    score = analysis.score.short
    figure, panels = small_panels(
        [e.arm.name for e in judged],
        handles,
        f"{score} with the trick",
        f"{score} without it (log axes)",
        1.5,
    )
    line = np.array([min(low), max(high)])
    for effect, axes in zip(judged, panels, strict=True):
        without, treated = (np.exp(effect.pairs[side].to_numpy()) for side in ("without", "with"))
        failed = effect.pairs["failed"].to_numpy(dtype=bool)
        axes.fill_between(
            line, line * np.exp(-MARGIN), line * np.exp(MARGIN), color=BAND, linewidth=0, zorder=0
        )
        axes.plot(line, line, color=MUTED, linewidth=1, zorder=1)
        axes.scatter(
            without[failed].clip(low[0] * 1.03, high[0] / 1.03),
            treated[failed].clip(low[1] * 1.05, high[1] / 1.05),
            marker="x",
            s=18,
            color=RED,
            zorder=3,
        )
        if not failed.all():
            sns.scatterplot(
                x=without[~failed],
                y=treated[~failed],
                ax=axes,
                s=16,
                alpha=0.75,
                linewidth=0,
                color=BY_VERDICT[effect.verdict],
                zorder=3,
            )
    for axis, start, end in zip((panels[0].xaxis, panels[0].yaxis), low, high, strict=True):
        log_axis(axis, start, end, fewest=3)
    better = [
        f"{e.arm.name} {int((e.pairs['with'] < e.pairs['without']).sum())} of {len(e.pairs)}" for e in judged
    ]
    return finished(
        figure,
        "pairs",
        "Seed by seed",
        "Each dot is a pair of runs of one seed: without the trick (across) and with it (up). Below the line the run"
        " with the trick was better; a cloud that rises along the line says that a good seed stays good, which is what"
        " pairing by seed gains from. Colour: the verdict. The axes, each with its own scale, span the runs that did"
        " not fail: a cross is a pair with a failed run, at the edge where its score lies further out.",
        f"Small scatter plots of {analysis.score.long}, one an arm. Seeds that were better with the trick:"
        f" {'; '.join(better)}.",
        pd.concat([e.pairs.assign(arm=e.arm.name) for e in judged])
        .rename_axis("seed")
        .reset_index()[["arm", "seed", "with", "without", "failed"]]
        .rename(columns={"with": "log_with", "without": "log_without"}),
    )


# --- 4. quality against cost


def cost(analysis: Analysis) -> Chart | None:
    """Return each arm's ratio of scores against its ratio of training times."""
    shown = [e for e in analysis.effects if e.comparison.n and math.isfinite(e.cost.seconds)]
    if not analysis.scored or not shown:
        return None
    figure = new_figure(COST_HEIGHT)
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.76))
    times = [e.cost.seconds for e in shown]
    log_axis(axes.xaxis, min([0.9, *times]) / 1.2, max([1.1, *times]) * 1.25)
    log_axis(axes.yaxis, *_cost_limits(shown))
    low, high = axes.get_ylim()
    axes.axhspan(np.exp(-MARGIN), np.exp(MARGIN), color=BAND, zorder=0, linewidth=0)
    axes.axvline(1, color=MUTED, linewidth=0.8, zorder=1)
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
    for effect in shown:
        ratio, x, color = effect.ratio, effect.cost.seconds, BY_VERDICT[effect.verdict]
        y, *ends = (min(max(value, low), high) for value in ratio)
        axes.plot([x, x], ends, color=color, linewidth=1.2, alpha=0.7, zorder=2)
        marker = "s" if effect.arm.role == "control" else "o"
        marker = marker if y == ratio.estimate else "^" if y == high else "v"
        axes.plot([x], [y], marker=marker, color=color, markersize=6, zorder=3, clip_on=False)
    explained = _write_names(figure, axes, shown)
    axes.set(
        xlabel="training time with the trick ÷ without it (log axis)",
        ylabel=f"{analysis.score.short} with the trick ÷ without it\n← better      (log axis)      worse →",
    )
    handles = [
        Line2D(
            [],
            [],
            color=MUTED,
            marker="o",
            linewidth=1.2,
            markersize=6,
            label=f"trick, {analysis.interval} interval",
        ),
        Patch(color=BAND, label="within ±5 %"),
    ]
    if any(e.arm.role == "control" for e in shown):
        handles.append(dot(MUTED, "control", "s", 6))
    add_legend(figure, handles)
    told = "; ".join(
        f"{e.arm.name} score × {ratio_text(e.ratio.estimate)}, time × {ratio_text(e.cost.seconds)}"
        for e in shown
    )
    return finished(
        figure,
        "cost",
        "Quality against cost",
        "Lower is better, further left is cheaper: what is at the lower left gives a better score in less time. Time is"
        " the median over seeds of the ratio of training times on equal terms; differences under some 10 % are noise."
        f" Marks that would fall outside sit at the edge as triangles, intervals end there.{explained}",
        f"Scatter plot of the ratio of {analysis.score.long} against the ratio of training time. {told}.",
        pd.DataFrame(
            [(e.arm.name, *e.cost, *e.ratio, e.verdict) for e in shown],
            columns=["arm", *Cost._fields, "ratio", "low", "high", "verdict"],
        ),
    )


COST_HEIGHT = 4.6  # inches, without the list of numbers
MOST_NAMES = 60  # in the cost chart: of more arms the least decided ones stay marks without a name
DECIDED = ("helps", "hurts", "unstable", "equivalent", "inconclusive")  # whose names get room first


def _cost_limits(effects: Sequence[Effect]) -> tuple[float, float]:
    """Return limits that keep apart what is near 1: intervals may run out, and what fails does not stretch them."""
    steady = [e.ratio for e in effects if e.verdict != "unstable" and e.arm.role == "trick"]
    ends = [
        x for r in steady for x in (r.estimate, max(r.low, r.estimate / 1.3), min(r.high, r.estimate * 1.3))
    ]
    low, high = min([0.8, *ends]), max([1.25, *ends])
    return max(low, 1 / 8) / 1.06, min(high, 8.0) * 1.06


def _write_names(figure: Figure, axes: Axes, effects: Sequence[Effect]) -> str:
    """Write each arm's name beside its mark, or a number where there is no room; return how this is explained.

    The figure grows downwards by the list of the numbers; its axes keep their size.
    """
    low, high = axes.get_ylim()
    ordered = sorted(effects, key=lambda e: (DECIDED.index(e.verdict), e.ratio.estimate))
    ordered, unnamed = ordered[:MOST_NAMES], ordered[MOST_NAMES:]
    at = [(e.cost.seconds, min(max(e.ratio.estimate, low), high)) for e in ordered]
    beyond = [
        f" × {ratio_text(e.ratio.estimate)}" if y != e.ratio.estimate else ""
        for e, (_, y) in zip(ordered, at, strict=True)
    ]
    told = [short(e.arm.name, 24) + more for e, more in zip(ordered, beyond, strict=True)]

    def points(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y)) * 72 / figure.dpi
        return float(across), float(up)

    def size(text: str) -> tuple[float, float]:
        wide, tall, _ = figure.canvas.get_renderer().get_text_width_height_descent(
            text, FontProperties(family=rcParams["font.family"], size=8), False
        )
        return wide * 72 / figure.dpi + 2, tall * 72 / figure.dpi + 1

    marks = [points(*spot) for spot in at]
    left, right = axes.get_xlim()
    one = points(left, 1), points(right, 1)
    taken = [Box(one[0][0], one[0][1] - 1, one[1][0], one[1][1] + 1)]
    for e in (*ordered, *unnamed):
        ends = [points(e.cost.seconds, min(max(x, low), high)) for x in (e.ratio.low, e.ratio.high)]
        taken.append(Box(ends[0][0] - 1, ends[0][1], ends[0][0] + 1, ends[1][1]))
    corner, far = points(left, low), points(right, high)
    frame = Box(corner[0] + 1, corner[1] + 1, figure.get_figwidth() * 72 - 2, far[1] + 10)
    # of two names that are the same when shortened neither would say which it is
    sizes = [size(text) if told.count(text) == 1 else (math.inf, 0) for text in told]
    places: list[Label | None] = beside(marks, sizes, taken, frame)
    crowded = [i for i, place in enumerate(places) if place is None]
    crowded.sort(key=lambda i: marks[i])  # numbers rise from left to right
    numbers = {i: str(k + 1) for k, i in enumerate(crowded)}
    first = [marks[i] for i in crowded]
    rest = [around(*mark) for i, mark in enumerate(marks) if i not in numbers]
    close = near(first, [size(text) for text in numbers.values()], taken + rest, frame)
    for i, place in zip(crowded, close, strict=True):
        places[i] = place
    for i, (e, spot, place) in enumerate(zip(ordered, at, places, strict=True)):
        color = BY_VERDICT[e.verdict]
        axes.annotate(
            numbers.get(i, told[i]),
            spot,
            xytext=place[:2],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if i in numbers else "normal",
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0}
            if place.led
            else None,
            zorder=2.5,
        )
    listed = [short(ordered[i].arm.name, 44) + beyond[i] for i in crowded]
    colors = [BY_VERDICT[ordered[i].verdict] for i in crowded]
    _write_list(figure, axes, list(zip(numbers.values(), listed, colors, strict=True)))
    said = [" A number stands where a name had no room; below the chart is whose it is."] if crowded else []
    said += [f" {len(unnamed)} marks without a name are in the CSV."] if unnamed else []
    return "".join(said)


def _write_list(figure: Figure, axes: Axes, items: Sequence[tuple[str, str, str]]) -> None:
    """Write (number, name, colour) below the axes, in columns; the figure grows by as much."""
    columns, line = 2 if any(len(name) > 28 for _, name, _ in items) else 3, 0.17
    rows = math.ceil(len(items) / columns)
    more = rows * line + 0.08 * (rows > 0)
    whole = figure.get_figheight() + more
    left, bottom, wide, tall = axes.get_position().bounds
    figure.set_figheight(whole)
    axes.set_position((left, (bottom * COST_HEIGHT + more) / whole, wide, tall * COST_HEIGHT / whole))
    for i, (number_, name, color) in enumerate(items):
        column, row = divmod(i, rows)
        x, y = left + wide * column / columns, (0.08 + (rows - row - 0.5) * line) / whole
        figure.text(x, y, number_, fontsize=8, color=color, ha="right", va="center", fontweight="bold")
        figure.text(x + 0.006, y, name, fontsize=8, color=color, va="center")


# --- several sets


def by_set(sets: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> Chart:
    """Return every treatment's ratio in every set: one row a treatment, one mark a set.

    rows: (label, one row of `bench.together.across` for each set, or None).
    """
    colours = [(BLUE, "o"), (RED, "s"), (GREEN, "D"), (PURPLE, "^"), (AMBER, "v"), (MUTED, "P")]
    looks = {one: colours[i % len(colours)] for i, one in enumerate(sets)}
    places = {label: 1.3 * i for i, (label, _) in enumerate(rows)}
    figure, axes = canvas(list(places), 0.78, 0.3, places)
    ends = [
        x for _, effects in rows for e in effects if e for x in (e.ratio, e.low, e.high) if 0 < x < math.inf
    ]
    low, high = min([0.87, *ends]), max([1.15, *ends])
    log_axis(axes.xaxis, max(low, 1 / 8) / 1.06, min(high, 8.0) * 1.06)
    axes.axvspan(np.exp(-MARGIN), np.exp(MARGIN), color=BAND, zorder=0, linewidth=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    shifts = by_seed(range(len(sets)), 0.36)
    for label, effects in rows:
        for i, (one, effect) in enumerate(zip(sets, effects, strict=True)):
            if effect:
                draw_interval(
                    axes, places[label] + shifts[i], effect.ratio, effect.low, effect.high, *looks[one]
                )
    axes.set(
        xlabel="score with the trick ÷ score without it, each in its own set\n← better   (log axis)   worse →"
    )
    add_legend(figure, [dot(color, short(one, 24), marker, 6) for one, (color, marker) in looks.items()], 4)
    each = [
        (label, one, effect)
        for label, effects in rows
        for one, effect in zip(sets, effects, strict=True)
        if effect
    ]
    told = "; ".join(f"{label}, {one}: {ratio_text(e.ratio)}" for label, one, e in each)
    return finished(
        figure,
        "by_set",
        "Ratio by result set",
        "Tricks that more than one set has: Hodges-Lehmann estimate with its exact interval, paired by seed within"
        " each set; left of 1 is better; the band is ±5 %. An arrow: the interval goes on. Scores of different"
        " protocols are not comparable.",
        f"Forest plot of ratios by treatment and result set. {told}.",
        pd.DataFrame(
            [(label, one, e.ratio, e.low, e.high, e.n, e.verdict) for label, one, e in each],
            columns=["treatment", "set", "ratio", "low", "high", "n", "verdict"],
        ),
    )
