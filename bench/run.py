"""`bench run`: from a grid to its results folder; stopped at any moment, it goes on where it was.

Where nothing is missing, nothing that trains or scores is imported: torch and its companions take seconds.
"""

import errno
import json
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import children, compat, plan, results, source, tune
from bench.data import SETS
from bench.errors import Refused, nearest
from bench.grid import LARGE, Grid
from bench.plan import Array
from bench.program import Run, held_in
from bench.progress import Log, Progress
from bench.results import MACHINE_FAILURES, read_cards, read_environment
from bench.spec import check_samples
from bench.stopping import BY_HAND, stoppable, undisturbed
from bench.store import Store, read_json, write_atomically
from bench.trick import find
from bench.turns import Seats

if TYPE_CHECKING:  # it imports torch
    from bench.worker import Result


EXPORT_EVERY = 20.0  # seconds between two writings of the tables; rows are safe in the journal before
ROOM = (1.0, 4.0, 10.0)  # seconds to wait for room on a full disk, time after time, before the grid stops
EXPORT_SHARE = 50  # times what writing them took, so that it costs 2 % however many rows there are


@dataclass(frozen=True)
class Options:
    """How to run a grid; only `runs_per_array` and `device` touch what is computed, by round-off."""

    results: Path = Path("results")
    data_root: Path | None = None
    cache: Path = field(default_factory=lambda: cache_folder())
    weights: Path | None = None
    device: str = "auto"
    cluster: str | None = None
    slots: int | None = None
    threads: int | None = None
    runs_per_array: int | None = None
    time_limit: float = 6 * 3600.0
    retry_failed: bool = False
    stale: str | None = None
    keep: Path | None = None
    yes: bool = False


def cache_folder() -> Path:
    """Return where real-image statistics and data tensors are kept: BENCH_CACHE, else in the user's cache."""
    there = Path(os.environ.get("BENCH_CACHE") or "~/.cache/dcgan-bench")
    try:
        return there.expanduser()
    except RuntimeError:
        raise Refused(f"BENCH_CACHE={there}: there is no such home directory; give a whole path") from None


@contextmanager
def told(grid: Grid, path: str) -> Iterator[None]:
    """Add the grid's file and line to a refusal."""
    try:
        yield
    except Refused as refused:
        raise Refused(f"{grid.at(path)}: {refused}") from None


def known_device(asked: str) -> str:
    """Return the word for a device; raise `Refused` where it is none, whatever this machine has."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise Refused(
            f"--device {asked}: not a device; one of: auto, cpu, cuda, cuda:N{nearest(asked, ('auto', 'cpu', 'cuda'))}"
        )
    return asked


def pick_device(asked: str) -> str:
    """Return the device to train on; raise `Refused` where CUDA is asked for and there is none."""
    if known_device(asked) == "cpu":  # which needs no torch to be there
        return asked
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = asked.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise Refused(
            f"--device {asked}: this machine has no CUDA device that torch can use; take --device cpu or auto"
        )
    if number and int(number) >= torch.cuda.device_count():
        raise Refused(
            f"--device {asked}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0 on"
        )
    return asked


def pick_devices(asked: str) -> tuple[str, ...]:
    """Return the devices to train on, as `cuda:0,cuda:1` names them: all CUDA devices where none is; raise `Refused`
    for a device that is named twice, or kinds that are mixed."""
    found = [pick_device(word) for word in asked.split(",")]
    if found == ["cuda"]:
        import torch

        count = torch.cuda.device_count()
        found = [f"cuda:{i}" for i in range(count)] if count > 1 else found
    if len(set(found)) < len(found):
        raise Refused(f"--device {asked}: a device stands twice; --slots says how many arrays train at once")
    if len({name.partition(":")[0] for name in found}) > 1:
        raise Refused(f"--device {asked}: a grid trains on one kind of device, cpu or cuda")
    return tuple(found)


def cores() -> int:
    """Return the number of CPU cores this process may use: by its affinity and by a container's quota."""
    import joblib  # where it is needed: a complete grid is told in a second

    return joblib.cpu_count()


