"""The report's charts along training: scores by images and by time, and the losses."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from bench.analyse import Analysis, Arm, best_of, median, names
from bench.drawing import (
    BLUE,
    BY_ROLE,
    MUTED,
    ORANGE,
    Chart,
    draw_line,
    finished,
    log_axis,
    quartiles_by_row,
    short,
    small_panels,
    thousands,
)
from bench.pages import number
from bench.survival import sound

SCORES = {"fd": "lower", "kid": "lower", "is": "higher", "precision": "higher", "recall": "higher"}
NAMES = (
    *(f"{metric}_along_{by}" for metric in SCORES for by in ("images", "time")),
    *("losses", "losses_along_time", "best_of", "sound"),
)


def draw(analysis: Analysis) -> list[Chart]:
    """Return a chart by images and one by time for each score with more than one point, and the losses."""
    drawn: list[Chart] = []
    for metric in SCORES:
        spreads = along(analysis, metric)
        if max(len(spread) for spread in spreads.values()) > (metric != "fd"):  # a single point is no curve
            drawn.append(_by_images(analysis, metric, spreads))
            in_time = {a.name: _in_time(spreads[a.name], a) for a in analysis.arms}
            if any(len(spread) for spread in in_time.values()):
                drawn.append(_by_time(analysis, metric, in_time))
    more = losses(analysis), losses(analysis, in_time=True), best(analysis), still_sound(analysis)
    return [*drawn, *(chart for chart in more if chart)]


def curve(analysis: Analysis, arm: Arm, metric: str, readout: str | None) -> pd.DataFrame:
    """Return values along the budget: images (rows) by run (columns), also runs of which nothing is known."""
    curves = analysis.results.curves
    chosen = (curves["metric"] == metric) & curves["run"].isin(arm.runs["run"])
    chosen &= (curves["readout"] == readout) if readout else curves["readout"].isna()
    points = curves[chosen].drop_duplicates(["run", "images"])
    table = points.pivot(index="images", columns="run", values="value").astype("float64")
    table.index = table.index.astype(int)
    return table.reindex(columns=arm.runs["run"])


def along(analysis: Analysis, metric: str) -> dict[str, pd.DataFrame]:
    """Return median and quartiles over seeds by arm: images (rows); empty where no arm has a value.

    A failed run has no distance after its end: there it counts as the cap. The other scores have no cap.
    """
    tables = {arm.name: curve(analysis, arm, metric, "raw-eval") for arm in analysis.arms}
    usual = tables[analysis.reference.name].index
    spreads = {}
    for arm in analysis.arms:
        table = tables[arm.name]
        if arm.failed.all() and len(table) < len(usual):
            # Nobody reached the end: on to the reference's points.
            further = usual[usual > table.index.max()] if len(table) else usual
            table = table.reindex(table.index.append(further))
        if metric == "fd":
            failed = set(arm.runs["run"][arm.failed])
            for run in table.columns:
                filled = table[run].fillna(analysis.cap if run in failed else np.nan)
                table[run] = filled.clip(upper=analysis.cap)
        spreads[arm.name] = quartiles_by_row(table).dropna()
    return spreads


def _in_time(spread: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Return the curve with seconds for images: the arm's median time, linear in images."""
    seconds, images = median(arm, "train_seconds"), median(arm, "images")
    if np.isnan(seconds) or np.isnan(images) or not images:
        return spread.iloc[:0]
    return spread.set_axis(spread.index * seconds / images)


def _named(analysis: Analysis, metric: str) -> tuple[str, str]:
    """Return how a score is called, short and long."""
    if metric == "fd":
        return analysis.score.short, analysis.score.long
    word = {"kid": "KID", "is": "Inception score"}.get(metric, metric)
    return word, word


def _by_images(analysis: Analysis, metric: str, spreads: Mapping[str, pd.DataFrame]) -> Chart:
    called, long = _named(analysis, metric)
    capped = " A failed run counts as the cap at the points that it did not reach." if metric == "fd" else ""
    return _curves(
        analysis,
        spreads,
        f"{metric}_along_images",
        (f"{called} along images", long),
        f"real images shown to the discriminator; {SCORES[metric]} is better",
        f"{long} at {max(len(s) for s in spreads.values())} points of the budget: median over seeds (line) and the"
        f" middle half of the seeds (band); dashed: the reference arm {names([analysis.reference.name])}; controls are"
        f" purple.{capped}",
    )


