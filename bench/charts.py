"""The report's charts: one function each, from an analysis to one figure, saved as SVG and PNG."""

import io
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator
from PIL import Image, ImageDraw, ImageFont

from bench.analyse import Analysis, Arm, Effect, names
from bench.pages import number, ratio_text
from bench.stats import MARGIN, quartiles

# Okabe and Ito's colours, which colour-blind readers can tell apart; the page swaps inks for dark screens.
INK, MUTED, RULE, BAND = "#1a1a19", "#6b6b67", "#d9d9d6", "#eeeeea"
BLUE, RED, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#a0569b", "#e69f00"
BY_ROLE = {"baseline": INK, "trick": BLUE, "control": PURPLE}
BY_VERDICT = {"helps": BLUE, "hurts": RED, "equivalent": GREEN, "unstable": ORANGE, "inconclusive": MUTED}
WIDTH = 7.2  # inches
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "svg.hashsalt": "bench",
    "svg.fonttype": "none",  # text stays text: small, searchable, readable by a screen reader
    "text.parse_math": False,  # an arm may be called $x$
    "axes.unicode_minus": True,
    "figure.dpi": 100,
}


@dataclass(frozen=True)
class Chart:
    """A figure with the words around it; `alt` says in words what the picture shows."""

    name: str  # file name without its ending
    title: str
    caption: str
    alt: str
    svg: str  # empty for a picture made of pixels
    png: bytes


def draw(analysis: Analysis) -> list[Chart]:
    """Return all charts for which the results have data, in the order in which a reader wants them."""
    with _styled():
        charts = [chart(analysis) for chart in (ratio, score_by_arm, along_budget, losses)]
    return [chart for chart in charts if chart]


