"""`bench plan`: what a run would do, and what it would cost by a short measurement."""

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from math import ceil
from multiprocessing.connection import Connection
from typing import Any

import torch

from bench import compat, plan, tune
from bench.children import forkserver
from bench.data import open_kept
from bench.errors import Refused
from bench.grid import NAME, Grid
from bench.lift import stack
from bench.plan import Array
from bench.program import Program, Run
from bench.progress import duration
from bench.results import read_environment
from bench.run import Options, cores, keep_images, pick_devices, told
from bench.schedule import Schedule
from bench.spec import check_samples
from bench.store import Store
from bench.trick import Trick, make
from bench.worker import Job, failure, peak_memory_mb, settle

MEASURED = 8  # steps at least; the first ones, which are slower, are not timed


def describe(grid: Grid, options: Options, measure: bool, pilot_from: str = "") -> Iterator[str]:
    """Yield the lines of the plan; raise `Refused` for an impossible one.

    pilot_from: the results whose rows tell how noisy runs are; else the grid's own, or those of its pilot.
    """
    planned = plan.runs(grid)
    with told(grid, "score.samples"):
        check_samples(grid.score.metrics, grid.score.samples)
    devices = pick_devices(options.device)
    device = devices[0]
    folder = options.results / grid.name
    there = folder / "environment.json"
    before = read_environment(there) if there.exists() else None
    chosen = tune.choose(before, device, cores(), options.slots, options.threads, len(devices))
    most = chosen.most(options.runs_per_array, device)
    arrays = [array for look in plan.looks(grid, planned) for array in plan.arrays(look, most)]
    programs = list(dict.fromkeys(run.program for _, run in plan.first_runs(grid)))
    done: set[str] = set()
    if there.exists():
        from bench.results import load

        done = set(load(folder).runs["run"]) if (folder / "runs.csv").exists() else set()
        done |= Store(folder).peek()
    missing = [Array(kept) for a in arrays if (kept := tuple(r for r in a.runs if r.id not in done))]
    left = sum(len(a.runs) for a in missing)
    budget = f"{grid.budget.amount:,g} {grid.budget.unit}"
    images = f"{grid.data.set} at {grid.data.size} pixels"
    counts = f"{len(grid.arms)} arms x {len(grid.seeds)} seeds; {len(planned) - left} there, {left} to make"
    yield f"grid      {grid.name} ({grid.file}): {images}, {budget} a run"
    yield from _design(grid)
    yield f"runs      {len(planned)}: {counts}"
    yield f"programs  {len(programs)}; arrays {len(arrays)}, of up to {max(len(a.runs) for a in arrays)} runs"
    yield ""
    width = max(len(arm.name) for arm in grid.arms)
    yield f"  {'arm':{width}}  role      program  parameters  multiply-adds  there"
    by_arm: dict[str, list[Run]] = {}
    for run in planned:
        by_arm.setdefault(run.arm, []).append(run)
    numbers = {program: number for number, program in enumerate(programs, 1)}
    number_of = {arm: numbers[own[0].program] for arm, own in by_arm.items()}
    for arm in grid.arms:
        own = by_arm[arm.name]
        nets = own[0].program.nets
        there = sum(r.id in done for r in own)
        size, work = (f(nets.d) + f(nets.g) for f in (lambda n: n.size(), lambda n: n.multiply_adds()))
        number = number_of[arm.name]
        yield f"  {arm.name:{width}}  {arm.role:8}  {number:7}  {size:10,}  {work:13,}  {there:2}/{len(own)}"
    yield ""
    yield "arrays: runs of one program train together, on or off and whatever their dials"
    cut: dict[int, list[Array]] = {}
    for array in arrays:
        cut.setdefault(number_of[array.runs[0].arm], []).append(array)
    for number in numbers.values():
        yield from _shared(number, cut[number], programs[0])
    yield ""
    told_ = [*compat.warnings(grid), *partners(grid)]
    yield from told_
    if told_:
        yield ""
    seconds: dict[str, float] = {}
    if not left:
        yield "nothing to do: every run is there"
    elif measure:
        slots = min(chosen.slots, len(missing))
        seconds = yield from _cost(grid, options, chosen.threads, device, missing, slots)
    yield ""
    yield from _power(grid, options, device, seconds, chosen.slots, pilot_from)


