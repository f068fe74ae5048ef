"""`bench speed`: how fast this machine trains and scores, against the plain PyTorch loop and against its own roofline.

All contestants take turns in one interleaved measurement (`bench.turns`); figures are medians over its rounds with
the lowest and the highest, ratios are taken round by round.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import SETS, SIZES
from bench.errors import Refused, nearest
from bench.turns import Contestant, Seats, interleave

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bench.program import Program, Run
    from bench.roofline import Roofline

Log = Callable[[str], None]

PRECISIONS = ("float32", "bfloat16")  # those that the engine refuses are left out with a word
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float64": 8}
PEAK_SECONDS = 0.5  # a peak shows in less time than a loop's mean
COLOURED = "cifar10"  # the set whose shape stands for colour images; its pictures are not read
TARGETS = (("fastest mode", 2.5, None), ("float32", 1.5, "float32"))  # times loop (a)
TARGET_SETTINGS = {"size": 32, "colours": 1, "batch": 64}
BUSY = 0.3  # cores that others use before the start, from which the figures are called doubtful
TARGET_CORES, TARGET_RUNS = 2, 8  # a grid of 8 runs cannot fill more than 8 places


@dataclass(frozen=True)
class Settings:
    """What is measured: image side, widths (one table each), colours, batch size; turns, their seconds, where."""

    size: int = 32
    channels: tuple[int, ...] = (32, 64)
    colours: int = 1
    batch: int = 64
    seconds: float = 3.0
    rounds: int = 5
    quick: bool = False
    device: str = "cpu"
    scoring: bool = True


@dataclass(frozen=True)
class Mode:
    """A way of training with this engine: processes, each with one array of `runs` runs in flight, and a precision."""

    processes: int
    runs: int
    precision: str

    @property
    def name(self) -> str:
        """What the tables call it."""
        arrays = f"{self.processes} arrays" if self.processes > 1 else "1 array"
        return f"(d) ours, {arrays} of {self.runs} run{'s' * (self.runs > 1)}, {self.precision}"


@dataclass(frozen=True)
class Reference:
    """The run that "scored runs per hour" is about."""

    size: int = 28
    channels: int = 32
    batch: int = 64
    steps: int = 2812
    fakes: int = 5_000 + 4 * 2_000

    def __str__(self) -> str:
        return (
            f"{self.size}x{self.size} grey, {self.channels} channels, batch {self.batch}, {self.steps:,} steps, "
            "5,000 fakes scored at the end and 2,000 at 4 points"
        )


REFERENCE = Reference()


def check(settings: Settings) -> None:
    """Raise `Refused` for settings that cannot be measured."""
    from bench.recipe import Recipe

    ranges = (
        ("size", SIZES, settings.size in SIZES),
        ("colours", (1, 3), settings.colours in (1, 3)),
    )
    for name, allowed, good in ranges:
        if not good:
            value = getattr(settings, name)
            raise Refused(
                f"--{name} {value}: not allowed{nearest(value, allowed)}; one of: {', '.join(map(str, allowed))}"
            )
    if not 0 < settings.seconds <= 600:
        raise Refused(f"--seconds {settings.seconds:g}: not a number above 0 and up to 600")
    if not 1 <= settings.rounds <= 1000:
        raise Refused(f"--rounds {settings.rounds}: not a whole number from 1 to 1000")
    for channels in settings.channels:
        try:
            Recipe(channels=channels, batch_size=settings.batch)
        except Refused as refused:
            option = str(refused).replace("batch_size", "batch", 1)
            raise Refused(f"--{option}") from None


def modes(settings: Settings, cores: int) -> list[Mode]:
    """Return the ways to train that are compared: on a CPU a process a core, on a GPU arrays in flight."""
    if settings.device == "cpu":
        flights, sizes = (cores,), (1, 4) if settings.quick else (1, 2, 4, 8)
    else:
        flights, sizes = ((1,), (1, 8, 32)) if settings.quick else ((1, 2), (1, 8, 32, 64))
    return [Mode(f, r, p) for p in PRECISIONS for f in flights for r in sizes]


def measure(settings: Settings, log: Log) -> dict[str, Any]:
    """Return everything that was measured, as plain data; `log` hears of progress."""
    from bench.run import cores
    from bench.source import environment

    check(settings)
    document: dict[str, Any] = {
        "machine": environment(settings.device) | {"load_before": _load()},
        "settings": asdict(settings) | {"channels": list(settings.channels)},
        "tables": [],
        "reference": None,
        "scoring": None,
        "scored_runs_per_hour": None,
    }
    with Seats(settings.device) as seats:
        for channels in settings.channels:
            log(f"{settings.size}x{settings.size}, {channels} channels: training")
            document["tables"].append(_table(seats, settings, channels, cores(), log))
        if settings.scoring:
            document["reference"] = _reference(seats, settings, document["tables"], cores(), log)
    if settings.scoring:
        document["scoring"] = _scoring(settings, log)
        document["scored_runs_per_hour"] = _per_hour(document["reference"], document["scoring"])
    document["targets"] = _targets(document)
    return document


def _load(seconds: float = 2.0) -> float:
    """Return how many cores the machine's programs use now; the load average would count what ended a minute ago."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return os.getloadavg()[0]

    def busy() -> float:
        user, nice, system, *_ = map(int, counters.read_text().splitlines()[0].split()[1:])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")

    before = busy()
    time.sleep(seconds)
    return (busy() - before) / seconds