@contextmanager
def _styled() -> Iterator[None]:
    """Draw in the house style whatever the user's own matplotlib settings are."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(sns.axes_style("ticks") | STYLE)
        yield


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def _chart(figure: Figure, name: str, title: str, caption: str, alt: str) -> Chart:
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    drawing = svg.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    return Chart(name, title, caption, alt, drawing, png.getvalue())


def short(name: str, room: int = 30) -> str:
    """Return a name that fits: the middle of a long one is left out."""
    return name if len(name) <= room else f"{name[: room // 2]}…{name[-(room - room // 2 - 1) :]}"


def ticks(low: float, high: float, fewest: int = 4, most: int = 8) -> list[float]:
    """Return round numbers for a log axis from low to high."""
    for steps in (
        [1],
        [1, 3],
        [1, 2, 5],
        [1, 1.5, 2, 3, 5, 7],
        [1, 1.2, 1.5, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9],
    ):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if fewest <= len(found):
            return found[:: math.ceil(len(found) / most)]
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(s for s in (5, 2, 1) if (high - low) / (s * step) >= 2 or s == 1)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_axis(axis: matplotlib.axis.Axis, low: float, high: float, fewest: int = 4) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks(low, high, fewest)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1e5 else f"{x:.0e}"))


def _by_seed(seeds: Iterable[int], room: float = 0.26) -> dict[int, float]:
    """Return an offset for each seed, so that dots do not hide each other and a seed keeps its place."""
    seeds = list(seeds)
    return dict(zip(seeds, np.linspace(-room, room, len(seeds)) if len(seeds) > 1 else [0.0], strict=True))


def _rows(groups: list[list[str]]) -> dict[str, float]:
    """Return a y for each arm, top to bottom, with a gap between groups."""
    places, y = {}, 0.0
    for group in groups:
        for name in group:
            places[name] = y
            y += 1
        y += 0.5 if group else 0
    return places


def _canvas(labels: list[str], bottom: float, right: float, places: dict[str, float]) -> tuple[Figure, Axes]:
    """Return a figure with one row an arm, room for its names at the left and for notes at the right."""
    height = 0.31 * (max(places.values()) + 1.2) + bottom + 0.4
    figure = _figure(height)
    left = 0.2 + 0.071 * max(len(short(label)) for label in labels)
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, 1 - (bottom + 0.38) / height)
    )
    axes.set_ylim(max(places.values()) + 0.7, -0.7)
    axes.set_yticks(list(places.values()), [short(name) for name in places])
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _legend(figure: Figure, handles: list, columns: int = 5) -> None:
    figure.legend(
        handles=handles,
        loc="upper center",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.5,
        columnspacing=1.3,
        borderaxespad=0.2,
        bbox_to_anchor=(0.5, 1.0),
    )


def _dot(color: str, label: str, marker: str = "o", size: float = 5, **more: object) -> Line2D:
    return Line2D([], [], color=color, marker=marker, linestyle="none", markersize=size, label=label, **more)


# --- 1. the score of every run


def score_by_arm(analysis: Analysis) -> Chart | None:
    """Return every run's score by arm, failed runs as crosses at the cap, with each arm's interval."""
    if not analysis.scored:
        return None
    arms = analysis.arms
    of_role = {r: [a.name for a in arms if a.role == r] for r in ("baseline", "trick", "control")}
    places = _rows(list(of_role.values()))
    figure, axes = _canvas([a.name for a in arms], 0.62, 1.5, places)
    jitter = _by_seed(analysis.seeds)
    logs = pd.concat([a.logs for a in arms]).dropna()
    any_failed = any(a.failures for a in arms)
    top = max(float(np.exp(logs.max())), analysis.cap if any_failed else 0) if len(logs) else 10.0
    bottom = float(np.exp(logs.min())) if len(logs) else 1.0
    _log_axis(axes.xaxis, bottom / 1.12, top * 1.12)
    if any_failed:
        axes.axvline(analysis.cap, color=RED, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    for arm in arms:
        y, color = places[arm.name], BY_ROLE[arm.role]
        _interval(axes, y, *arm.level, color)
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
        _note(axes, y, _failures_note(arm), RED if arm.failures else MUTED)
    axes.set(xlabel=f"{analysis.score.long}, at the end of the budget (log axis, lower is better)", ylabel="")
    cap = "the untrained generator's score" if analysis.cap_is_measured else "the worst score of the grid"
    handles = [_dot(BY_ROLE[role], f"{role} run") for role, members in of_role.items() if members]
    if any_failed:
        handles.append(_dot(RED, "failed run, at the cap", "x"))
    _legend(figure, [*handles, _interval_handle("estimate, 95 % interval")])
    failed = [f"{a.name} {a.failures} of {a.n}" for a in arms if a.failures]
    levels = "; ".join(f"{a.name} {number(a.level.estimate)}" for a in arms)
    return _chart(
        figure,
        "score_by_arm",
        f"{analysis.score.short} of every run",
        f"Each dot is one training run; a seed keeps its height in every row. Diamond and bar: Hodges-Lehmann"
        " estimate over seeds with its exact 95 % interval, a bar that ends in an arrow has no limit on"
        " that side."
        f" Failed runs are crosses at the cap ({cap}, {number(analysis.cap)}), never dropped.",
        f"Dot plot of {analysis.score.long} by arm, lower is better. Estimates: {levels}."
        f" Failed runs: {', '.join(failed) or 'none'}.",
    )


def _failures_note(arm: Arm) -> str:
    """Return what a reader must know about the row's n."""
    if not len(arm.runs):
        return "no run yet"
    lost = len(arm.runs) - arm.n
    words = [f"{arm.failures} of {arm.n} failed"] if arm.failures else [f"n = {arm.n}"]
    return " · ".join(words + [f"{lost} lost"] * bool(lost))


def _note(axes: Axes, y: float, text: str, color: str = INK, **style: object) -> None:
    """Write beside the row, outside the axes."""
    axes.text(
        1.04, y, text, transform=axes.get_yaxis_transform(), va="center", color=color, fontsize=8.5, **style
    )


