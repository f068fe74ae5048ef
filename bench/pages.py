"""One document, two pages: the same blocks as Markdown for a code host and as one HTML file."""

import base64
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

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


def link(text: object, address: str) -> str:
    """Return a link, or only its text where the address is not a web address."""
    if not re.match(r"https?://\S+$", address):
        return plain(text)
    return f"[{plain(text)}]({address.replace('(', '%28').replace(')', '%29')})"


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


@dataclass(frozen=True)
class Heading:
    """A heading: level 1 to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is "" or `lead` (the finding), `note` (a caveat)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Items:
    """A list of points."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Commands to type."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; `kind` is `cards` (rows are cards on a phone), `wide` (scrolls) or `pairs` (name, value)."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str
    marks: Sequence[str] = field(default=())  # one word a row, for its colour
    numeric: bool = False  # all columns but the first four


@dataclass(frozen=True)
class Picture:
    """A chart: a file for Markdown, an inline SVG (or a PNG) for HTML."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    tiles: Sequence[
        tuple[str, bytes | str]
    ] = ()  # HTML only: label and PNG (or why there is none), in its place


Block = Heading | Text | Items | Code | Table | Picture


# --- Markdown


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return the blocks as Markdown (GitHub's dialect); pictures lie beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Text(text, kind):
            return {"lead": f"**{text}**", "note": f"> {text}"}.get(kind, text)
        case Items(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(text):
            return f"```sh\n{text}\n```"
        case Table(header, rows, _, _, numeric):
            rule = ["---:" if numeric and i > 3 else "---" for i in range(len(header))]
            return "\n".join("| " + " | ".join(_cell(c) for c in row) + " |" for row in (header, rule, *rows))
        case Picture(name, title, caption, alt, svg):
            file = f"{name}.{'svg' if svg else 'png'}"
            more = f" ([PNG]({name}.png))" if svg else ""
            return f"### {title}\n\n![{plain(alt)}]({file})\n\n{caption}{more}"


def _cell(text: str) -> str:
    """Return the text with every bar escaped (also inside code, where tables want it), none twice."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