def _power(
    grid: Grid,
    options: Options,
    device: str,
    seconds: dict[str, float],
    slots: int,
    pilot_from: str,
) -> Iterator[str]:
    """Yield what the grid can find out, by the rows of a pilot; `seconds` of training are those measured, by arm."""
    from bench import power
    from bench.results import load

    if pilot_from and not NAME.fullmatch(pilot_from):
        raise Refused(f"--pilot-from {pilot_from}: not the name of a folder in {options.results}")
    names = [pilot_from] if pilot_from else [grid.name, f"{grid.name}{power.SUFFIX}"]
    for name in names:
        folder = options.results / name
        if not pilot_from and not (folder / "runs.csv").exists():
            continue
        results = load(folder)
        if found := power.read(results):
            break
    else:
        where = " or ".join(names)
        yield f"power     not known: {where} has no three runs of the baseline that did not fail; try --pilot"
        return
    if other := power.differences(results, grid):
        yield f"power     {name} is another experiment ({', '.join(other)} differ): its spread may not be this grid's"
    # A row knows what scoring took too; an arm without rows is as measured, or as slow as the baseline.
    usual = found.seconds.get(next(arm.name for arm in grid.arms if arm.role == "baseline"))
    own = {arm.name: found.seconds.get(arm.name) or seconds.get(arm.name) or usual for arm in grid.arms}
    yield from power.lines(found, grid, {} if None in own.values() else own, slots)


def _design(grid: Grid) -> Iterator[str]:
    """Yield the design with what it can tell apart, its looks, and whether its seeds can decide anything."""
    from bench import power

    yield f"design    {grid.cells.told()}"
    yield from power.too_few(grid)
    if grid.looks:
        first, second = grid.looks
        yield (
            f"looks     {first} seeds of every arm, then {second - first} more of what is undecided, of the reference "
            "and of the controls; below is the most it can be"
        )


def _shared(number: int, arrays: list[Array], first: Program) -> Iterator[str]:
    """Yield the lines of a program: its arms and seeds, how they are cut into arrays, how it differs from the first."""
    runs = [run for array in arrays for run in array.runs]
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = sorted({run.seed for run in runs})
    sizes = Counter(len(array.runs) for array in arrays)
    cut = " and ".join(
        f"{count} array{'s' * (count > 1)} of {size}" for size, count in sorted(sizes.items(), reverse=True)
    )
    several = f"seeds {seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    yield f"  program {number}: {len(runs)} runs in {cut}: {', '.join(arms)} ({several})"
    if number > 1 and (words := differences(first, runs[0].program)):
        yield f"    differs from program 1: {'; '.join(words)}"


def differences(one: Program, other: Program) -> list[str]:
    """Return in words in what a program differs from another."""
    words = []
    for a, b, what in ((one.nets.d, other.nets.d, "D"), (one.nets.g, other.nets.g, "G")):
        words += [f"{what}: {_tables(a, b)}"] if a != b else []
    settings = [(vars(p) | p.nets._asdict()) for p in (one, other)]
    for name, value in settings[1].items():
        if isinstance(value, bool | int | float | str) and value != (before := settings[0][name]):
            words.append(f"{name.replace('_', ' ')} {value} instead of {before}")
    for name, *chosen in sorted(other.tricks - one.tricks, key=str):
        values = ", ".join(f"{key} {value}" for key, value in chosen)
        words.append(f"in the step: {name}{f' ({values})' if values else ''}")
    return words