def _interval(
    axes: Axes, y: float, middle: float, low: float, high: float, color: str, marker: str = "D"
) -> None:
    """Draw an estimate with its interval; what runs out of the axis ends in an arrow."""
    if math.isnan(middle):
        return
    left, right = axes.get_xlim()
    a, b = max(low, left), min(high, right)
    if a < b:
        axes.plot([a, b], [y, y], color=color, linewidth=2.2, solid_capstyle="butt", zorder=4)
    for limit, edge, arrow in ((low, left, "<"), (high, right, ">")):
        if (limit < edge) if arrow == "<" else (limit > edge):
            axes.plot([edge], [y], marker=arrow, color=color, markersize=5, clip_on=False, zorder=5)
    if left <= middle <= right:
        style = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 5}
        axes.plot([middle], [y], marker=marker, color=color, markersize=6.5, **style)


def _interval_handle(label: str) -> Line2D:
    return Line2D(
        [], [], color=MUTED, linewidth=2.2, marker="D", markersize=6, markeredgecolor="white", label=label
    )


# --- 2. the ratio to the reference


def ratio(analysis: Analysis) -> Chart | None:
    """Return each arm's ratio to the reference, paired by seed, sorted, with controls set apart."""
    if not analysis.scored or not analysis.effects:
        return None

    def ordered(effects: list[Effect]) -> list[str]:
        middle = {e.arm.name: e.comparison.effect.estimate for e in effects}
        return sorted(middle, key=lambda name: (math.isnan(middle[name]), middle[name]))

    places = _rows([ordered(analysis.tricks), ordered(analysis.controls)])
    figure, axes = _canvas(list(places), 0.78, 2.3, places)
    _log_axis(axes.xaxis, *_ratio_limits(analysis))
    axes.axvspan(np.exp(-MARGIN), np.exp(MARGIN), color=BAND, zorder=0, linewidth=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    jitter = _by_seed(analysis.seeds)
    left, right = axes.get_xlim()
    for effect in analysis.effects:
        y, color = places[effect.arm.name], BY_VERDICT[effect.verdict]
        _interval(axes, y, *effect.ratio, color, "D" if effect.arm.role == "trick" else "s")
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
        r = effect.ratio
        text = "no pair" if math.isnan(r.estimate) else f"{ratio_text(r.estimate)} ({_limits(r.low, r.high)})"
        _note(axes, y, text)
        axes.text(
            1.0 + 1.36 / (WIDTH * axes.get_position().width),
            y,
            effect.verdict,
            transform=axes.get_yaxis_transform(),
            va="center",
            color=color,
            fontsize=8.5,
            fontweight="bold" if effect.verdict in ("helps", "hurts") else "normal",
        )
    reference, called = short(analysis.reference.name), analysis.score.short
    if any(e.left_out for e in analysis.effects):
        title = f"{called} with the trick ÷ {called} without it, paired by seed"
    else:
        title = f"{called} of the arm ÷ {called} of {reference}, paired by seed"
    axes.set(xlabel=f"{title}\n← better        (log axis)        worse →", ylabel="")
    handles = [
        _dot(MUTED, "one seed"),
        _interval_handle("estimate, 95 % interval"),
        Patch(color=BAND, label="within ±5 %"),
    ]
    if analysis.controls:
        handles.append(_dot(MUTED, "control", "s", 6))
    if any(e.pairs["failed"].any() for e in analysis.effects):
        handles.append(_dot(RED, "a run failed", "x"))
    _legend(figure, handles)
    told = "; ".join(
        f"{e.arm.name} {ratio_text(e.ratio.estimate)} ({_limits(e.ratio.low, e.ratio.high)}), {e.verdict}"
        for e in analysis.effects
        if e.comparison.n
    )
    return _chart(
        figure,
        "ratio",
        "What each trick changed",
        f"{analysis.score.long}: each run divided by the run of the same seed"
        + (
            " without the trick"
            if any(e.left_out for e in analysis.effects)
            else f" of {names([analysis.reference.name])}"
        )
        + ". Left of 1 is better. Diamond and bar: Hodges-Lehmann estimate with its exact 95 % interval"
        " (also printed at"
        " the right); the shaded band is ±5 %, less than which nobody should care. Squares are controls,"
        " which test the"
        " harness and not a trick. Marks that would fall outside sit at the edge as arrows.",
        f"Forest plot of the ratio of {analysis.score.long} with and without each trick; below 1 is"
        f" better. {told}.",
    )


def _limits(low: float, high: float) -> str:
    return f"{ratio_text(low)}–{ratio_text(high)}"


def _ratio_limits(analysis: Analysis) -> tuple[float, float]:
    """Return limits that show the tricks' intervals, not squeezed by a control or a failure far away."""
    ends = [x for e in analysis.tricks or analysis.effects for x in e.ratio if math.isfinite(x) and x > 0]
    middles = [e.ratio.estimate for e in analysis.tricks if e.comparison.n]
    low, high = max(min(ends, default=1), 1 / 3), min(max(ends, default=1), 3.0)
    low, high = min([0.87, low, *middles]), max([1.15, high, *middles])
    return max(low, 1 / 8) / 1.06, min(high, 8.0) * 1.06


# --- 3. and 4. along the budget


def _panels(arms: list[Arm], legend: list, ylabel: str, below: str) -> tuple[Figure, list[Axes]]:
    """Return one small panel an arm, with shared axes and ticks only at the outside."""
    columns = 3
    rows = math.ceil(len(arms) / columns)
    height = 1.22 * rows + 0.85
    figure = _figure(height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.085, right=0.985, bottom=0.5 / height, top=1 - 0.52 / height, hspace=0.36, wspace=0.08
    )
    every = list(grid.flat)
    for i, axes in enumerate(every):
        if i >= len(arms):
            axes.set_visible(False)
            continue
        axes.set_title(short(arms[i].name, 32), loc="left", pad=3, fontsize=8.5)
        axes.grid(color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        axes.tick_params(
            length=2.5, labelsize=8, labelbottom=i + columns >= len(arms), labelleft=i % columns == 0
        )
    figure.supylabel(ylabel, fontsize=9 if rows > 1 else 7.5, x=0.008)
    figure.supxlabel(below, fontsize=9, y=0.06 / height)
    _legend(figure, legend)
    return figure, every[: len(arms)]


def _thousands(x: float, _: object = None) -> str:
    return f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"


def _spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return median and quartiles over runs (columns) at every point of the budget (rows)."""
    return pd.DataFrame(
        [quartiles(row.dropna()) for _, row in table.iterrows()],
        index=table.index,
        columns=["middle", "low", "high"],
    )


def _line(axes: Axes, spread: pd.DataFrame, color: str, band: bool = True, **style: object) -> None:
    spread = spread.dropna()
    if band:
        axes.fill_between(spread.index, spread["low"], spread["high"], color=color, alpha=0.22, linewidth=0)
    sns.lineplot(
        x=spread.index,
        y=spread["middle"].to_numpy(),
        ax=axes,
        color=color,
        errorbar=None,
        legend=False,
        **style,
    )
    axes.set(xlabel="", ylabel="")


def _curve(analysis: Analysis, arm: Arm, metric: str, readout: str | None) -> pd.DataFrame:
    """Return values along the budget: images (rows) by run (columns), also runs of which nothing is known."""
    curves = analysis.results.curves
    chosen = (curves["metric"] == metric) & curves["run"].isin(arm.runs["run"])
    chosen &= (curves["readout"] == readout) if readout else curves["readout"].isna()
    points = curves[chosen].drop_duplicates(["run", "images"])
    table = points.pivot(index="images", columns="run", values="value").astype("float64")
    table.index = table.index.astype(int)
    return table.reindex(columns=arm.runs["run"])


def along_budget(analysis: Analysis) -> Chart | None:
    """Return the score along the budget, one panel an arm, the reference behind each."""
    if not analysis.scored:
        return None
    points = sorted({x for arm in analysis.arms for x in _curve(analysis, arm, "fd", "raw-eval").index})
    if not points:
        return None
    spreads = {}
    for arm in analysis.arms:
        table = _curve(analysis, arm, "fd", "raw-eval").reindex(points)
        failed = set(arm.runs["run"][arm.failed])
        for run in table.columns:  # a failed run has no score after its end: there it counts as the cap
            table[run] = table[run].fillna(analysis.cap if run in failed else np.nan).clip(upper=analysis.cap)
        spreads[arm.name] = _spread(table)
    values = pd.concat(spreads).to_numpy()
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return None
    reference = spreads[analysis.reference.name]
    legend = [
        Line2D(
            [], [], color=BLUE, linewidth=2, marker="o", markersize=3.5, label="the arm: median over seeds"
        ),
        Patch(color=BLUE, alpha=0.25, label="middle half of its seeds"),
        Line2D(
            [], [], color=MUTED, linewidth=1.3, linestyle=(0, (3, 1.5)), label=short(analysis.reference.name)
        ),
    ]
    figure, panels = _panels(
        list(analysis.arms),
        legend,
        f"{analysis.score.long} (log axis)",
        "real images shown to the discriminator",
    )
    for arm, axes in zip(analysis.arms, panels, strict=True):
        _line(axes, reference, MUTED, band=False, linewidth=1.3, linestyle=(0, (3, 1.5)))
        if arm is not analysis.reference:
            color = BY_ROLE[arm.role]
            _line(
                axes, spreads[arm.name], color, linewidth=1.8, marker="o", markersize=3.5, markeredgewidth=0
            )
        if not spreads[arm.name].notna().any(axis=None):
            axes.text(0.5, 0.5, "no score", transform=axes.transAxes, ha="center", color=MUTED)
        if arm is analysis.reference:
            _line(axes, spreads[arm.name], INK, linewidth=1.8, marker="o", markersize=3.5, markeredgewidth=0)
    _log_axis(panels[0].yaxis, values.min() / 1.1, values.max() * 1.1, fewest=3)
    panels[0].set_xlim(0, max(points) * 1.03)
    panels[0].xaxis.set_major_formatter(FuncFormatter(_thousands))
    ends = "; ".join(
        f"{n} {number(s['middle'].dropna().iloc[-1])}" for n, s in spreads.items() if s.notna().any(axis=None)
    )
    return _chart(
        figure,
        "along_budget",
        f"{analysis.score.short} along training",
        f"{analysis.score.long} at {len(points)} points of the budget: median over seeds (line) and the"
        " middle half of"
        f" the seeds (band); dashed: the reference arm {names([analysis.reference.name])}; controls are"
        " purple. A failed"
        " run counts as the cap at the points that it did not reach.",
        f"Small line charts of {analysis.score.long} along training, one an arm. Medians at the end: {ends}.",
    )


def losses(analysis: Analysis) -> Chart | None:
    """Return the losses of D and G along the budget, one panel an arm."""
    sides = (("loss_d", BLUE, "discriminator"), ("loss_g", ORANGE, "generator"))
    spreads = {
        (arm.name, metric): _spread(_curve(analysis, arm, metric, None))
        for arm in analysis.arms
        for metric, *_ in sides
    }
    drawn = [spread for spread in spreads.values() if len(spread)]
    values = pd.concat(drawn).to_numpy() if drawn else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    legend = [Line2D([], [], color=c, linewidth=2, label=f"loss of the {who}") for _, c, who in sides]
    logarithmic = bool((values > 0).all() and values.max() > 4 * values.min())
    figure, panels = _panels(
        list(analysis.arms),
        [*legend, Patch(color=MUTED, alpha=0.3, label="middle half of the seeds")],
        f"loss{' (log axis)' if logarithmic else ''}",
        "real images shown to the discriminator",
    )
    for arm, axes in zip(analysis.arms, panels, strict=True):
        for metric, color, _ in sides:
            if len(spreads[arm.name, metric]):
                _line(axes, spreads[arm.name, metric], color, linewidth=1.5)
        if not any(len(spreads[arm.name, metric]) for metric, *_ in sides):
            axes.text(0.5, 0.5, "no losses", transform=axes.transAxes, ha="center", color=MUTED)
    if logarithmic:
        _log_axis(panels[0].yaxis, values.min() / 1.15, values.max() * 1.15, fewest=3)
    panels[0].set_xlim(left=0)
    panels[0].xaxis.set_major_formatter(FuncFormatter(_thousands))
    return _chart(
        figure,
        "losses",
        "Losses along training",
        "Mean loss in windows of the budget: median over seeds (line) and the middle half of the seeds"
        " (band). A loss"
        " says who is winning, not how good the pictures are: read it together with the score.",
        "Small line charts of the losses of discriminator and generator along training for"
        f" {len(analysis.arms)} arms.",
    )


# --- 5. pictures


def pictures(analysis: Analysis, most_bytes: int = 700_000) -> tuple[int, dict[str, bytes]] | None:
    """Return (seed, PNG by arm): sample grids at the same latents, the real images first under the name "".

    The seed is the first for which most arms have a picture. Grids that are too large together keep their
    first rows: of four, two or one.
    """
    folder = analysis.results.path / "samples"

    def of(arm: Arm, seed: int) -> Path | None:
        path = folder / f"{arm.runs['run'].get(seed)}.png"
        return path if path.is_file() else None

    found = {seed: [a for a in analysis.arms if of(a, seed)] for seed in analysis.seeds}
    seed = max(analysis.seeds, key=lambda s: (len(found[s]), -s), default=None)
    if seed is None or not found[seed]:
        return None
    paths = {"": folder / "real.png"} if (folder / "real.png").is_file() else {}
    paths |= {arm.name: of(arm, seed) for arm in found[seed]}
    for rows in (4, 2, 1):
        grids = {name: _first_rows(path, rows) for name, path in paths.items()}
        if sum(len(png) for png in grids.values()) <= most_bytes:
            break
    return seed, grids


def _first_rows(path: Path, rows: int) -> bytes:
    """Return the first rows of a sample grid (4 rows of 8 images) with a gap between the images."""
    sheet = Image.open(path)
    width, height = sheet.width // 8, sheet.height // 4
    gap = max(1, width // 16)
    apart = Image.new(sheet.mode, (8 * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for row in range(rows):
        for column in range(8):
            x, y = column * width, row * height
            image = sheet.crop((x, y, x + width, y + height))
            apart.paste(image, (x + column * gap, y + row * gap))
    return _png(apart)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def montage(analysis: Analysis, seed: int, grids: dict[str, bytes], missing: dict[str, str]) -> Chart:
    """Return all sample grids in one picture, each under its arm's name; an arm without one says why."""
    images = {
        name or "real images": Image.open(io.BytesIO(png)).convert("RGB") for name, png in grids.items()
    }
    width, height = (max(i.size[k] for i in images.values()) for k in (0, 1))
    times = max(1, 288 // width)
    width, height, pad, line, columns = width * times, height * times, 14, 22, 3
    labels = [*images, *missing]
    rows = math.ceil(len(labels) / columns)
    sheet = Image.new("RGB", (columns * (width + pad) + pad, rows * (height + line + pad) + pad), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 13)
    for i, name in enumerate(labels):
        x, y = pad + (i % columns) * (width + pad), pad + (i // columns) * (height + line + pad)
        pen.text((x, y), short(name, width // 9), fill=INK, font=font)
        if name in images:
            image = images[name]
            sheet.paste(
                image.resize((image.width * times, image.height * times), Image.NEAREST), (x, y + line)
            )
        else:
            pen.rectangle((x, y + line, x + width - 1, y + line + height - 1), outline=RULE)
            pen.text(
                (x + 8, y + line + 8),
                short(f"no picture: {missing[name]}", width // 9),
                fill=MUTED,
                font=font,
            )
    title, caption, alt = about_pictures(analysis, seed, list(missing))
    return Chart("samples", title, caption, alt, "", _png(sheet))


def about_pictures(analysis: Analysis, seed: int, missing: list[str]) -> tuple[str, str, str]:
    """Return title, caption and alternative text of the sample grids."""
    without = f" No picture: {names(missing)}." if missing else ""
    return (
        "Samples side by side",
        f"Final samples of seed {seed}, the same latents in every arm (arms with another noise length take"
        " a prefix),"
        f" not chosen by hand. One seed is an illustration, not evidence.{without}",
        f"Grids of generated images, one for each of {len(analysis.arms) - len(missing)} arms, beside real"
        " images.",
    )