def run(grid: Grid, options: Options, log: Log, more: bool = False) -> int:
    """Make every missing run of a grid; return 0, or 1 where a run failed by the machine's fault.

    BY_HAND where a stop by hand left some to make, or came before what the caller says to do after it (`more`).
    """
    count = len(grid.arms) * len(grid.seeds)
    if count > LARGE and not options.yes:
        raise Refused(
            f"{grid.at('seeds')}: {count:,} runs ({len(grid.arms):,} arms x {len(grid.seeds)} seeds) are more "
            f"than {LARGE:,}; say --yes if that is meant"
        )
    with told(grid, "score.samples"):
        check_samples(grid.score.metrics, grid.score.samples)
    if options.cluster == "":  # as an empty variable gives it
        raise Refused("--cluster: no address; allowed are tcp://HOST:PORT of a Dask scheduler, and local")
    if options.device != "auto" and not options.cluster:  # auto asks torch, and is never refused
        pick_devices(options.device)
    code = _look(grid, options, log, 0, more=more or bool(grid.looks))
    if not grid.looks or code == BY_HAND:
        return code
    from bench.second_look import again  # here, because it imports pandas

    first, second = grid.looks
    arms = again(results.load(options.results / grid.name), grid)
    if not arms:
        log(f"looks: every arm is decided at the first look, at {first} seeds; nothing to add")
        return code
    log(f"looks: {second - first} more seeds, as declared, for {compat.arms(sorted(arms))}")
    return max(code, _look(grid, options, log, 1, arms, more))


def _look(
    grid: Grid,
    options: Options,
    log: Log,
    number: int,
    arms: Container[str] | None = None,
    more: bool = False,
) -> int:
    """Make every missing run of a look, of these arms or of all; `more`: something is to do after it."""
    with Store(options.results / grid.name) as store, ExitStack() as opened:
        look = plan.looks(grid, plan.runs(grid, there=store.rows))[number]
        planned = [r for r in look if arms is None or r.arm in arms]
        before = _same_grid(store, grid)
        if before and store.rows:
            if not (store.folder / "tricks.json").exists():
                _write_description(store.folder, grid, planned, before)
            if store.dirty:  # killed between the journal and the tables
                store.export()
            if not store.as_written():
                results.load(store.folder)  # refuses what was cut short or edited, naming line and column
        _rename(store, planned)
        readouts = tuple(name for name, _ in grid.score.readouts)
        by_arm = {r.arm: source.digest(r, readouts) for _, r in plan.first_runs(grid)}
        digests = {r.id: by_arm[r.arm] for r in planned}
        done = _done(store, planned, digests, options)
        if before and len(done) == len(planned):
            _write_description(store.folder, grid, planned, before)
            store.export()
            log(f"{store.folder}: all {len(planned)} runs are there; nothing to do")
            return _exit_code(store, planned, log)

        if not options.cluster:
            children.begin(options.threads or 1)
        with undisturbed():
            from bench.slots import Slot, Slots, share
            from bench.worker import Job

        cluster = None
        if options.cluster:
            from bench.cluster import Cluster, wanted

            where = {"BENCH_CACHE": options.cache, "BENCH_DATA": options.data_root}
            local = {key: str(path.absolute()) for key, path in where.items() if path}
            cluster = opened.enter_context(
                Cluster(options.cluster, options.device, options.slots, log, local)
            )
        devices = cluster.devices if cluster else pick_devices(options.device)
        device = devices[0]
        prepared = _prepare(grid, planned, done, options, () if cluster else devices, store, before, log)
        chosen = _tuned(grid, planned, done, options, devices, store, before, prepared.images, log)
        cut = plan.seed_major(plan.arrays(planned, chosen.most(options.runs_per_array, device)))
        missing = [Array(tuple(r for r in array.runs if r.id not in done)) for array in cut]
        missing = [array for array in missing if array.runs]
        if not missing:
            store.export()
            log(f"{store.folder}: all {len(planned)} runs are there; nothing to do")
            return _exit_code(store, planned, log)
        count = min(cluster.count() if cluster else chosen.slots, len(missing))
        progress = Progress(missing, len(planned), len(done), count, log, grid)
        for line in compat.warnings(grid):
            log(line)
        log(
            f"{store.folder}: {len(planned)} runs, {len(done)} there, {sum(len(a.runs) for a in missing)} to make in "
            f"{len(missing)} arrays on {count} slots ({', '.join(devices)})"
        )

        def job(array: Array, slot: Slot) -> Job:
            made_by = prepared.stamps.get(slot.device, {})  # a cluster's worker stamps its own
            stamps = {r.id: made_by | {"source": digests[r.id]} for r in array.runs}
            return Job(
                runs=array.runs,
                score=grid.score,
                images=prepared.images,
                cache=options.cache,
                weights=prepared.weights,
                cap=prepared.cap,
                device=slot.device,
                threads=slot.threads,
                framed=frozenset(r.id for r in array.runs if r.seed == grid.seeds[0]),
                keep=options.keep is not None,
                stamps=stamps,
            )

        heard = (options.time_limit, progress.hear, log)
        if cluster:
            tricks = sorted({trick.name() for r in planned for trick in r.tricks} | {*readouts})
            files = (prepared.images, prepared.weights, prepared.statistics)
            needs = wanted(
                grid.data, prepared.checksum, grid.score.extractor, *files, tricks, device, chosen.threads
            )
            slots = cluster.slots(
                *needs, *heard, lambda machine: with_room(lambda: _meet(store, grid, planned, machine), log)
            )
        else:
            slots = Slots(share(devices, count, chosen.threads), *heard)
        arrays = slots.results(missing, job)
        due = time.monotonic() + EXPORT_EVERY
        with stoppable(slots.draining.set, log):
            try:
                for array, result in arrays:
                    with_room(lambda result=result: _keep(store, result, options.keep), log)
                    progress.finished(array, result)
                    if (started := time.monotonic()) > due:
                        with_room(store.export, log)
                        took = time.monotonic() - started
                        due = started + took + max(EXPORT_EVERY, EXPORT_SHARE * took)
                with_room(store.export, log)
            finally:
                arrays.close()
                store.export()
        if slots.draining.is_set() and (more or progress.done < len(planned)):
            log(
                f"stopped: {progress.done} of {len(planned)} runs are there; the same command goes on from here"
            )
            return BY_HAND
        progress.end()
        return _exit_code(store, planned, log)