def _table(seats: Seats, settings: Settings, channels: int, cores: int, log: Log) -> dict[str, Any]:
    """Measure the plain loops, the engine's modes and the peaks for one network; return rates and ratios."""
    accepted = [m for m in modes(settings, cores) if _accepted(settings, channels, m.precision, log)]
    plain = _plain(settings, channels, cores)
    ours = {m.name: m for m in accepted}
    contestants = [*plain, *(_ours(settings, channels, m) for m in accepted)]
    precisions = list(dict.fromkeys(["float32", *(m.precision for m in accepted)]))
    contestants += _peaks(settings, cores, precisions)
    rates = interleave(seats, contestants, settings.rounds, log)
    peaks = {name: max(found) for name, found in rates.items() if name.startswith("peak")}
    roofs = {p: _roof(settings, channels, p, peaks) for p in precisions}
    rows = []
    for contestant in contestants:
        if contestant.name not in rates or contestant.name in peaks:
            continue
        mode = ours.get(contestant.name)
        row = _row(contestant.name, rates[contestant.name], rates, plain[0].name, plain[1].name)
        precision = mode.precision if mode else "float32"
        row |= {
            "processes": contestant.processes,
            "threads": contestant.threads,
            "runs_per_array": mode.runs if mode else 1,
            "precision": precision,
            "images_per_second": row["median"] * settings.batch,
            "roofline_share": row["median"] / roofs[precision].rate,
        }
        rows.append(row)
    return {
        "size": settings.size,
        "channels": channels,
        "colours": settings.colours,
        "batch": settings.batch,
        "contestants": rows,
        "peaks": peaks,
        "roofline": {p: roof.plain() for p, roof in roofs.items()},
    }


