"""One document, two pages: the same blocks as Markdown for a code host and as one HTML file."""

import base64
import hashlib
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

# Inline text is a little Markdown: `code`, **bold**, [text](address), and a backslash before a character that
# should stay itself. `plain` and `code` make it from any string.


def plain(text: object) -> str:
    """Return text in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|~$])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Return text as code, whatever it holds."""
    text = " ".join(str(text).split())
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{text}{room}{fence}"


def prose(text: object) -> str:
    """Return text in which nothing is markup but words between backticks, which are code."""
    parts = re.split(r"`([^`]+)`", " ".join(str(text).split()))
    return "".join(code(part) if i % 2 else plain(part) for i, part in enumerate(parts))


def link(text: object, address: str) -> str:
    """Return a link, or only its text where the address is not a web address."""
    if not re.match(r"https?://\S+$", address):
        return plain(text)
    return f"[{plain(text)}]({address.replace('(', '%28').replace(')', '%29')})"


def anchor(text: object, id: str) -> str:
    """Return a link to the block of this page that has this id."""
    return f"[{plain(text)}](#{id})"


def slug(text: object) -> str:
    """Return a name that may stand in a file name or an address: letters, digits and . _ = + - only."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", str(text)).strip("._")[:60] or "_"


def number(x: float) -> str:
    """Return a number with three significant digits, no exponent where it can be avoided."""
    if math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    if abs(x) >= 1e6:
        return f"{x / 1e6:,.3g} M".replace("-", "−")
    if x and abs(x) < 1e-3:
        return f"{x:.2g}".replace("-", "−")
    digits = 0 if abs(x) >= 100 else 1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3
    return f"{x:,.{digits}f}".replace("-", "−").replace(",", " ")


def ratio_text(x: float) -> str:
    """Return a ratio with two decimals, one or none where it is large."""
    if x == 0 or math.isinf(x):
        return "∞" if x else "0"
    return f"{x:.2f}" if x < 9.95 else f"{x:.0f}"


def p_value(p: float) -> str:
    """Return a p value as papers print it."""
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def p_text(p: float) -> str:
    """Return `p = .037`, or `p < .001`."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def amount(x: Any) -> str:
    """Return a count with its thousands apart."""
    return f"{x:,}".replace(",", " ") if isinstance(x, int | float) else plain(x)