def _same_grid(store: Store, grid: Grid) -> dict[str, Any] | None:
    """Return the folder's description, or None for a new one; raise `Refused` where it is another grid's."""
    folder, path = store.folder, store.folder / "environment.json"
    if not path.exists():
        if store.rows and not store.journal.exists():
            raise Refused(
                f"{path} is missing beside runs.csv; restore it (git checkout {path}) or move {folder} away"
            )
        return None
    before = read_environment(path)
    now = description(grid)
    for key in ("data", "recipe", "budget", "score", "dtype"):
        there = before.get(key)
        same = {k: v for k, v in there.items() if k in now[key]} if isinstance(there, dict) else there
        if key == "score" and isinstance(
            there, dict
        ):  # read-outs and limits came later: rows of before lack theirs
            same = {"readouts": now[key]["readouts"], "limits": []} | same
        if same != now[key]:
            raise Refused(
                f"{folder} holds another grid: {key} is {json.dumps(same)} there and {json.dumps(now[key])} in "
                f"{grid.file}; give this grid another name, or move the folder away"
            )
    known = {arm["arm"]: arm for arm in before["arms"]}
    for arm in now["arms"]:
        there = known.get(arm["arm"], arm)["tricks"]
        if there != arm["tricks"]:
            raise Refused(
                f"{folder} holds another grid: arm {arm['arm']} is {json.dumps(there)} there and "
                f"{json.dumps(arm['tricks'])} in {grid.file}; give this grid another name, or list both values"
            )
    reference = {arm["arm"] for arm in [*before["arms"], *now["arms"]] if arm["role"] == "baseline"}
    if len(reference) > 1:
        raise Refused(
            f"{folder} holds another grid: its arms are compared with {_reference(before)}, those of {grid.file} "
            f"with {_reference(now)} (design {grid.design}); give this grid another name"
        )
    return before


def _reference(description: dict[str, Any]) -> str:
    """Return the arm that the others are compared with."""
    return next(arm["arm"] for arm in description["arms"] if arm["role"] == "baseline")


def description(grid: Grid) -> dict[str, Any]:
    """Return what environment.json says of the grid itself."""
    return json.loads(
        json.dumps(
            {
                "grid": grid.name,
                "data": asdict(grid.data),
                "recipe": grid.recipe.spec,
                "budget": asdict(grid.budget),
                "score": asdict(grid.score),
                "dtype": grid.dtype,
                "design": grid.design,
                "design_detail": grid.cells.detail(grid.looks) if grid.cells else None,
                "arms": [
                    {"arm": a.name, "role": a.role, "tricks": {t.name(): t.values for t in a.tricks}}
                    for a in grid.arms
                ],
            }
        )
    )