# --- HTML


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Return the blocks as one HTML page that loads nothing else."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


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
            return f"<strong>{inline(found['bold'])}</strong>"
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
            return f"<h{level}>{inline(text)}</h{level}>"
        case Text(text, kind):
            mark = f' class="{kind}"' if kind else ""
            return f"<p{mark}>{inline(text)}</p>"
        case Items(items):
            return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'
        case Table():
            return _html_table(block)
        case Picture():
            return _html_picture(block)


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{inline(cell)}</th>' for cell in table.header)
    rows = []
    for i, row in enumerate(table.rows):
        mark = f' class="{table.marks[i]}"' if i < len(table.marks) else ""
        cells = [f'<th scope="row">{inline(row[0])}</th>']
        for name, cell in zip(table.header[1:], row[1:], strict=True):
            cells.append(f'<td data-label="{html.escape(name, quote=True)}">{inline(cell)}</td>')
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    kind = table.kind + (" numeric" if table.numeric else "")
    return (
        f'<div class="table {table.kind}" tabindex="0" role="region" aria-label="table">'
        f'<table class="{kind}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _html_picture(picture: Picture) -> str:
    caption = f"<figcaption>{inline(picture.caption)}</figcaption>"
    if picture.tiles:
        tiles = "".join(_tile(label, png) for label, png in picture.tiles)
        drawing = f'<div class="tiles">{tiles}</div>'
    elif picture.svg:
        drawing = (
            f'<div class="chart" tabindex="0">{inline_svg(picture.svg, picture.name, picture.alt)}</div>'
        )
    else:
        drawing = f'<img alt="{html.escape(picture.alt)}" src="{_data(picture.png)}">'
    return f'<h3 id="{picture.name}">{inline(picture.title)}</h3>\n<figure>{drawing}{caption}</figure>'


def _tile(label: str, png: bytes | str) -> str:
    if isinstance(png, str):
        shown = f'<div class="missing">{inline(png)}</div>'
    else:
        words = html.escape(re.sub(r"[\\`*]", "", label))
        shown = f'<img alt="sample grid: {words}" src="{_data(png)}">'
    return f"<figure>{shown}<figcaption>{inline(label)}</figcaption></figure>"


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


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


CSS = """\
:root { --ink: #1a1a19; --muted: #6b6b67; --rule: #d9d9d6; --band: #eeeeea; --paper: #ffffff; --soft: #f6f6f3;
  --blue: #0072b2; --red: #c24f00; --green: #007a59; --purple: #a0569b; --orange: #e69f00; color-scheme:
    light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececea; --muted: #a3a39e; --rule: #3a3a38; --band:
  #2b2b29;
  --paper: #161615; --soft: #20201f; --blue: #56b4e9; --red: #f08a4b; --green: #3fc79a; --purple: #d79ad2;
  --orange: #f0b73f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system,
  "Segoe UI",
  Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 2rem 0 0.5rem; }
p, ul { max-width: 48rem; }
a { color: var(--blue); }
code { font: 0.9em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: break-word; }
pre { background: var(--soft); padding: 0.75rem 1rem; overflow-x: auto; border-radius: 6px; }
.lead { font-size: 1.15rem; line-height: 1.45; }
.note { border-left: 4px solid var(--orange); background: var(--soft); padding: 0.5rem 0.75rem; margin:
  0.5rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.45rem 0.6rem; border-bottom: 1px solid
  var(--rule); }
thead th { border-bottom: 2px solid var(--muted); font-weight: 600; }
tbody th { font-weight: 400; }
table.wide td, table.wide th { white-space: nowrap; }
table.numeric td:nth-child(n + 5), table.numeric thead th:nth-child(n + 5) { text-align: right;
  font-variant-numeric: tabular-nums; }
table.cards td { font-variant-numeric: tabular-nums; }
table.cards tbody tr { box-shadow: inset 4px 0 0 var(--muted); }
table.cards tbody th { padding-left: 0.9rem; }
table.cards tr.helps { box-shadow: inset 4px 0 0 var(--blue); } tr.helps td:last-child { color: var(--blue); }
table.cards tr.hurts { box-shadow: inset 4px 0 0 var(--red); } tr.hurts td:last-child { color: var(--red); }
table.cards tr.equivalent { box-shadow: inset 4px 0 0 var(--green); } tr.equivalent td:last-child { color:
  var(--green); }
figure { margin: 0; }
figcaption { color: var(--muted); font-size: 0.9rem; max-width: 48rem; margin-top: 0.4rem; }
.chart { overflow-x: auto; }
.chart text { white-space: pre; }
.chart svg { display: block; width: 100%; max-width: 56rem; min-width: 34rem; height: auto; stroke-linejoin:
  round; }
.tiles { display: grid; gap: 0.9rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.tiles img, .missing { width: 100%; display: block; border: 1px solid var(--rule); }
.tiles img { image-rendering: pixelated; }
.tiles figcaption { margin-top: 0.2rem; }
.missing { aspect-ratio: 2; padding: 1rem; color: var(--muted); background: var(--soft); }
@media (max-width: 44rem) {
  .tiles { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
  table.cards, table.cards tbody, table.cards tr, table.cards th, table.cards td { display: block; }
  table.cards thead { display: none; }
  table.cards tbody tr { padding: 0.5rem 0 0.5rem 0.4rem; border-bottom: 1px solid var(--rule); }
  table.cards tbody th { font-weight: 600; border: 0; padding-bottom: 0.1rem; }
  table.cards td { border: 0; padding: 0.1rem 0.9rem; }
  table.cards td::before { content: attr(data-label) ": "; color: var(--muted); }
}
@media print { :root { --ink: #000; --paper: #fff; --soft: #f6f6f3; --muted: #555; } h2, h3, figure, tr {
  break-inside: avoid; } }
"""