def value_text(value: Any) -> str:
    """Return a setting for people: lists without brackets, mappings as name value."""
    if value is None or value == [] or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, item in value.items() if (text := value_text(item)))
    if isinstance(value, list):
        return ", ".join(value_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Heading:
    """A heading: level 1 to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is "" or `lead` (the finding), `note` (a caveat), `good` or `alarm` (the warning light)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Counts:
    """How many there are of each kind, at a glance: (mark, number, word)."""

    items: Sequence[tuple[str, int, str]]


@dataclass(frozen=True)
class Items:
    """A list of points."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Commands to type."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks behind one line that opens them; links point to `id`."""

    title: str
    blocks: Sequence["Block"]
    id: str


class Bar(NamedTuple):
    """A ratio with its interval, drawn in a cell: below 1 to the left."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Table:
    """A table; `kind` is `cards` (rows are cards on a phone), `wide` (scrolls) or `pairs` (name, value).

    With a script at work `cards` and `wide` can be sorted, and a table with marks can be filtered by them.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str
    label: str = "table"
    marks: Sequence[str] = ()  # one word a row, for its colour and the filter
    numeric: bool = False  # all columns but the first four
    keys: Sequence[
        Sequence[float | None]
    ] = ()  # what rows are sorted by, where it is not the text: by row, column
    bars: Sequence[Bar] = ()  # HTML only: one a row
    barred: int = 2  # in this column


@dataclass(frozen=True)
class Picture:
    """A chart: a file for Markdown, an inline SVG (or a PNG) for HTML; `files` are offered beside it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Tile:
    """A small picture with its label: a PNG, or an animation with its last frame as `png`, or why there is none."""

    label: str
    file: str  # for Markdown, "" for none
    alt: str = ""
    png: bytes = b""
    moving: bytes = b""  # WebP
    missing: str = ""


@dataclass(frozen=True)
class Tiles:
    """Small pictures side by side; Markdown shows `sheet`, one picture file of them all, if there is one."""

    name: str
    title: str
    caption: str
    alt: str
    tiles: Sequence[Tile]
    sheet: str = ""


Block = Heading | Text | Counts | Items | Code | Fold | Table | Picture | Tiles


# --- Markdown


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return the blocks as Markdown (GitHub's dialect); pictures lie beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Text(text, kind):
            return {
                "lead": f"**{text}**",
                "note": f"> {text}",
                "good": f"> {text}",
                "alarm": f"> {text}",
            }.get(kind, text)
        case Counts(items):
            return " · ".join(f"**{count}** {word}" for _, count, word in items)
        case Items(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(text):
            return f"```sh\n{text}\n```"
        case Fold(title, blocks, id):
            inside = "\n\n".join(_markdown(inner) for inner in blocks)
            return (
                f'<details><summary>{inline(title)}</summary>\n\n<a id="{id}"></a>\n\n{inside}\n\n</details>'
            )
        case Table():
            rule = ["---:" if block.numeric and i > 3 else "---" for i in range(len(block.header))]
            rows = (block.header, rule, *block.rows)
            return "\n".join("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)
        case Picture(name, title, caption, alt, svg):
            file = f"{name}.{'svg' if svg else 'png'}"
            return f"### {title}\n\n![{plain(alt)}]({file})\n\n{caption}{_offered(block)}"
        case Tiles(_, title, caption, alt, tiles, sheet):
            shown = f"![{plain(alt)}]({sheet})" if sheet else _tile_table(tiles)
            return f"### {title}\n\n{shown}\n\n{caption}"


def _offered(picture: Picture) -> str:
    """Return links to the files that lie beside the page."""
    links = [f"[{file.rpartition('.')[2].upper()}]({file})" for file in picture.files]
    return f" ({', '.join(links)})" if links else ""


def _tile_table(tiles: Sequence[Tile], columns: int = 3) -> str:
    cells = [f"{t.label}<br>" + (f"![{plain(t.alt)}]({t.file})" if t.file else t.missing) for t in tiles]
    cells += [""] * (-len(cells) % columns)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    lines = [[""] * columns, ["---"] * columns, *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in row) + " |" for row in lines)


def _cell(text: str) -> str:
    """Return the text with every bar escaped (also inside code, where tables want it), none twice."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


# --- HTML


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Return the blocks as one HTML page that loads nothing else and runs no script but its own.

    The policy in its head names the hash of that script, so that markup in a result could not run anything even
    if it got past the escaping.
    """
    script = "\n" + _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
        " base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def contents(blocks: Sequence[Block]) -> Text:
    """Return one line of links to the sections of a page."""
    links = [anchor(b.text, slug(b.text)) for b in blocks if isinstance(b, Heading) and b.level == 2]
    return Text(" · ".join(links), "contents")


VERDICTS = ("helps", "hurts", "equivalent", "unstable", "inconclusive")  # words that have a colour when bold
INLINE = re.compile(
    r"\\(?P<kept>.)|(?P<fence>`+) ?(?P<code>.+?) ?(?P=fence)(?!`)|\*\*(?P<bold>.+?)\*\*"
    r"|\[(?P<text>(?:\\.|[^\]\\])+)\]\((?P<address>[^)\s]+)\)"
)


def inline(text: str) -> str:
    """Return inline Markdown as HTML."""

    def one(found: re.Match[str]) -> str:
        if found["kept"]:
            return html.escape(found["kept"])
        if found["code"]:
            return f"<code>{html.escape(found['code'])}</code>"
        if found["bold"]:
            mark = f' class="{found["bold"]}"' if found["bold"] in VERDICTS else ""
            return f"<strong{mark}>{inline(found['bold'])}</strong>"
        return f'<a href="{html.escape(found["address"])}">{inline(found["text"])}</a>'

    parts, end = [], 0
    for found in INLINE.finditer(text):
        parts += [_escaped(text[end : found.start()]), one(found)]
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    """Return text for HTML in which no line breaks inside 2 000, 95 % or (0.9 to 1.1)."""
    return html.escape(
        re.sub(
            r"(?<=\d) (?=%|\d{3}\b|to [\d∞])|(?<=\d to) |(?<=[×=]) (?=[\d.])|(?<=\b[np]) (?==)",
            "\u00a0",
            text,
        )
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f'<h{level} id="{slug(text)}">{inline(text)}</h{level}>'
        case Text(text, kind):
            mark = f' class="{kind}"' if kind else ""
            return f"<p{mark}>{inline(text)}</p>"
        case Counts(items):
            shown = "".join(f'<li class="{m}"><strong>{n}</strong> {inline(w)}</li>' for m, n, w in items)
            return f'<ul class="counts">{shown}</ul>'
        case Items(items):
            return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'
        case Fold(title, blocks, id):
            inside = "\n".join(_html(inner) for inner in blocks)
            return f'<details><summary>{inline(title)}</summary>\n<div id="{id}">{inside}</div></details>'
        case Table():
            return _html_table(block)
        case Picture():
            return _html_picture(block)
        case Tiles(name, title, caption, _, tiles):
            shown = "".join(_tile(tile) for tile in tiles)
            return (
                f'<h3 id="{name}">{inline(title)}</h3>\n<figure><div class="tiles">{shown}</div>'
                f"<figcaption>{inline(caption)}</figcaption></figure>"
            )


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{inline(cell)}</th>' for cell in table.header)
    rows = []
    for i, row in enumerate(table.rows):
        mark = f' class="{table.marks[i]}"' if table.marks else ""
        keys = [_key(key) for key in table.keys[i]] if table.keys else [""] * len(row)
        cells = [f'<th scope="row"{keys[0]}>{inline(row[0])}</th>']
        for column, (name, cell) in enumerate(zip(table.header[1:], row[1:], strict=True), 1):
            label = html.escape(re.sub(r"[\\`*]", "", name), quote=True)
            bar = _bar(table.bars[i]) if table.bars and column == table.barred else ""
            cells.append(f'<td data-label="{label}"{keys[column]}>{bar}{inline(cell)}</td>')
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    kind = table.kind + (" numeric" if table.numeric else "")
    kind += (" sortable" if table.kind != "pairs" else "") + (" filterable" if table.marks else "")
    return (
        f'<div class="table {table.kind}" tabindex="0" role="region" aria-label="{html.escape(table.label)}">'
        f'<table class="{kind}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _key(key: float | None) -> str:
    """Return the attribute that a cell is sorted by: none for its text, an empty one for what comes last."""
    if key is None:
        return ""
    return f' data-key="{"" if math.isnan(key) else f"{key:.6g}"}"'


def _bar(bar: Bar, widest: float = 2.0) -> str:
    """Return the interval as a line from 1/widest to widest, on a log axis with 1 in the middle."""
    if math.isnan(bar.estimate):
        return ""

    def place(x: float) -> float:
        at = math.log(x) / math.log(widest) if 0 < x < math.inf else math.copysign(1, x - 1)
        return round(50 + 50 * min(1, max(-1, at)), 1)

    low, high = place(bar.low), place(bar.high)
    return (
        f'<span class="bar" aria-hidden="true"><i style="left:{low}%;width:{round(high - low, 1)}%"></i>'
        f'<b style="left:{place(bar.estimate)}%"></b></span>'
    )


def _html_picture(picture: Picture) -> str:
    caption = f"<figcaption>{inline(picture.caption)}</figcaption>"
    if picture.svg:
        drawing = (
            f'<div class="chart" tabindex="0">{inline_svg(picture.svg, picture.name, picture.alt)}</div>'
        )
    else:
        drawing = f'<img alt="{html.escape(picture.alt)}" src="{_data(picture.png)}">'
    return f'<h3 id="{picture.name}">{inline(picture.title)}</h3>\n<figure>{drawing}{caption}</figure>'


def _tile(tile: Tile) -> str:
    if tile.missing:
        shown = f'<div class="missing">{inline(tile.missing)}</div>'
    else:
        shown = f'<img alt="{html.escape(tile.alt)}" src="{_data(tile.moving or tile.png)}">'
    if tile.moving:  # who asked for less motion gets the last frame
        still = f'<source media="(prefers-reduced-motion: reduce), print" srcset="{_data(tile.png)}">'
        shown = f'<picture class="moving">{still}{shown}</picture>'
    return f"<figure>{shown}<figcaption>{inline(tile.label)}</figcaption></figure>"


def _data(picture: bytes) -> str:
    kind = "webp" if picture[:4] == b"RIFF" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


# what is dark on paper must be light on a dark screen: drawing colours become variables of the style sheet
VARIABLES = {
    "#1a1a19": "ink",
    "#6b6b67": "muted",
    "#d9d9d6": "rule",
    "#eeeeea": "band",
    "#ffffff": "paper",
    "#0072b2": "blue",
    "#d55e00": "red",
    "#009e73": "green",
    "#a0569b": "purple",
    "#e69f00": "orange",
    "#8a5a00": "amber",
}


def inline_svg(svg: str, name: str, alt: str) -> str:
    """Return an SVG file as an element of the page: described, its ids its own, its colours the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r'<svg[^>]*?width="([\d.]+)pt"[^>]*?viewBox="([^"]+)"[^>]*>',
        rf"<svg {_described(alt)} \2>",
        svg,
        count=1,
    )
    svg = re.sub(r'<svg (role="img" aria-label="[^"]*") ([\d. ]+)>', r'<svg \1 viewBox="\2">', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"\s*<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace("'DejaVu Sans', Verdana, sans-serif", "inherit")
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg.strip()


def _described(alt: str) -> str:
    return f'role="img" aria-label="{html.escape(alt, quote=True)}"'.replace("\\", r"\\")
