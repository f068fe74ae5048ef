"""The report of a results folder: a Markdown page with its charts, and the same as one HTML file."""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import averages, background, exports, pages, sections
from bench.analyse import Analysis, Arm, analyse, caveats
from bench.errors import Refused
from bench.factorial import main_effects
from bench.pages import Block, Fold, Heading, Picture, Text, Tile, Tiles, code, number, plain, slug
from bench.results import Results, load

if TYPE_CHECKING:
    from bench.drawing import Chart

ENDINGS = ("svg", "png", "pdf", "csv")


def report(results: Path, reports: Path) -> Path:
    """Write reports/<name>/ from results/<name>/ and return it.

    Pages: index.md, index.html. Charts: SVG, PNG, PDF, and their data as CSV. For machines and papers: verdicts.csv,
    verdicts.tex. The same results give the same bytes. Raises Refused where the results are broken or the folder
    cannot be written.
    """
    from bench import charts  # here, because seaborn takes seconds to import

    analysis = analyse(read(results))
    drawn = charts.draw(analysis)
    shown, files = _sheets(analysis)
    blocks = _blocks(analysis, {name: picture(chart) for name, chart in drawn.items()} | shown)
    files |= exports.files(analysis) | {
        "index.md": pages.to_markdown(blocks).encode(),
        "index.html": pages.to_html(f"{analysis.results.name}: DCGAN tricks, measured", blocks).encode(),
    }
    for chart in drawn.values():
        files |= chart_files(chart)
    possible = {f"{name}.{ending}" for name in (*charts.NAMES, *OLD) for ending in ENDINGS} | {"samples.png"}
    return write(Path(reports) / analysis.results.name, files, possible)


def read(folder: Path) -> Results:
    """Return the results of a folder; raises Refused where they are broken, or there is no row to report on."""
    results = load(folder)
    if not len(results.runs):
        raise Refused(f"{folder / 'runs.csv'}: no rows; nothing to report")
    return results


OLD = ("along_budget",)  # what earlier versions drew


def write(folder: Path, files: Mapping[str, bytes], possible: set[str]) -> Path:
    """Write the files and take away those of an earlier report: a chart no longer drawn must not lie about."""
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _write(folder / name, content)
        moving = {f"animations/{path.name}" for path in (folder / "animations").glob("*.webp")}
        for name in (possible | moving) - files.keys():
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"{folder}: the report cannot be written: {error.strerror}") from None
    return folder


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, so that nobody reads half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def chart_files(chart: "Chart") -> dict[str, bytes]:
    """Return a chart's files by name: SVG, PNG, PDF and its data."""
    made = {
        f"{chart.name}.svg": chart.svg.encode(),
        f"{chart.name}.png": chart.png,
        f"{chart.name}.pdf": chart.pdf,
    }
    data = chart.data.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return made | {f"{chart.name}.csv": data.encode()}


def picture(chart: "Chart") -> Picture:
    """Return a chart as a block of the page."""
    files = [f"{chart.name}.{ending}" for ending in ENDINGS[1:]]
    return Picture(chart.name, chart.title, chart.caption, chart.alt, chart.svg, chart.png, files)


def _blocks(analysis: Analysis, shown: Mapping[str, Picture | Tiles]) -> list[Block]:
    """Return the document: first what was found, then what it rests on."""

    def pictures(*names: str) -> list[Block]:
        return [shown[name] for name in names if name in shown]

    def section(title: str, blocks: Sequence[Block]) -> list[Block]:
        return [Heading(2, title), *blocks] if blocks else []

    averaged = bool(main_effects(analysis))  # then arms are cells, of which no single one is judged
    others = [
        name for name in shown if "_along_" in name and not name.startswith("fd_")
    ]  # and losses in time
    rest: list[Block] = [
        *sections.words(analysis),
        *section("Charts", pictures("ratio", "score_by_arm", "pairs", "cost")),
        *section(
            "Failures",
            [
                *pictures("failures"),
                *background.failed(analysis),
                *pictures("sound"),
                *background.symptoms(analysis),
                *background.limits(analysis),
            ],
        ),
        *section(
            "Interactions",
            [
                *pictures("interactions"),
                *averages.pairs(analysis),
                *averages.context(analysis),
                *averages.screen(analysis),
            ],
        ),
        *section(
            "Along training",
            [
                *background.equal_terms(analysis),
                *pictures("fd_along_images", "fd_along_time", "losses", "best_of"),
                *(
                    [Fold("The other scores, and losses by time", pictures(*others), "scores_along_training")]
                    if others
                    else []
                ),
            ],
        ),
        *section("Pictures", pictures("samples", "animations")),
        *(sections.verdict_table(analysis) if averaged else []),
        *background.all_arms(analysis),
        *pictures("other_scores"),
        *background.readouts_section(analysis),
        *background.how_to_read(analysis),
        *background.cards(analysis),
        *background.setting(analysis),
        *background.reproduce(analysis),
    ]
    return [
        Heading(1, f"{plain(analysis.results.name)}: which DCGAN tricks help?"),
        *sections.finding(analysis),
        *[Text(f"**Note.** {note}", "note") for note in caveats(analysis)],
        pages.contents(rest),
        *averages.main_table(analysis),
        *([] if averaged else sections.verdict_table(analysis)),
        *rest,
    ]


def _sheets(analysis: Analysis) -> tuple[dict[str, Tiles], dict[str, bytes]]:
    """Return the sample grids and the animations as blocks, and their files."""
    from bench import sheets

    shown: dict[str, Tiles] = {}
    files: dict[str, bytes] = {}
    found = sheets.pictures(analysis)
    if found:
        seed, grids = found
        missing = {arm.name: _why_no_picture(arm, seed) for arm in analysis.arms if arm.name not in grids}
        sheet = sheets.montage(analysis, seed, grids, missing)
        tiles = [
            Tile(_tile_label(analysis, name, seed), "", f"sample grid: {name or 'real images'}", png)
            for name, png in grids.items()
        ]
        tiles += [Tile(code(name), "", missing=f"no picture: {plain(why)}") for name, why in missing.items()]
        shown["samples"] = Tiles("samples", sheet.title, sheet.caption, sheet.alt, tiles, "samples.png")
        files["samples.png"] = sheet.png
    moved = sheets.animations(analysis)
    if moved:
        seed, moving = moved
        tiles = []
        for i, (name, (webp, still)) in enumerate(moving.items()):
            file = f"animations/{i:02d}-{slug(name)}.webp"
            files[file] = webp
            alt = f"samples of {name} along training, from noise to the last step"
            tiles.append(Tile(_tile_label(analysis, name, seed), file, alt, still, webp))
        title, caption, alt = sheets.about_animations(seed)
        shown["animations"] = Tiles("animations", title, caption, alt, tiles)
    return shown, files


def _why_no_picture(arm: Arm, seed: int) -> str:
    if seed not in arm.runs.index:
        return "not run"
    status = str(arm.runs["status"][seed])
    return "file missing" if status == "ok" else status


def _tile_label(analysis: Analysis, name: str, seed: int) -> str:
    if not name:
        return "**real images**"
    run = next(arm for arm in analysis.arms if arm.name == name).runs.loc[seed]
    score = f" · {analysis.score.short} {number(run['fd'])}" if not math.isnan(run["fd"]) else ""
    return f"{code(name)}{score}" + (f" · {run['status']}" if run["status"] != "ok" else "")