def _write_description(
    folder: Path, grid: Grid, planned: Sequence[Run], before: dict[str, Any] | None, **new: Any
) -> None:
    """Write grid.yaml, environment.json and tricks.json; what earlier runs of this folder left there
    stays."""
    from bench import __version__

    before = before or {
        "arms": [],
        "environments": {},
        "protocols": {},
        "data": {},
        "seeds": list(grid.seeds),
    }
    now = description(grid)
    # An arm that was given another name (one value became a list of values) is the arm of that name now.
    known = {json.dumps(arm["tricks"], sort_keys=True) for arm in now["arms"]}
    now["arms"] += [a for a in before["arms"] if json.dumps(a["tricks"], sort_keys=True) not in known]
    now["data"] = before["data"] | now["data"] | new.pop("data", {})
    for key in ("environments", "protocols"):
        now[key] = before[key] | new.pop(key, {})
    now |= {"created_by": f"bench {__version__}"}
    kept = ("cap", "created_by", "picked", "seeds")  # seeds that are added later are known as such
    now |= {key: before[key] for key in kept if key in before and key not in new}
    now |= {key: value for key, value in new.items() if key not in now}
    write_atomically(folder / "grid.yaml", grid.text.encode())
    write_atomically(folder / "environment.json", (_readable(now) + "\n").encode())
    path = folder / "tricks.json"
    cards = read_cards(path) if path.exists() else {}
    used = {trick.name() for r in planned for trick in r.tricks} | {name for name, _ in grid.score.readouts}
    cards |= {name: find(name).card() for name in used}
    write_atomically(path, (json.dumps(dict(sorted(cards.items())), indent=1) + "\n").encode())


def _readable(value: dict[str, Any]) -> str:
    """Return JSON with one alias a line: a large design has thousands."""
    text = json.dumps(value, indent=1, sort_keys=True)
    return re.sub(r'\[\s+("[^"]*"),\s+("[^"]*"),\s+(-?[\d.]+)\s+\]', r"[\1, \2, \3]", text)


def _tuned(
    grid: Grid,
    planned: Sequence[Run],
    done: set[str],
    options: Options,
    devices: Sequence[str],
    store: Store,
    before: dict[str, Any] | None,
    images: Path,
    log: Log,
) -> tune.Choice:
    """Return slots, threads and runs per array, measured where that pays, and write down what was picked.

    Rows that were made before there was a measurement were cut by the rules, and so are those that are missing.
    """
    device = devices[0]
    chosen = tune.choose(before, device, cores(), options.slots, options.threads, len(devices))
    if options.cluster:  # its workers are other machines than this one
        threads = options.threads or ((before or {}).get("picked") or {}).get("threads") or 1
        return replace(chosen, threads=threads)
    if chosen.slots * chosen.threads > cores():
        log(
            f"{chosen.slots} slots of {chosen.threads} threads are more than the {cores()} cores of this machine"
        )
    if store.rows and "picked" not in (before or {}):
        return chosen
    missing = [r for r in planned if r.id not in done]
    if not options.runs_per_array:
        with Seats(device) as seats:
            tune.measure(seats, chosen, missing, images, grid.score.samples, options.cache, device, log)
            if not options.slots and not options.threads and not store.rows:
                tune.compare_threads(seats, chosen, missing, images, options.cache, device, cores(), log)
                tune.fill(
                    seats, chosen, missing, images, grid.score.samples, options.cache, device, cores(), log
                )
    there = read_json(store.folder / "environment.json")
    _write_description(store.folder, grid, planned, there, picked=asdict(chosen))
    return chosen


def _rename(store: Store, planned: Sequence[Run]) -> None:
    """Give rows the name that the grid has for their arm now: a run is known by its id."""
    for r in planned:
        if r.id in store.rows and store.rows[r.id]["arm"] != r.arm:
            store.rows[r.id]["arm"] = r.arm
            store.dirty = True