def _tables(before: Any, after: Any) -> str:
    """Say how one network's table of layers differs from another's."""
    old, new = ({layer.name: layer for layer in net.layers} for net in (before, after))
    found = {
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "added": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    said = [
        f"{_few(names)} {word}{_how(old.get(names[0]), new.get(names[0]))}"
        for word, names in found.items()
        if names
    ]
    return ", ".join(said) if said else "the same layers in another order, or of another input"


def _how(before: Any, after: Any) -> str:
    """Say what kind of layer was added, or which of its settings changed."""
    if after is None:
        return ""
    if before is None or type(before) is not type(after):
        kind = [
            type(after).__name__,
            *(v for k, v in vars(after).items() if isinstance(v, str) and k != "name"),
        ]
        return f" ({' '.join(filter(None, kind))})"
    changed = [f"{k} {vars(before)[k]} to {v}" for k, v in vars(after).items() if vars(before)[k] != v]
    return f" ({', '.join(changed)})"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def partners(grid: Grid) -> list[str]:
    """Return the sentences that offer an arm's partner, the arm that equals it in expectation, where there is none."""
    there = {frozenset(arm.tricks) for arm in grid.arms}
    said: dict[tuple[str, str], list[str]] = {}
    for arm in grid.arms:
        inert = {found.trick for found in compat.pointless(arm.tricks, grid.data)}
        for trick in arm.tricks:
            if trick.name() in inert or not (said_ := trick.partner()):
                continue
            other = make(*said_)
            beside = {t for t in arm.tricks if t.name() not in (trick.name(), other.name())}
            if not other.is_off and frozenset({*beside, other}) not in there:
                where = grid.where(arm, trick.name())
                key = (where, f"{_spelt(trick)} equals {_spelt(other)} in expectation")
                said.setdefault(key, []).append(arm.name)
    offer = "with that arm beside it the grid can tell the noise from its mean"
    return [f"{where}: {compat.arms(names)}: {same}; {offer}" for (where, same), names in said.items()]


def _spelt(trick: Trick) -> str:
    """Return a trick with its values as a grid file has them."""
    values = ", ".join(
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in trick.values.items()
    )
    return f"{trick.name()} {{{values}}}"


def _cost(
    grid: Grid, options: Options, threads: int, device: str, missing: list[Array], slots: int
) -> Generator[str, None, dict[str, float]]:
    """Measure a few steps of one array per program in a child process, then add up; return a run's seconds by arm."""
    from bench.data import load

    with told(grid, "data"):
        images = load(grid.data, options.data_root)
    file = keep_images(images, options.cache)
    seconds: dict[Program, float] = {}
    memory = 0.0
    for array in missing:
        if array.program in seconds:
            continue
        job = Job(array.runs, grid.score, file, options.cache, options.weights, None, device, threads)
        kind, *found = _measured(job)
        if kind != "done":
            advice = "; try --runs-per-array" * (kind == "memory")
            raise Refused(f"arm {array.runs[0].arm}, {len(array.runs)} runs: {found[0]}{advice}")
        per_step, peak = found
        seconds[array.program] = per_step / len(array.runs)
        memory = max(memory, peak)
    total, by_arm = 0.0, {}
    alone = {run.arm: run for array in missing for run in array.runs}
    alone = {arm: _alone(run, len(images.train)) for arm, run in alone.items()}
    for array in missing:
        steps = array.program.steps(len(images.train)) + max(alone[run.arm] for run in array.runs)
        one = seconds[array.program] * steps
        total += one * len(array.runs)
        by_arm |= dict.fromkeys((run.arm for run in array.runs), one)
    counted = ", D's steps before G's first counted as whole ones" * any(alone.values())
    yield (
        f"time      about {duration(total / slots)} of training on {slots} slots ({device}){counted}; scoring comes on"
        " top"
    )
    yield f"memory    about {memory:,.0f} MB a slot"
    return by_arm


def _alone(run: Run, images: int) -> int:
    """Return how many steps D takes before G's first, on a set of `images`."""
    if not any(trick.fills("gates") for trick in run.tricks):
        return 0
    total, tricks = run.program.steps(images), stack([run.step_tricks], torch.float64)
    return -Schedule([run.effective], tricks, total, torch.float64, "cpu").first


def _measured(job: Job) -> tuple:
    """Return ("done", seconds per step, peak memory in MB) of an array, measured in a process of its own; or ("memory",
    line) or ("error", line)."""
    context = forkserver(job.threads)
    ours, theirs = context.Pipe()
    child = context.Process(target=_measure, args=(theirs, job), daemon=True)
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return "memory", "the process that measures died; is there enough memory?"
    finally:
        child.join()


def _measure(pipe: Connection, job: Job) -> None:
    try:
        pipe.send(("done", *_timed(job)))
    except Exception as error:  # whatever it is, it is told as that of a run
        pipe.send(failure(error))


def _timed(job: Job) -> tuple[float, float]:
    import time

    from bench import train

    settle(job.device, job.threads)
    images = open_kept(job.images)
    amount = ceil(MEASURED / job.runs[0].program.length)  # which the program multiplies by its length
    short = [
        replace(r, budget=replace(r.budget, unit="steps", amount=amount), points=(0.5, 1.0)) for r in job.runs
    ]
    program = short[0].program
    labels = images.train_labels if program.labelled else None
    marks = []
    for shot in train.train(program, short, images.train, job.device, labels=labels):
        if job.device != "cpu":
            torch.cuda.synchronize()
        marks.append((shot.step, time.perf_counter()))
    (first, start), (last, end) = marks
    return (end - start) / (last - first), peak_memory_mb(job.device)