def _by_time(analysis: Analysis, metric: str, spreads: Mapping[str, pd.DataFrame]) -> Chart:
    called, long = _named(analysis, metric)
    return _curves(
        analysis,
        spreads,
        f"{metric}_along_time",
        (f"{called} along training time", long),
        f"seconds of training; {SCORES[metric]} is better",
        "The same curves against time: an arm that is slower a step reaches the right end later. Seconds are the arm's"
        " median over seeds (scoring left out), linear in images; where arms were timed on unequal terms (other"
        " machine, other array size) the table of arms says so and these curves are not comparable.",
    )


# An arm that trains more than so many times longer than the median arm leaves the axis; times differ more anyway.
FURTHER = {"images": 1.5, "time": 2.5, "score": 3.0}
EDGE = 1.03  # of the budget: a little air beside the last point
LONGER = (
    " An arrow at the right edge: this arm trains on, to the value beside it; the CSV has all of its points."
)
LOSS_FLOOR = 0.03  # the loss axis ends here where few values are smaller, and much smaller


def _usual_end(spreads: Iterable[pd.DataFrame], in_time: bool) -> float:
    """Return where the axis of the budget ends, so that one longer arm does not squeeze the others."""
    ends = np.array([spread.index.max() for spread in spreads if len(spread)], dtype=float)
    return float(ends[ends <= FURTHER["time" if in_time else "images"] * np.median(ends)].max())


def _leave(axes: Axes, spread: pd.DataFrame, color: str, end: float, logarithmic: bool) -> float:
    """Draw an arrow where a curve runs out of the axis; return its height, nan where it does not."""
    if not len(spread) or spread.index.max() <= end:
        return math.nan
    middle = np.log(spread["middle"]) if logarithmic else spread["middle"]
    height = float(np.interp(end * EDGE, spread.index, middle))
    height = math.exp(height) if logarithmic else height
    axes.plot([end * EDGE], [height], marker=">", color=color, markersize=5, clip_on=False, zorder=5)
    return height


def _curves(
    analysis: Analysis,
    spreads: Mapping[str, pd.DataFrame],
    name: str,
    called: tuple[str, str],
    below: str,
    caption: str,
) -> Chart:
    """Return one panel an arm with the reference behind each."""
    reference, in_time = analysis.reference.name, name.endswith("time")
    legend = [
        Line2D(
            [], [], color=BLUE, linewidth=2, marker="o", markersize=3.5, label="the arm: median over seeds"
        ),
        Patch(color=BLUE, alpha=0.25, label="middle half of its seeds"),
        Line2D([], [], color=MUTED, linewidth=1.3, linestyle=(0, (3, 1.5)), label=short(reference)),
    ]
    values = pd.concat(spreads.values()).to_numpy()
    logarithmic = bool((values > 0).all()) and values.max() > 2 * values.min()
    title, long = called
    figure, panels = small_panels(
        [arm.name for arm in analysis.arms], legend, f"{long}{' (log axis)' if logarithmic else ''}", below
    )
    for arm, axes in zip(analysis.arms, panels, strict=True):
        if arm.name != reference and len(spreads[reference]):
            dashes = {"linewidth": 1.3, "linestyle": (0, (3, 1.5))}
            draw_line(axes, spreads[reference], MUTED, band=False, **dashes)
        if len(spreads[arm.name]):
            style = {"linewidth": 1.8, "marker": "o", "markersize": 3.5, "markeredgewidth": 0}
            draw_line(axes, spreads[arm.name], BY_ROLE[arm.role], **style)
        else:
            axes.text(0.5, 0.5, "no score", transform=axes.transAxes, ha="center", color=MUTED)
    if logarithmic:
        log_axis(panels[0].yaxis, values.min() / 1.1, values.max() * 1.1, fewest=3)
    end = _usual_end(spreads.values(), in_time)
    panels[0].set_xlim(0, end * EDGE)
    panels[0].xaxis.set_major_formatter(FuncFormatter(thousands))
    longer = False
    for arm, axes in zip(analysis.arms, panels, strict=True):
        spread = spreads[arm.name]
        height = _leave(axes, spread, BY_ROLE[arm.role], end, logarithmic)
        if not math.isnan(height):
            longer = True
            low = axes.transLimits.transform(axes.transScale.transform((0, height)))[1] < 0.5
            axes.text(
                0.98,
                0.95 if low else 0.05,
                f"{number(spread['middle'].iloc[-1])} at {_budget(spread.index.max(), in_time)} →",
                transform=axes.transAxes,
                ha="right",
                va="top" if low else "bottom",
                fontsize=8,
                color=BY_ROLE[arm.role],
            )
    ends = "; ".join(f"{n} {number(s['middle'].iloc[-1])}" for n, s in spreads.items() if len(s))
    return finished(
        figure,
        name,
        title,
        caption + (LONGER if longer else ""),
        f"Small line charts, {title}, one an arm. Medians at the end: {ends}.",
        pd.concat(spreads, names=["arm", "seconds" if in_time else "images"]).reset_index(),
    )