def _done(store: Store, planned: Sequence[Run], digests: dict[str, str], options: Options) -> set[str]:
    """Return the ids of planned runs that need not be made."""
    done = {r.id for r in planned if r.id in store.rows}
    if options.retry_failed:
        done -= {run for run in done if store.rows[run]["status"] in MACHINE_FAILURES}
    old = [r for r in planned if r.id in done and store.rows[r.id]["source"] != digests[r.id]]
    if old and options.stale is None:
        arms = list(dict.fromkeys(r.arm for r in old))
        raise Refused(
            f"{store.folder}: {len(old)} rows (arms {', '.join(arms[:3])}{' ...' if len(arms) > 3 else ''}) were made "
            "by other code than this; say --stale keep to leave them or --stale redo to make them again"
        )
    return done - {r.id for r in old} if options.stale == "redo" else done


@dataclass(frozen=True)
class Prepared:
    """What is computed once before the first array."""

    images: Path
    weights: Path
    statistics: Path  # of the real images
    cap: float | None
    checksum: str
    stamps: dict[str, dict[str, str]]  # by device of this machine: columns of its rows


def _prepare(
    grid: Grid,
    planned: Sequence[Run],
    done: set[str],
    options: Options,
    devices: Sequence[str],
    store: Store,
    before: dict[str, Any] | None,
    log: Log,
) -> Prepared:
    """Load the data, compute the real images' statistics and the cap, and describe all of it in the folder.

    devices: those of this machine that will train.
    """

    from bench.data import load
    from bench.extractors import CLASSIFIER, SHIPPED, find_weights
    from bench.score import make_scorer
    from bench.worker import tiled

    with told(grid, "data"):
        images = load(grid.data, options.data_root, log)
    for line in images.skipped:
        log(f"left out: {line}")
    log(f"data: {len(images.train):,} images of {grid.data.set} at {grid.data.size} pixels")
    with told(grid, "data"):
        check_samples(grid.score.metrics, grid.score.samples, len(images.train))
    known = (before or {}).get("data", {}).get("checksum", images.checksum)
    if known != images.checksum:
        raise Refused(
            f"{store.folder}: its data had checksum {known}, {grid.data.set} now has {images.checksum}; give this grid "
            "another name, or restore the images"
        )
    largest = max(planned, key=lambda r: r.effective.batch_size)
    if largest.effective.batch_size > len(images.train):
        raise Refused(
            f"{grid.at('data')}: arm {largest.arm}: a batch of {largest.effective.batch_size} is more than the "
            f"{len(images.train)} images of the set"
        )
    file = keep_images(images, options.cache)
    device = devices[0] if devices else pick_device("auto")
    own = store.folder / "classifier.safetensors"  # trained for this data set: it belongs to the results
    weights = options.weights or (own if own.exists() else None)
    if weights is None:
        weights = find_weights(grid.score.extractor, grid.data, options.cache, None, options.data_root, log)
        if grid.score.extractor == CLASSIFIER and weights.parent != SHIPPED:
            write_atomically(own, weights.read_bytes())
    with _suited(weights, grid):
        scorer = make_scorer(
            images,
            grid.data,
            grid.score.extractor,
            grid.score.samples,
            options.cache,
            weights,
            device=device,
            log=log,
        )
    again = {r.id for r in planned} - done
    kept = {row.get("protocol") for run_id, row in store.rows.items() if run_id not in again}
    kept -= {scorer.protocol_id, "", None}
    if kept:
        there = (before or {}).get("protocols", {}).get(min(kept), {})
        keys = [key for key, value in scorer.protocol.items() if there.get(key) != value]
        raise Refused(
            f"{store.folder}: its rows were scored under another protocol (other: {', '.join(keys)}); give this grid "
            "another name, or use the same weights and versions"
        )
    cap = (before or {}).get("cap", {}).get("fd") or _cap(grid, scorer, device)
    name = "FID" if grid.score.extractor != CLASSIFIER else "FD (classifier features)"
    log(f"score: {name} of the untrained generator is {cap:.4g}: failed runs count as that")
    machines = {name: source.environment(name) for name in devices}
    hashes = {name: source.short_hash(machine) for name, machine in machines.items()}
    write_atomically(store.folder / "samples" / "real.png", tiled(images.train[:32]))
    _write_description(
        store.folder,
        grid,
        planned,
        before,
        data={"checksum": images.checksum, "train": len(images.train), "held_out": len(images.held_out)},
        cap={"fd": cap},
        environments={hashes[name]: machine for name, machine in machines.items()},
        protocols={scorer.protocol_id: scorer.protocol},
    )
    stamps = {
        name: {"environment": hashes[name], "device": machine["device"]} for name, machine in machines.items()
    }
    statistics = options.cache / f"real-{scorer.protocol_id}.safetensors"  # as bench.score keeps them
    return Prepared(file, weights, statistics, cap, images.checksum, stamps)


