"""The report's pictures: sample grids of all arms at the same latents, and how they came about along training."""

import io
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from bench.analyse import Analysis, Arm, names
from bench.drawing import BLUE, INK, MUTED, RULE, Chart, short
from bench.errors import Refused
from bench.pages import number

PAPER = "#ffffff"


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
        grids = {name: _png(_first_rows(path, rows)) for name, path in paths.items()}
        if sum(len(png) for png in grids.values()) <= most_bytes:
            break
    return seed, grids


def _first_rows(path: Path, rows: int) -> Image.Image:
    """Return the first rows of a sample grid (4 rows of 8 images) with a gap between the images."""
    try:
        sheet = Image.open(path)
        sheet.load()
    except OSError:
        raise Refused(f"{path}: not a picture that can be read; delete it or restore it") from None
    width, height = sheet.width // 8, sheet.height // 4
    gap = max(1, width // 16)
    apart = Image.new(sheet.mode, (8 * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for row in range(rows):
        for column in range(8):
            x, y = column * width, row * height
            image = sheet.crop((x, y, x + width, y + height))
            apart.paste(image, (x + column * gap, y + row * gap))
    return apart


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
    font, scores = _font(13), _scores(analysis, seed)
    for i, name in enumerate(labels):
        x, y = pad + (i % columns) * (width + pad), pad + (i // columns) * (height + line + pad)
        score = scores.get(name, "")
        pen.text((x, y), short(name, (width - 9 * len(score)) // 8), fill=INK, font=font)
        pen.text((x + width - 1, y), score, fill=MUTED, font=font, anchor="ra")
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


def _scores(analysis: Analysis, seed: int) -> dict[str, str]:
    """Return what each arm's run of a seed scored, or how it ended, in a word."""
    runs = analysis.results.runs[analysis.results.runs["seed"] == seed]
    return {
        str(row.arm): str(row.status) if row.status != "ok" else f"{analysis.score.short} {row.fd:.3g}"
        for row in runs.itertuples()
        if row.status != "ok" or row.fd == row.fd
    }


def about_pictures(analysis: Analysis, seed: int, missing: list[str]) -> tuple[str, str, str]:
    """Return title, caption and alternative text of the sample grids."""
    without = f" No picture: {names(missing)}." if missing else ""
    return (
        "Samples side by side",
        f"Final samples of seed {seed}, the same latents in every arm (arms with another noise length take"
        " a prefix),"
        f" not chosen by hand; what each scored stands above it. One seed is an illustration, not evidence.{without}",
        f"Grids of generated images, one for each of {len(analysis.arms) - len(missing)} arms, beside real"
        " images.",
    )


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), size)


def animations(
    analysis: Analysis, most_bytes: int = 1_500_000
) -> tuple[int, dict[str, tuple[bytes, bytes]]] | None:
    """Return (seed, by arm: an animated WebP of the same latents along training and its last frame, still).

    The seed is the first for which most arms have frames. Grids that are too large together keep their first
    rows: of four, two or one.
    """
    found = {
        seed: [a for a in analysis.arms if len(_frames(analysis, a, seed)) > 1] for seed in analysis.seeds
    }
    seed = max(analysis.seeds, key=lambda s: (len(found[s]), -s), default=None)
    if seed is None or not found[seed]:
        return None
    moving: dict[str, tuple[bytes, bytes]] = {}
    for rows in (4, 2, 1):
        moving = {arm.name: _animated(_frames(analysis, arm, seed), rows) for arm in found[seed]}
        if sum(len(webp) for webp, _ in moving.values()) <= most_bytes:
            break
    return seed, moving


def _frames(analysis: Analysis, arm: Arm, seed: int) -> dict[int, Path]:
    """Return the files of a run's sample grids by the images that D had seen."""
    folder = analysis.results.path / "samples" / str(arm.runs["run"].get(seed))
    return {
        int(p.stem): p
        for p in sorted(folder.glob("*.png"), key=lambda p: p.stem.zfill(12))
        if p.stem.isdigit()
    }


def _animated(frames: Mapping[int, Path], rows: int) -> tuple[bytes, bytes]:
    """Return the frames as one looping WebP, the last one held, and that last one alone."""
    drawn = [_labelled(_first_rows(path, rows), images, max(frames)) for images, path in frames.items()]
    file, still = io.BytesIO(), io.BytesIO()
    held = [700] * (len(drawn) - 1) + [2200]  # ms
    drawn[0].save(
        file, format="WEBP", save_all=True, append_images=drawn[1:], duration=held, loop=0, quality=80
    )
    drawn[-1].save(still, format="WEBP", quality=80)
    return file.getvalue(), still.getvalue()


def _labelled(sheet: Image.Image, images: int, whole: int) -> Image.Image:
    """Return a sample grid, enlarged to be seen, over a bar that shows how far training is."""
    times = max(1, 270 // sheet.width)
    width, height, line = sheet.width * times, sheet.height * times, 20
    frame = Image.new("RGB", (width, height + line), PAPER)
    frame.paste(sheet.convert("RGB").resize((width, height), Image.NEAREST), (0, 0))
    pen = ImageDraw.Draw(frame)
    pen.rectangle((0, height, width - 1, height + 3), fill=RULE)
    pen.rectangle((0, height, round((width - 1) * images / whole), height + 3), fill=BLUE)
    pen.text((1, height + 5), f"after {number(images)} images", fill=INK, font=_font(11))
    return frame


def about_animations(seed: int) -> tuple[str, str, str]:
    """Return title, caption and alternative text of the animations."""
    return (
        "Along training, in pictures",
        f"The same latents of seed {seed} at every point of the budget: the bar shows how far training is. The last"
        " frame is held. Who asked the browser for less motion sees the last frame only.",
        "Animated sample grids along training, one an arm.",
    )
