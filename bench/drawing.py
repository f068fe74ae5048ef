"""How the report draws: the house style, a canvas with one row an arm, small panels, and figures as files."""

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.pages import ratio_text
from bench.stats import quartiles

# Okabe and Ito's colours, which colour-blind readers can tell apart; the page swaps inks for dark screens.
INK, MUTED, RULE, BAND = "#1a1a19", "#6b6b67", "#d9d9d6", "#eeeeea"
BLUE, RED, GREEN, PURPLE, ORANGE, AMBER = "#0072b2", "#d55e00", "#009e73", "#a0569b", "#e69f00", "#8a5a00"
BY_ROLE = {"baseline": INK, "trick": BLUE, "control": PURPLE}
BY_VERDICT = {"helps": BLUE, "hurts": RED, "equivalent": GREEN, "unstable": AMBER, "inconclusive": MUTED}
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
    "pdf.fonttype": 42,  # TrueType, whole words: what journals ask for
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
    pdf: bytes = b""
    data: pd.DataFrame = field(default_factory=pd.DataFrame)  # what is drawn


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the house style whatever the user's own matplotlib settings are."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(sns.axes_style("ticks") | STYLE)
        yield


def new_figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def finished(figure: Figure, name: str, title: str, caption: str, alt: str, data: pd.DataFrame) -> Chart:
    """Return the figure as SVG, PNG and PDF, the same bytes for the same figure."""
    svg, png, pdf = io.StringIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    figure.savefig(pdf, format="pdf", metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
    drawing = svg.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    # a hundredth of a point is enough, and two thirds of the bytes
    drawing = re.sub(r"(?<= )(-?\d+\.\d\d)\d+(?=[ \"\n])", r"\1", drawing)
    return Chart(name, title, caption, alt, drawing, png.getvalue(), pdf.getvalue(), data)


def short(name: str, room: int = 30) -> str:
    """Return a name that fits: the middle of a long one is left out."""
    return name if len(name) <= room else f"{name[: room // 2]}…{name[-(room - room // 2 - 1) :]}"


def wrapped(name: str, room: int = 30) -> str:
    """Return a name in one line, or in two that part where its tricks do; more than fits loses the middle of each part.

    A middle left out of the whole would make the same of two combinations that differ only there.
    """
    if len(name) <= room:
        return name
    if len(name) > 2 * room - 8:  # lines are seldom equally long
        parts = re.split(r"(?=\+)", name)
        name = "".join(short(part, max(6, (2 * room - 8) // len(parts))) for part in parts)
    breaks = [found.start() for found in re.finditer(r"(?<=.)(?:\+|(?<=[,. ]))", name)]
    half = min(breaks, key=lambda at: max(at, len(name) - at), default=len(name))
    return "\n".join(short(line, room) for line in (name[:half], name[half:]) if line)


def room_for(names: Iterable[str]) -> float:
    """Return the inches that the rows' names need at the left."""
    return 0.2 + 0.071 * max(len(line) for name in names for line in wrapped(name).split("\n"))


def name_rows(axes: Axes, places: dict[str, float]) -> None:
    """Write each row's name at the left, in smaller letters where it takes two lines."""
    axes.set_yticks(list(places.values()), [wrapped(name) for name in places])
    for label in axes.get_yticklabels():
        if "\n" in label.get_text():
            label.set(fontsize=7.5, linespacing=1.0, multialignment="right")


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


def log_axis(axis: matplotlib.axis.Axis, low: float, high: float, fewest: int = 4) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks(low, high, fewest)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1e5 else f"{x:.0e}"))


def by_seed(seeds: Iterable[int], room: float = 0.26) -> dict[int, float]:
    """Return an offset for each seed, so that dots do not hide each other and a seed keeps its place."""
    seeds = list(seeds)
    return dict(zip(seeds, np.linspace(-room, room, len(seeds)) if len(seeds) > 1 else [0.0], strict=True))


def places_of(groups: list[list[str]]) -> dict[str, float]:
    """Return a y for each arm, top to bottom, with a gap between groups."""
    places, y = {}, 0.0
    for group in groups:
        for name in group:
            places[name] = y
            y += 1
        y += 0.5 if group else 0
    return places


def canvas(labels: list[str], bottom: float, right: float, places: dict[str, float]) -> tuple[Figure, Axes]:
    """Return a figure with one row an arm, room for its names at the left and for notes at the right."""
    height = 0.31 * (max(places.values()) + 1.2) + bottom + 0.4
    figure = new_figure(height)
    left = room_for(labels)
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, 1 - (bottom + 0.38) / height)
    )
    axes.set_ylim(max(places.values()) + 0.7, -0.7)
    name_rows(axes, places)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return figure, axes


def add_legend(figure: Figure, handles: list, columns: int = 5) -> None:
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


def dot(color: str, label: str, marker: str = "o", size: float = 5, **more: object) -> Line2D:
    return Line2D([], [], color=color, marker=marker, linestyle="none", markersize=size, label=label, **more)


def write_note(axes: Axes, y: float, text: str, color: str = INK, **style: object) -> None:
    """Write beside the row, outside the axes."""
    axes.text(
        1.04, y, text, transform=axes.get_yaxis_transform(), va="center", color=color, fontsize=8.5, **style
    )


def draw_interval(
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


def interval_handle(label: str) -> Line2D:
    return Line2D(
        [], [], color=MUTED, linewidth=2.2, marker="D", markersize=6, markeredgecolor="white", label=label
    )


def small_panels(
    names: list[str], legend: list, ylabel: str, below: str, tall: float = 1.22
) -> tuple[Figure, list[Axes]]:
    """Return one small panel a name, with shared axes and ticks only at the outside; `tall` in inches."""
    columns = 3
    rows = math.ceil(len(names) / columns)
    height = tall * rows + 0.85
    figure = new_figure(height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.085, right=0.985, bottom=0.5 / height, top=1 - 0.52 / height, hspace=0.36, wspace=0.08
    )
    every = list(grid.flat)
    for i, axes in enumerate(every):
        if i >= len(names):
            axes.set_visible(False)
            continue
        title = wrapped(names[i], 32)
        axes.set_title(title, loc="left", pad=3, fontsize=7.5 if "\n" in title else 8.5, linespacing=1.0)
        axes.grid(color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        axes.tick_params(
            length=2.5, labelsize=8, labelbottom=i + columns >= len(names), labelleft=i % columns == 0
        )
    figure.supylabel(ylabel, fontsize=9 if rows > 1 else 7.5, x=0.008)
    figure.supxlabel(below, fontsize=9, y=0.06 / height)
    add_legend(figure, legend)
    return figure, every[: len(names)]


def thousands(x: float, _: object = None) -> str:
    return f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"


def quartiles_by_row(table: pd.DataFrame) -> pd.DataFrame:
    """Return median and quartiles over runs (columns) at every point of the budget (rows)."""
    return pd.DataFrame(
        [quartiles(row.dropna()) for _, row in table.iterrows()],
        index=table.index,
        columns=["middle", "low", "high"],
    )


def draw_line(axes: Axes, spread: pd.DataFrame, color: str, band: bool = True, **style: object) -> None:
    """Draw a median with the band of its quartiles."""
    if band:
        axes.fill_between(spread.index, spread["low"], spread["high"], color=color, alpha=0.22, linewidth=0)
    axes.plot(spread.index, spread["middle"], color=color, **style)


def limits(low: float, high: float) -> str:
    """Return an interval of ratios in words."""
    return f"{ratio_text(low)}–{ratio_text(high)}"
