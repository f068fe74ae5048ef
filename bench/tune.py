"""How many runs share an array, and how many arrays train at once: measured once per machine and program, then kept.

What a results folder was started with stays in its environment.json, so that a resumed grid cuts the same arrays,
also on another machine.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import source
from bench.data import open_kept
from bench.errors import Refused
from bench.memory import available_mb, predict_mb, resident_mb
from bench.plan import by_program, suggested
from bench.program import Program, Run
from bench.progress import Log
from bench.spec import Budget
from bench.turns import Contestant, Failed, Seats

WORTH = 60  # seconds of training below which the rule of bench.plan is taken unmeasured
SECONDS = 0.7  # that each candidate is timed
CANDIDATES = {"cpu": (1, 2, 5, 10), "cuda": (1, 8, 32, 64)}
BESIDE = (2, 4)  # arrays at once on one GPU that are tried
MARGIN = 1.03  # a larger array must be this much faster than a smaller one
SHARE = 0.8  # of the free memory that arrays may take
GUESS = 5e10  # floating-point operations a second of a core, to tell what is worth a measurement


@dataclass
class Choice:
    """What a grid trains with: slots, threads of each, runs per array by program, and the rates behind it.

    rates: run-steps per second of the whole machine (of one of several GPUs), by program and "slots x runs x threads".
    devices: how many the slots are dealt to.
    """

    slots: int
    threads: int
    runs_per_array: dict[str, int] = field(default_factory=dict)
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    memory_format: str = "channels_last"
    devices: int = 1

    @property
    def beside(self) -> int:
        """How many arrays train at once on one device."""
        return -(-self.slots // self.devices)

    def most(self, asked: int | None, device: str) -> Callable[[Program], int]:
        """Return how many runs of a program share an array.

        On a CPU, one that was not measured takes no more than was enough for another: costs of arms are compared where
        their arrays are of one size.
        """
        enough = min(self.runs_per_array.values(), default=None) if device == "cpu" else None

        def of(program: Program) -> int:
            rule = suggested(program, device)
            return asked or self.runs_per_array.get(signature(program)) or min(rule, enough or rule)

        return of


def signature(program: Program) -> str:
    """Return 8 hex digits over what the speed of a program depends on: networks, batch size, precision."""
    text = repr((program.nets, program.batch_size, program.dtype, sorted(map(repr, program.tricks))))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def choose(
    before: dict[str, Any] | None,
    device: str,
    cores: int,
    slots: int | None,
    threads: int | None,
    devices: int = 1,
) -> Choice:
    """Return what is known without a measurement: the user's word, then the folder's (`before`), then rules.

    The rules: one slot a core, or one a GPU; a number of slots that the user gives divides the cores among them,
    whatever the folder had. A folder that goes on with another number of GPUs keeps its arrays per GPU.
    """
    there = (before or {}).get("picked") or {}
    kept = there.get("slots") and max(1, there["slots"] // there.get("devices", 1)) * devices
    threads = threads or (None if slots else there.get("threads"))
    if device != "cpu":
        slots = slots or kept or devices
    elif not slots:
        slots = kept or max(1, cores // (threads or 1))
        threads = threads or 1
    return Choice(
        slots,
        threads or max(1, cores // slots),
        dict(there.get("runs_per_array", {})),
        dict(there.get("rates", {})),
        devices=devices,
    )


def measure(
    seats: Seats,
    chosen: Choice,
    planned: Sequence[Run],
    file: Path,
    samples: int,
    cache: Path,
    device: str,
    log: Log,
) -> None:
    """Measure every program that is worth it and put what is fastest into `chosen`, by way of the machine's cache."""
    images = open_kept(file).train
    kept = _Kept(cache, device)
    measured: Counter[str] = Counter()
    for program, arms in by_program(planned).items():
        runs = [run for members in arms for run in members]
        name = signature(program)
        if name in chosen.runs_per_array or _seconds(program, len(runs), len(images)) < WORTH:
            continue
        rates = kept.rates(name)
        for count in CANDIDATES["cpu" if device == "cpu" else "cuda"]:
            memory = chosen.beside * predict_mb(
                program, count, samples, resident_mb() if device == "cpu" else 0
            )
            if count > len(runs) or (count > 1 and memory > SHARE * available_mb(device)):
                continue
            if _key(chosen.beside, count, chosen.threads) not in rates:
                _rated(rates, seats, runs[:count], file, device, chosen.beside, chosen.threads, log)
                measured[name] += 1
                kept.save(name, rates)
        at = _at(rates, chosen.beside, chosen.threads)
        if not at:
            continue  # nothing could be measured: the rule
        chosen.rates[name] = rates
        chosen.runs_per_array[name] = best(at)
        word = ", ".join(f"{count}: {value:,.0f}" for count, value in sorted(at.items()))
        source_ = "measured now" if measured[name] else f"known from {kept.file}"
        log(f"speed: run-steps/s by runs per array: {word}; takes {chosen.runs_per_array[name]} ({source_})")


def compare_threads(
    seats: Seats,
    chosen: Choice,
    planned: Sequence[Run],
    file: Path,
    cache: Path,
    device: str,
    cores: int,
    log: Log,
) -> None:
    """Take one slot with every core's thread in place of one slot a core where that is faster."""
    program = _largest(chosen, planned)
    if program is None or device != "cpu" or cores < 2:
        return
    kept = _Kept(cache, device)
    name, runs = signature(program), [r for r in planned if r.program == program]
    count = chosen.runs_per_array[name]
    rates = kept.rates(name) | chosen.rates[name]
    one, many = _key(1, count, cores), _key(chosen.slots, count, chosen.threads)
    if one not in rates:
        _rated(rates, seats, runs[:count], file, device, 1, cores, log)
        kept.save(name, rates)
    chosen.rates[name] = rates
    if one not in rates or many not in rates:
        return
    word = f"one array with {cores} threads {rates[one]:,.0f}, {chosen.slots} with {chosen.threads}: {rates[many]:,.0f}"
    log(f"speed: run-steps/s of {word}")
    if rates[one] > MARGIN * rates[many]:
        chosen.slots, chosen.threads = 1, cores