def _meet(store: Store, grid: Grid, planned: Sequence[Run], machine: dict[str, Any]) -> None:
    """Describe a machine that made rows in the folder."""
    there = read_json(store.folder / "environment.json")
    known = source.short_hash(machine)
    if known not in there["environments"]:
        _write_description(store.folder, grid, planned, there, environments={known: machine})


def keep_images(images: Any, cache: Path) -> Path:
    """Put a data set where child processes read it, as one file, and return the file."""
    import torch

    from bench.data import open_kept

    file = cache / f"images-{images.checksum}.pt"
    try:
        whole = file.exists() and open_kept(file).checksum == images.checksum
    except Exception:  # whatever is wrong with it: what is in the cache can be made again
        whole = False
    if not whole:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        torch.save(images, fresh)
        os.replace(fresh, file)
    return file


@contextmanager
def _suited(weights: Path, grid: Grid) -> Iterator[None]:
    """Refuse an extractor's weights that cannot score a grid's images: of another size, number of colours or shape."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        colours, size = SETS[grid.data.set].channels, grid.data.size
        kind = "grey" if colours == 1 else f"{colours} colours"
        reason = " ".join(str(error).split()).split(". ")[0][:120]  # torch goes on with advice
        raise Refused(
            f"score: with the weights {weights} the images of {grid.data.set} ({size} x {size} pixels, {kind}) cannot "
            f"be scored ({reason}); are these weights for images of another size or number of colours?"
        ) from None


def _cap(grid: Grid, scorer: Any, device: str) -> float:
    """Return the median over seeds of the untrained baseline generator's distance, sampled with batch
    statistics."""
    import torch

    from bench import train
    from bench.score import to_uint8
    from bench.streams import evaluation_latents

    distances = []
    for seed in grid.seeds[:10]:
        one = Run("baseline", grid.data, grid.recipe, (), grid.budget, seed, grid.dtype, grid.score.points)
        state = train.initial(one.program, [one], getattr(torch, held_in(grid.dtype)), device)
        z = evaluation_latents(seed, grid.score.samples)[:, None, : one.program.noise_length]
        made = train.sample(one.program.nets.g, state.g.parameters, {}, z, train=True).cpu()
        distances.append(scorer.score(to_uint8(made[:, 0]), ["fid"])["fd"])
    return statistics.median(distances)


def with_room(write: Callable[[], None], log: Log) -> None:
    """Write, and where the disk is full wait for room and write again; raise OSError where none comes.

    What fills it may be a child in training: that ends by it, and its temporary files go.
    """
    for pause in ROOM:
        try:
            return write()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log(f"{error.filename or 'a file'}: {error.strerror}; waiting {pause:g} s for room")
        time.sleep(pause)
    return write()


def _keep(store: Store, result: "Result", generators: Path | None) -> None:
    """Make an array's results last: pictures, generators and tracebacks first, then rows and curves in one line."""
    for name, data in result.pictures.items():
        write_atomically(store.folder / "samples" / name, data)
    for run_id, data in result.generators.items():
        write_atomically(generators / store.folder.name / f"{run_id}.safetensors", data)
    for row in result.rows:  # a run that failed before may have come right
        trace = store.folder / "failures" / f"{row['run']}.txt"
        if row["run"] in result.traces:
            write_atomically(trace, result.traces[row["run"]].encode())
        else:
            trace.unlink(missing_ok=True)
    store.commit(result.rows, result.curves)


def _exit_code(store: Store, planned: Sequence[Run], log: Log) -> int:
    """Return 1 where runs failed by the machine's fault, and say how many and what to do, else 0."""
    rows = [store.rows[r.id] for r in planned if r.id in store.rows]
    if not (lost := [row for row in rows if row["status"] in MACHINE_FAILURES]):
        return 0
    told = Counter(f"{row['status']}: {row['reason']}" for row in lost).most_common(3)
    log(
        f"{len(lost)} of {len(rows)} runs failed by the machine's fault; --retry-failed makes just these again"
    )
    for why, count in told:
        log(f"  {count} {why}")
    if any((store.folder / "failures" / f"{row['run']}.txt").exists() for row in lost):
        log(f"  tracebacks: {store.folder / 'failures'}")
    return 1