def _row(
    name: str, rates: Sequence[float], of: dict[str, list[float]], loaded: str, resident: str
) -> dict[str, Any]:
    """Return a contestant's run-steps per second and its ratios to both plain loops, round by round."""
    ratios = {
        key: [rate / base for rate, base in zip(rates, of[other], strict=True)]
        for key, other in (("a", loaded), ("b", resident))
        if other in of
    }
    row = {"name": name, "rounds": list(rates)} | _spread(rates)
    for key, values in ratios.items():
        row[f"ratio_{key}"] = _spread(values)
    return row


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _plain(settings: Settings, channels: int, cores: int) -> list[Contestant]:
    """Return (a), (b) and (c): the plain loop, the same on resident data, and several of the latter at once."""
    pictures = _pictures(settings.size, settings.colours)

    def one(name: str, resident: bool, processes: int, threads: int) -> Contestant:
        net = (settings.size, settings.colours, channels)
        work = partial(plain_loop, pictures, *net, settings.batch, resident, settings.device)
        return Contestant(name, work, settings.seconds, processes, threads)

    many = (cores,) if settings.device == "cpu" else (4, 8)
    return [
        one("(a) plain loop, DataLoader with 2 workers", False, 1, cores),
        one("(b) plain loop, resident data", True, 1, cores),
        *(one(f"(c) (b) in {n} process{'es' * (n > 1)} at once", True, n, max(1, cores // n)) for n in many),
    ]


def _ours(settings: Settings, channels: int, mode: Mode) -> Contestant:
    text = grid_text(settings, channels, mode)
    pictures = _pictures(settings.size, settings.colours)
    work = partial(our_loop, pictures, text, mode.runs, settings.device)
    return Contestant(mode.name, work, settings.seconds, mode.processes, 1, tuned=True, droppable=True)


def _peaks(settings: Settings, cores: int, precisions: Sequence[str]) -> list[Contestant]:
    from bench import roofline

    device, seconds = settings.device, min(settings.seconds, PEAK_SECONDS)
    works: dict[str, Any] = {"peak copy": partial(roofline.copy, device)}
    for precision in precisions:
        works[f"peak product {precision}"] = partial(roofline.product, precision, device)
        works[f"peak convolution {precision}"] = partial(roofline.convolution, precision, device)
    count = cores if device == "cpu" else 1
    return [Contestant(name, work, seconds, count, 1, tuned=True) for name, work in works.items()]


def _roof(settings: Settings, channels: int, precision: str, peaks: dict[str, float]) -> "Roofline":
    from bench.roofline import roofline

    peak = max(peaks[f"peak {kind} {precision}"] for kind in ("product", "convolution"))
    nets = _planned(grid_text(settings, channels, Mode(1, 1, "float32")))[0].nets
    return roofline(nets, settings.batch, ITEMSIZE[precision], peak, peaks["peak copy"])


def grid_text(settings: Settings, channels: int, mode: Mode) -> str:
    """Return the grid of a mode's runs: the baseline with as many seeds, long enough for many rounds."""
    name = next(n for n in SETS if SETS[n].channels == settings.colours and n in ("digits", COLOURED))
    steps = max(1_000, (8_000 if settings.device == "cpu" else 100_000) // mode.runs)
    return (
        f"name: speed\ndata: {{set: {name}, size: {settings.size}}}\n"
        f"recipe: {{channels: {channels}, batch_size: {settings.batch}}}\n"
        f"design: one-at-a-time\nseeds: {mode.processes * mode.runs}\n"
        f"budget: {{steps: {steps}}}\ndtype: {mode.precision}\n"
    )


def _accepted(settings: Settings, channels: int, precision: str, log: Log) -> bool:
    """Return whether the engine takes a precision; say so where it does not."""
    from bench import grid

    mode = Mode(1, 1, precision)
    try:
        grid.read(grid_text(settings, channels, mode), "speed")
    except Refused as refused:
        log(f"{precision} is left out, this engine refuses it ({refused})")
        return False
    return True


def _planned(text: str) -> "tuple[Program, list[Run]]":
    from bench import grid, plan

    runs = plan.runs(grid.read(text, "speed"))
    return runs[0].program, runs


def _pictures(size: int, colours: int) -> "np.ndarray":
    """Return the digits at a size, uint8 (N, H, W), or three times the same (N, H, W, 3)."""
    import numpy as np

    from bench.data import load
    from bench.spec import DataSpec

    grey = load(DataSpec("digits", size)).train[:, 0].numpy()
    return grey if colours == 1 else np.repeat(grey[..., None], 3, axis=-1)


def plain_loop(
    pictures: "np.ndarray",
    size: int,
    colours: int,
    channels: int,
    batch: int,
    resident: bool,
    device: str,
    number: int,
) -> Iterator[float]:
    """Train with the plain loop on pictures (N, H, W) or (N, H, W, 3) uint8; yield 1 for every step."""
    import torch

    from bench import loops

    torch.manual_seed(number)
    torch.backends.cudnn.benchmark = True  # as the example has it; without a GPU it does nothing
    d, g = (net.to(device) for net in loops.networks(size, colours, channels))
    batches: loops.Batches = (
        loops.Resident(pictures, batch, device) if resident else loops.loaded(pictures, size, batch)
    )
    with open(os.devnull, "w") as out:
        for _ in loops.train(d, g, batches, device, out):
            yield 1.0


def our_loop(pictures: "np.ndarray", text: str, runs: int, device: str, number: int) -> Iterator[float]:
    """Train an array of a grid's runs on pictures (N, H, W) or (N, H, W, 3) uint8; yield the run-steps done."""
    import torch

    images = torch.from_numpy(pictures)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    _, planned = _planned(text)
    return array_loop(planned[number * runs : (number + 1) * runs], images, device)


def array_loop(
    runs: "Sequence[Run]", images: "Tensor", device: str, labels: "Tensor | None" = None
) -> Iterator[float]:
    """Train an array on images (N, C, H, W) uint8, labelled (N,) or not, again and again; yield the run-steps since
    the last time.

    That is one step of them all, or on a GPU a chunk of captured steps.
    """
    from bench import train
    from bench.engine import CHUNK

    stride, total = 1 if device == "cpu" else CHUNK, int(runs[0].budget.amount)
    while True:
        training = train.begin(runs[0].program, runs, images, device, labels=labels)
        for start in range(0, total - stride + 1, stride):
            training.advance(start, start + stride)
            yield float(len(runs) * stride)


def _reference(
    seats: Seats, settings: Settings, tables: list[dict[str, Any]], cores: int, log: Log
) -> dict[str, Any] | None:
    """Measure the reference run's training by loop (a) and by the fastest of our modes at the nearest width."""
    table = min(tables, key=lambda t: abs(t["channels"] - REFERENCE.channels))
    fastest = max(_ours_in(table), key=lambda row: row["median"], default=None)
    if fastest is None:
        return None
    log(f"reference run: {REFERENCE}")
    from dataclasses import replace

    own = replace(
        settings, size=REFERENCE.size, batch=REFERENCE.batch, colours=1, channels=(REFERENCE.channels,)
    )
    mode = Mode(fastest["processes"], fastest["runs_per_array"], fastest["precision"])
    contestants = [_plain(own, REFERENCE.channels, cores)[0], _ours(own, REFERENCE.channels, mode)]
    rates = interleave(seats, contestants, settings.rounds, log)
    if mode.name not in rates:
        return None
    first = contestants[0].name
    rows = [_row(name, rates[name], rates, first, "") for name in (first, mode.name)]
    for row in rows:
        row["train_seconds"] = REFERENCE.steps / row["median"]
    return asdict(REFERENCE) | {"contestants": rows}


def _ours_in(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in table["contestants"] if row["name"].startswith("(d)")]


def _scoring(settings: Settings, log: Log) -> list[dict[str, Any]] | None:
    """Return the rows of the scoring measurement, or None where this version has none."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("bench.speed_scoring") is None:
        return None
    log("scoring")
    return import_module("bench.speed_scoring").measure(settings.device, settings.quick, settings.rounds)


def _per_hour(
    reference: dict[str, Any] | None, scoring: list[dict[str, Any]] | None
) -> list[dict[str, Any]] | None:
    """Return scored runs per hour: the plain loop with stock torch-fidelity, and ours by each extractor.

    Reads the rows of the scoring table whose unit is images/s: the stock one is that whose name says torch-fidelity,
    the others are ours, by an extractor that the name says.
    """
    if reference is None or scoring is None:
        return None
    rows = [row for row in scoring if row["unit"] == "images/s" and "alone" not in row["what"]]
    stock = [row for row in rows if "torch-fidelity" in row["what"]]
    if not stock:
        return None
    loop, ours = reference["contestants"]
    kept = [(loop, stock[0])] + [(ours, row) for row in rows if row not in stock]
    found = []
    for trained, scored in kept:
        seconds = trained["train_seconds"], REFERENCE.fakes / scored["median"]
        found.append(
            {
                "training": trained["name"],
                "scoring": scored["what"],
                "train_seconds": seconds[0],
                "score_seconds": seconds[1],
                "runs_per_hour": 3600 / sum(seconds),
            }
        )
    return [row | {"ratio": row["runs_per_hour"] / found[0]["runs_per_hour"]} for row in found]


def _targets(document: dict[str, Any]) -> dict[str, Any]:
    """Return which targets are met, or why they say nothing here."""
    settings, machine = document["settings"], document["machine"]
    wanted = TARGET_SETTINGS | {"device": "cpu"}
    other = [key for key, value in wanted.items() if settings[key] != value]
    other += ["cores"] * (machine["cores"] != TARGET_CORES)
    other += ["load"] * (
        machine["load_before"] > BUSY
    )  # a loop with two threads suffers most beside other work
    found = []
    for table in document["tables"]:
        for what, target, precision in TARGETS:
            ratios = [
                row["ratio_a"]["median"]
                for row in _ours_in(table)
                if row["processes"] * row["runs_per_array"] <= TARGET_RUNS
                and precision in (None, row["precision"])
            ]
            best = max(ratios, default=None)
            found.append(
                {
                    "channels": table["channels"],
                    "what": what,
                    "target": target,
                    "ratio": best,
                    "met": best is not None and best >= target,
                }
            )
    return {"apply": not other, "other": other, "results": found}


def lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the text of a measurement: a table for each network, scoring, runs per hour, and the targets last."""
    machine, settings = document["machine"], document["settings"]
    yield f"{machine['device']}, {machine['cores']} cores, torch {machine['torch']}"
    yield f"medians of {settings['rounds']} interleaved rounds of {settings['seconds']:g} s (lowest-highest)"
    if machine["load_before"] > BUSY:
        yield f"DOUBTFUL: this machine was busy before the start (load {machine['load_before']:.1f}); repeat when idle"
    for table in document["tables"]:
        yield ""
        yield from _table_lines(table)
    if settings["scoring"]:
        yield ""
        yield from _scoring_lines(document["scoring"])
        yield ""
        yield from _hour_lines(document)
    yield ""
    yield from _target_lines(document["targets"])


def _table_lines(table: dict[str, Any]) -> Iterator[str]:
    side, colours = table["size"], "grey" if table["colours"] == 1 else "colour"
    yield f"training, {side}x{side} {colours}, {table['channels']} channels, batch {table['batch']}"
    yield f"  {'':43}{'run-steps/s':>22}{'images/s':>11}{'x(a)':>7}{'x(b)':>7}{'roofline':>11}"
    for row in table["contestants"]:
        yield (
            f"  {row['name']:43}{_shown(row):>22}{row['images_per_second']:11,.0f}"
            f"{row['ratio_a']['median']:7.2f}{row['ratio_b']['median']:7.2f}{row['roofline_share']:11.1%}"
        )
    for precision, roof in table["roofline"].items():
        peak, copy = roof["flops"] / roof["compute"], roof["bytes"] / roof["memory"]
        yield (
            f"  roofline {precision}: {_digits(roof['rate'])} run-steps/s, bound by {roof['bound']} "
            f"({roof['flops'] / 1e9:.3g} GFLOP at {peak / 1e9:,.0f}/s, "
            f"{roof['bytes'] / 1e6:,.3g} MB at {copy / 1e9:,.0f} GB/s)"
        )


def _scoring_lines(scoring: list[dict[str, Any]] | None) -> Iterator[str]:
    if scoring is None:
        yield "scoring: not measured; this version has no bench/speed_scoring.py"
        return
    yield "scoring"
    width = max(len(row["what"]) for row in scoring)
    for row in scoring:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
        yield f"  {row['what']:{width}}{_shown(row):>24} {row['unit']:9}{ratio:>8}  {row['note']}".rstrip()


def _hour_lines(document: dict[str, Any]) -> Iterator[str]:
    reference, found = document["reference"], document["scored_runs_per_hour"]
    yield "scored runs per hour, this whole machine, training and scoring counted, not the start of its processes"
    yield f"  a run: {REFERENCE}"
    if reference is None:
        yield "  not measured: no mode of ours could be"
        return
    if found is None:
        for row in reference["contestants"]:
            ratio = row["ratio_a"]["median"]
            yield f"  {row['name']:43}{row['train_seconds']:8.1f} s of training a run ({ratio:.2f} times (a))"
        yield "  runs per hour need the scoring rates, which were not measured"
        return
    for row in found:
        yield f"  {row['training']}; scored by {row['scoring']}"
        yield (
            f"      {row['train_seconds']:.1f} s + {row['score_seconds']:.1f} s: "
            f"{row['runs_per_hour']:.1f} runs an hour, {row['ratio']:.2f} times the first"
        )


def _target_lines(targets: dict[str, Any]) -> Iterator[str]:
    if not targets["apply"]:
        where = f"{TARGET_CORES} idle CPU cores, 32x32 grey, batch 64"
        yield f"targets: they are for {where}; here differ: {', '.join(targets['other'])}"
        return
    yield "targets, times (a), a grid of 8 runs"
    parts: dict[int, list[str]] = {}
    for row in targets["results"]:
        ratio = "not measured" if row["ratio"] is None else f"{row['ratio']:.2f}"
        met = "met" if row["met"] else "NOT met"
        parts.setdefault(row["channels"], []).append(f"{row['what']} {ratio} of {row['target']}, {met}")
    for channels, found in parts.items():
        yield f"  {channels} channels: {'; '.join(found)}"


def _shown(row: dict[str, Any]) -> str:
    return f"{_digits(row['median'])} ({_digits(row['low'])}-{_digits(row['high'])})"


def _digits(value: float) -> str:
    """Return a number with three digits or all before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