def fill(
    seats: Seats,
    chosen: Choice,
    planned: Sequence[Run],
    file: Path,
    samples: int,
    cache: Path,
    device: str,
    cores: int,
    log: Log,
) -> None:
    """Take several arrays at once on each GPU where that is faster and their memory is there."""
    program = _largest(chosen, planned)
    if program is None or device == "cpu":
        return
    kept = _Kept(cache, device)
    name, runs = signature(program), [r for r in planned if r.program == program]
    rates, count = kept.rates(name) | chosen.rates[name], chosen.runs_per_array[name]
    each = predict_mb(program, count, samples, 0)
    fastest = rates.get(_key(chosen.beside, count, chosen.threads))
    if fastest is None:
        return
    for more in BESIDE:
        slots = more * chosen.devices
        threads = max(1, cores // slots)
        key = _key(more, count, threads)
        if more * each > SHARE * available_mb(device):
            break
        if key not in rates:
            _rated(rates, seats, runs[:count], file, device, more, threads, log)
            kept.save(name, rates)
        if rates.get(key, 0) <= MARGIN * fastest:
            break
        chosen.slots, chosen.threads, fastest = slots, threads, rates[key]
    chosen.rates[name] = rates
    log(f"speed: {chosen.beside} at once of {count} runs each on a GPU, {fastest:,.0f} run-steps/s")


def _largest(chosen: Choice, planned: Sequence[Run]) -> Program | None:
    """Return the program with most work of those that were measured."""
    of = (r.program for r in planned if signature(r.program) in chosen.rates.keys() & chosen.runs_per_array)
    return max(of, key=_work, default=None)


def _key(slots: int, runs: int, threads: int) -> str:
    return f"{slots} x {runs} x {threads}"


def _at(rates: dict[str, float], slots: int, threads: int) -> dict[int, float]:
    """Return the rates by runs per array that were measured with so many slots and threads."""
    keys = (key.split(" x ") for key in rates)
    return {
        int(r): rates[_key(int(s), int(r), int(t))]
        for s, r, t in keys
        if (int(s), int(t)) == (slots, threads)
    }


def best(at: dict[int, float]) -> int:
    """Return the runs per array that are fastest; of two that are alike, the fewer."""
    taken = min(at)
    for count in sorted(at):
        if at[count] > MARGIN * at[taken]:
            taken = count
    return taken


def _rated(rates: dict[str, float], seats: Seats, runs: Sequence[Run], *how: Any) -> None:
    """Put what `rate` measures into `rates`; what failed is not kept, since memory may be there the next time."""
    file, device, slots, threads, log = how
    if value := rate(seats, runs, file, device, slots, threads, log):
        rates[_key(slots, len(runs), threads)] = value


def rate(
    seats: Seats, runs: Sequence[Run], file: Path, device: str, slots: int, threads: int, log: Log
) -> float:
    """Return run-steps per second of `slots` processes that train an array of these runs at the same time.

    0, and a word, where it cannot be done: it does not fit, or not this many at once.
    """
    work = partial(_array, tuple(runs), file, device)
    name = f"{signature(runs[0].program)}, {slots} x {len(runs)} x {threads}"
    try:
        return seats.turn(Contestant(name, work, SECONDS, slots, threads, tuned=True))
    except (Failed, Refused) as failed:
        log(f"speed: {slots} x {len(runs)} runs were not measured: {failed}")
        return 0.0
    finally:
        with suppress(Failed, Refused):
            seats.clear()


def _array(runs: tuple[Run, ...], file: Path, device: str, number: int) -> Iterator[float]:
    from bench.speed import array_loop

    kept = open_kept(file)
    runs = [replace(run, budget=Budget("steps", 10_000)) for run in runs]
    return array_loop(runs, kept.train, device, kept.train_labels if runs[0].program.labelled else None)


def _seconds(program: Program, runs: int, images: int) -> float:
    """Return a guess of the seconds that a core needs for the runs of a program."""
    return _work(program) * program.steps(images) * runs / GUESS


def _work(program: Program) -> int:
    """Return the floating-point operations of a step of one run: forward, backward and D's third pass."""
    return 11 * (program.nets.g.multiply_adds() + program.nets.d.multiply_adds()) * program.batch_size


class _Kept:
    """The rates measured on this machine with this torch and this code, in a file of the cache."""

    def __init__(self, cache: Path, device: str) -> None:
        machine = {k: v for k, v in source.environment(device).items() if not k.startswith("git")}
        self.file = cache / f"speed-{source.short_hash(machine | {'code': source.code()})}.json"
        try:
            read = json.loads(self.file.read_text())
            self._all = {k: {key: float(rate) for key, rate in v.items() if rate} for k, v in read.items()}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            self._all = {}

    def rates(self, name: str) -> dict[str, float]:
        return dict(self._all.get(name, {}))

    def save(self, name: str, rates: dict[str, float]) -> None:
        self._all[name] = rates
        fresh = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(self._all, indent=1))
        os.replace(fresh, self.file)