def _budget(x: float, in_time: bool) -> str:
    """Return a point of the budget with its unit."""
    return f"{number(x)} s" if in_time else thousands(x)


def losses(analysis: Analysis, in_time: bool = False) -> Chart | None:
    """Return the losses of D and G along the budget, or along seconds of training, one panel an arm."""
    sides = (("loss_d", BLUE, "discriminator"), ("loss_g", ORANGE, "generator"))
    spreads = {
        (arm.name, metric): quartiles_by_row(curve(analysis, arm, metric, None)).dropna()
        for arm in analysis.arms
        for metric, *_ in sides
    }
    if in_time:
        arms = {arm.name: arm for arm in analysis.arms}
        spreads = {(name, metric): _in_time(own, arms[name]) for (name, metric), own in spreads.items()}
    drawn = [spread for spread in spreads.values() if len(spread)]
    if not drawn:
        return None
    values = pd.concat(drawn).to_numpy()
    legend = [Line2D([], [], color=c, linewidth=2, label=f"loss of the {who}") for _, c, who in sides]
    logarithmic = bool((values > 0).all() and values.max() > 4 * values.min())
    figure, panels = small_panels(
        [arm.name for arm in analysis.arms],
        [*legend, Patch(color=MUTED, alpha=0.3, label="middle half of the seeds")],
        f"loss{' (log axis)' if logarithmic else ''}",
        "seconds of training" if in_time else "real images shown to the discriminator",
    )
    for arm, axes in zip(analysis.arms, panels, strict=True):
        for metric, color, _ in sides:
            if len(spreads[arm.name, metric]):
                draw_line(axes, spreads[arm.name, metric], color, linewidth=1.5)
        if not any(len(spreads[arm.name, metric]) for metric, *_ in sides):
            axes.text(0.5, 0.5, "no losses", transform=axes.transAxes, ha="center", color=MUTED)
    least = min(spread["middle"].min() for spread in drawn)
    lowest = values.min() / 1.15
    if logarithmic:
        if values.min() < LOSS_FLOOR / 3:  # one arm near 0 must not make flat lines of all others
            lowest = max(lowest, min(LOSS_FLOOR, float(np.quantile(values, 0.1))))
        log_axis(panels[0].yaxis, lowest, values.max() * 1.15, fewest=3)
    end = _usual_end(drawn, in_time)
    panels[0].set_xlim(0, end * EDGE)
    panels[0].xaxis.set_major_formatter(FuncFormatter(thousands))
    for arm, axes in zip(analysis.arms, panels, strict=True):
        for (metric, color, _), size in zip(sides, (5.5, 3), strict=True):  # one shows behind the other
            spread = spreads[arm.name, metric]
            _leave(axes, spread, color, end, logarithmic)
            below = spread.index[(spread["middle"] < lowest) & (spread.index <= end)]
            style = {"marker": "v", "color": color, "markersize": size, "linestyle": "none", "clip_on": False}
            axes.plot(below, np.full(len(below), lowest), **style)
        last = max((s.index.max() for m, *_ in sides if len(s := spreads[arm.name, m])), default=end)
        if last > end:
            to = f"to {_budget(last, in_time)} →"
            axes.text(0.98, 0.05, to, transform=axes.transAxes, ha="right", va="bottom", fontsize=8)
    return finished(
        figure,
        "losses_along_time" if in_time else "losses",
        f"Losses along training{' time' if in_time else ''}",
        "Mean loss in windows of the budget: median over seeds (line) and the middle half of the seeds (band). A loss"
        " says who is winning, not how good the pictures are: read it together with the score."
        + (
            f" Triangles at the bottom: losses down to {number(least)}, which the CSV has."
            if least < lowest
            else ""
        )
        + (
            " An arrow at the right edge: this arm trains on."
            if any(s.index.max() > end for s in drawn)
            else ""
        ),
        f"Small line charts of the losses of discriminator and generator along training{' time' if in_time else ''} for"
        f" {len(analysis.arms)} arms.",
        pd.concat(spreads, names=["arm", "metric", "seconds" if in_time else "images"]).reset_index(),
    )


