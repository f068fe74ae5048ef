"""`bench plan`: what a run would do, and what it would cost by a short measurement."""

from collections.abc import Iterator
from dataclasses import replace

from bench import plan, tune
from bench.errors import Refused
from bench.grid import Grid
from bench.plan import Array
from bench.program import Program
from bench.progress import duration
from bench.run import Options, cores, keep_images, pick_device, told
from bench.slots import forkserver
from bench.spec import check_samples
from bench.store import Store, read_json
from bench.worker import Job

MEASURED = 8  # steps; the first ones, which are slower, are not timed


def describe(grid: Grid, options: Options, measure: bool) -> Iterator[str]:
    """Yield the lines of the plan; raise `Refused` for an impossible one."""
    planned = plan.runs(grid)
    with told(grid, "score.samples"):
        check_samples(grid.score.metrics, grid.score.samples)
    device = pick_device(options.device)
    folder = options.results / grid.name
    there = folder / "environment.json"
    before = read_json(there) if there.exists() else None
    chosen = tune.choose(before, device, cores(), options.slots, options.threads)
    arrays = plan.arrays(planned, chosen.most(options.runs_per_array, device))
    programs = list(dict.fromkeys(array.program for array in arrays))
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
    yield f"grid      {grid.name} ({grid.file}): {images}, {budget} a run, {grid.design}"
    yield f"runs      {len(planned)}: {counts}"
    yield f"programs  {len(programs)}; arrays {len(arrays)}, of up to {max(len(a.runs) for a in arrays)} runs"
    yield ""
    width = max(len(arm.name) for arm in grid.arms)
    yield f"  {'arm':{width}}  role      program  parameters  multiply-adds  there"
    for arm in grid.arms:
        own = [r for r in planned if r.arm == arm.name]
        nets = own[0].program.nets
        there = sum(r.id in done for r in own)
        size, work = (sum(f(net) for net in nets) for f in (lambda n: n.size(), lambda n: n.multiply_adds()))
        number = programs.index(own[0].program) + 1
        yield f"  {arm.name:{width}}  {arm.role:8}  {number:7}  {size:10,}  {work:13,}  {there:2}/{len(own)}"
    yield ""
    if not left:
        yield "nothing to do: every run is there"
        return
    if not measure:
        return
    yield from _cost(grid, options, chosen.threads, device, missing, min(chosen.slots, len(missing)))


def _cost(
    grid: Grid, options: Options, threads: int, device: str, missing: list[Array], slots: int
) -> Iterator[str]:
    """Measure a few steps of one array per program in a child process, then add up."""
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
        try:
            per_step, peak = _measured(job)
        except EOFError:
            raise Refused(
                f"arm {array.runs[0].arm}: {len(array.runs)} runs do not fit in memory; try --runs-per-array"
            ) from None
        seconds[array.program] = per_step / len(array.runs)
        memory = max(memory, peak)
    total = 0.0
    for array in missing:
        steps = array.program.steps(len(images.train))
        total += seconds[array.program] * steps * len(array.runs)
    yield f"time      about {duration(total / slots)} of training on {slots} slots ({device}); scoring comes on top"
    yield f"memory    about {memory:,.0f} MB a slot"


def _measured(job: Job) -> tuple[float, float]:
    """Return seconds per step and peak memory in MB of an array, measured in a process of its own."""
    context = forkserver(job.threads)
    ours, theirs = context.Pipe()
    child = context.Process(target=_measure, args=(theirs, job), daemon=True)
    child.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        child.join()


def _measure(pipe, job: Job) -> None:
    import time

    import torch

    from bench import train
    from bench.worker import peak_memory_mb, settle

    settle(job.device, job.threads)
    images = torch.load(job.images, weights_only=False, mmap=True).train
    short = [
        replace(r, budget=replace(r.budget, unit="steps", amount=MEASURED), points=(0.5, 1.0))
        for r in job.runs
    ]
    marks = []
    for _ in train.train(short[0].program, short, images, job.device):
        if job.device != "cpu":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    pipe.send(((marks[-1] - marks[0]) / (MEASURED - MEASURED // 2), peak_memory_mb(job.device)))