def best(analysis: Analysis) -> Chart | None:
    """Return the score to expect of the best of k runs, one panel an arm, the reference behind each."""
    found = {arm.name: best_of(arm) for arm in analysis.arms}
    if not analysis.scored or max(len(values) for values in found.values()) < 2:
        return None
    reference = analysis.reference.name
    dashes = {"color": MUTED, "linewidth": 1.3, "linestyle": (0, (3, 1.5))}
    legend = [
        Line2D([], [], color=BLUE, linewidth=2, marker="o", markersize=3.5, label="the arm"),
        Line2D([], [], label=short(reference), **dashes),
    ]
    figure, panels = small_panels(
        [arm.name for arm in analysis.arms],
        legend,
        f"{analysis.score.short} (log axis)",
        "runs of which the best is kept",
    )
    for arm, axes in zip(analysis.arms, panels, strict=True):
        if arm.name != reference:
            axes.plot(range(1, len(found[reference]) + 1), found[reference], **dashes)
    values = np.concatenate(list(found.values()))
    # An arm of failed runs is marked at the edge: it would squeeze the others to lines.
    limit = FURTHER["score"] * found[reference][0] if len(found[reference]) else np.inf
    usual = [v[0] for v in found.values() if len(v) and v[0] <= limit]
    top = 1.1 * max(usual, default=values.max())
    for arm, axes in zip(analysis.arms, panels, strict=True):
        own, color = found[arm.name], BY_ROLE[arm.role]
        beyond = np.flatnonzero(own > top)
        drawn = np.where(own > top, np.nan, own)  # else a line would lead out of the panel
        axes.plot(np.arange(1, len(own) + 1), drawn, color=color, marker="o", markersize=3)
        if len(beyond):
            axes.plot(
                beyond + 1, np.full(len(beyond), top / 1.05), "^", color=color, markersize=4, clip_on=False
            )
            told = " to ".join(dict.fromkeys(number(v) for v in own[beyond[[0, -1]]]))
            axes.text(0.98, 0.05, told, transform=axes.transAxes, ha="right", fontsize=8, color=color)
    log_axis(panels[0].yaxis, values.min() / 1.1, top, fewest=3)
    outside = " Triangles at the top: values beyond the axis, in words." if (values > top).any() else ""
    ends = "; ".join(f"{name} {number(v[0])} to {number(v[-1])}" for name, v in found.items() if len(v))
    return finished(
        figure,
        "best_of",
        "The best of k runs",
        f"{analysis.score.long} to expect when k runs are trained and the best is kept. A curve that falls steeply"
        " belongs to an arm of which a lucky seed looks good: comparing best runs favours whoever tried more."
        + outside,
        f"Small line charts of the expected best of k runs, one an arm. From one run to all: {ends}.",
        pd.DataFrame(
            [(n, k, v) for n, vs in found.items() for k, v in enumerate(vs, 1)], columns=["arm", "k", "best"]
        ),
    )


def still_sound(analysis: Analysis) -> Chart | None:
    """Return the share of runs still sound along the budget, a panel for each arm of which some failed."""
    shares = {arm.name: sound(arm) for arm in analysis.arms if arm.failures}
    shares = {name: share for name, share in shares.items() if len(share)}
    if not shares:
        return None
    reference = sound(analysis.reference)
    dashes = {"color": MUTED, "linewidth": 1.3, "linestyle": (0, (3, 1.5)), "drawstyle": "steps-post"}
    legend = [Line2D([], [], color=BLUE, linewidth=2, label="the arm")]
    if len(reference):
        legend.append(Line2D([], [], label=short(analysis.reference.name), **dashes))
    figure, panels = small_panels(
        list(shares), legend, "share of runs", "real images shown to the discriminator"
    )
    roles = {arm.name: arm.role for arm in analysis.arms}
    for (name, share), axes in zip(shares.items(), panels, strict=True):
        if name != analysis.reference.name and len(reference):
            axes.plot(reference["images"], reference["sound"], **dashes)
        axes.plot(
            share["images"], share["sound"], color=BY_ROLE[roles[name]], linewidth=2, drawstyle="steps-post"
        )
    panels[0].set_ylim(-0.04, 1.04)
    panels[0].set_xlim(left=0)
    panels[0].xaxis.set_major_formatter(FuncFormatter(thousands))
    ends = "; ".join(f"{name} {share['sound'].iloc[-1]:.0%}" for name, share in shares.items())
    return finished(
        figure,
        "sound",
        "Runs still sound along training",
        "Share of runs that had not failed for good (Kaplan and Meier's estimate; what the machine lost is left out),"
        " of the arms in which any did. Runs are judged at the points of the budget, so a step there means a failure"
        " since the point before; one at the first point means that the run was never sound.",
        f"Small step charts of the share of runs still sound, one an arm with failures. At the end: {ends}.",
        pd.concat(shares, names=["arm"]).reset_index("arm"),
    )
