"""`bench run --cluster`: the arrays of a grid on the workers of a Dask scheduler, with nothing shared but the network.

A worker that takes an array does what a slot does on one machine (bench.slots): it trains it in a child process. Before
that it says by name what it lacks or what differs there: code, versions, images, weights of the extractor. Workers may
come, go and die; what is finished is in the coordinator's journal.
"""

import asyncio
import logging
import multiprocessing
import pickle
import queue
import signal
import threading
import time
import uuid
from asyncio import CancelledError
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib

from bench import source
from bench.errors import Lost, Refused
from bench.plan import Array
from bench.progress import Log
from bench.slots import Make, News, Slot, Slots, lost, share
from bench.spec import DataSpec, file_hash
from bench.store import write_atomically
from bench.worker import Result

try:
    from distributed import Client, KilledWorker, LocalCluster, get_worker
    from joblib._dask import DaskDistributedBackend
except ImportError:
    raise Refused(
        '--cluster needs the package "distributed" here and on the workers: pip install "dcgan-bench[cluster]"'
    ) from None

LOCAL = "local"
SENT_MB = 100  # files that a worker lacks are sent to it up to this size
AT_ONCE = 1_000  # arrays that lie at the scheduler, so that workers which join late find some
CONNECT = 10.0  # seconds in which a scheduler must answer
PATIENCE = 20.0  # seconds that a worker which was refused keeps an array, so that it does not take them all
ASK = 2.0  # seconds between two looks at whether workers are there
UNEXPLAINED = 2  # times that an array may come back without a word before it is a failed one
BESIDE_NUMBERS = ("cluster", "slots")  # modules that must agree though no number depends on them


@dataclass(frozen=True)
class Wanted:
    """What a worker must have so that its rows mean what the coordinator's would.

    images, weights, statistics: names of files in a worker's cache, with a hash of what is in them; statistics (of the
    real images: made elsewhere they differ in the last digits) is empty where the file is too large to be sent.
    """

    data: DataSpec
    checksum: str
    extractor: str
    hashed: str  # of the weights
    images: str
    weights: str
    statistics: str
    tricks: tuple[str, ...]
    code: tuple[tuple[str, str], ...]  # digest by file
    versions: tuple[tuple[str, str], ...]
    device: str
    threads: int


def wanted(
    data: DataSpec,
    checksum: str,
    extractor: str,
    images: Path,
    weights: Path,
    statistics: Path,
    tricks: Sequence[str],
    device: str,
    threads: int,
) -> tuple[Wanted, dict[str, Path]]:
    """Return what a worker must have, with code and versions of this process, and the files that may be sent to it."""

    hashed, known = file_hash(weights), ""
    files = {images.name: images, f"weights-{hashed}{weights.suffix}": weights}
    if is_small(statistics):
        known = f"statistics-{file_hash(statistics)}/{statistics.name}"
        files[known] = statistics
    named = (*list(files)[:2], known)
    code = tuple(source.parts(tricks, BESIDE_NUMBERS).items())
    return (
        Wanted(data, checksum, extractor, hashed, *named, tuple(tricks), code, versions(), device, threads),
        files,
    )


def is_small(file: Path) -> bool:
    """Return whether a file is there, and small enough to be sent to a worker."""
    return file.is_file() and file.stat().st_size <= SENT_MB * 2**20


@dataclass(frozen=True)
class Order:
    """An array for a worker."""

    session: str
    number: int
    wanted: Wanted
    work: bytes  # the pickled Job, to be opened when the tricks in it were checked
    limit: float


class Call:
    """A call that happens where it is unpickled: to Dask it is bytes, so that a scheduler needs no torch."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.made = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


class Missing(Exception):
    """A worker lacks a file that the coordinator may be able to send: the file's name in the cache, and a line."""

    @property
    def file(self) -> str:
        """The file's name in the worker's cache."""
        return self.args[0]

    def __str__(self) -> str:
        return self.args[1]


@dataclass(frozen=True)
class Answer:
    """What came of an order: a result and the machine that made it, or why a worker does not take it, or why nobody
    should try it again, or nothing because the grid is stopping."""

    number: int
    address: str
    result: Result | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    failed: str = ""


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions that must agree; a build for CUDA agrees with one for the CPU."""
    return tuple((name, version(name).partition("+")[0]) for name in ("torch", "torch-fidelity"))


# What runs on a worker.


@dataclass(frozen=True)
class Place:
    """What a worker found or made, once, for a grid: files in its own cache, and its devices."""

    images: Path
    weights: Path
    cache: Path
    machines: dict[str, dict[str, Any]]  # by device


_places: dict[Wanted, Place] = {}
_slots: dict[Wanted, "queue.SimpleQueue[Slot]"] = {}  # those that are free
_draining: set[str] = set()  # sessions
_refused: set[str] = set()
_lock = threading.Lock()


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the coordinator: its local workers hear it as well (Dask calls this when they start)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def ready(wanted: Wanted) -> Place:
    """Find or fetch what a grid needs; raise `Refused` or `Missing` where the rows would not be the coordinator's."""
    with _lock:
        if wanted not in _places:
            _places[wanted] = _made_ready(wanted)
        return _places[wanted]


def _made_ready(wanted: Wanted) -> Place:
    from bench.run import cache_folder, pick_devices

    _same(wanted)
    devices = pick_devices(wanted.device)
    cache = cache_folder()
    images, weights = _images(wanted, cache), _weights(wanted, cache)
    statistics = cache / wanted.statistics
    if wanted.statistics and not statistics.is_file():
        raise Missing(wanted.statistics, "the statistics of the real images are not there")
    kept = statistics.parent if wanted.statistics else cache
    return Place(images, weights, kept, {device: source.environment(device) for device in devices})


def _same(wanted: Wanted) -> None:
    """Refuse other code and other versions than the coordinator's."""
    own = dict(versions())
    for name, there in wanted.versions:
        if own[name] != there:
            raise Refused(f"it has {name} {own[name]}, the coordinator {there}")
    code = source.parts(wanted.tricks, BESIDE_NUMBERS)
    other = [name for name, digest in wanted.code if code.get(name) != digest]
    if other:
        few = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        raise Refused(
            f"its code is not the coordinator's: {few}; install the same version there and start it anew"
        )


def _images(wanted: Wanted, cache: Path) -> Path:
    from bench.data import load
    from bench.run import keep_images

    file = cache / wanted.images
    if file.exists():
        return file
    try:
        images = load(wanted.data)
    except Refused as refused:
        raise Missing(file.name, f"{wanted.data.set} is not there: {refused}") from None
    if images.checksum != wanted.checksum:
        raise Refused(
            f"its images of {wanted.data.set} have checksum {images.checksum}, the coordinator's {wanted.checksum}; "
            "put the same files there"
        )
    return keep_images(images, cache)


def _weights(wanted: Wanted, cache: Path) -> Path:
    from bench.extractors import CLASSIFIER, INCEPTION, SHIPPED, find_weights

    sent = cache / wanted.weights
    shipped = SHIPPED / f"{wanted.data.set}-{wanted.data.size}.safetensors"
    own: list[Path] = [sent, *([shipped] if wanted.extractor == CLASSIFIER else [])]
    why = f"the weights of {wanted.extractor} (hash {wanted.hashed}) are not there"
    if wanted.extractor == INCEPTION and not sent.exists():
        try:
            own.append(find_weights(INCEPTION, wanted.data, cache, None, None))
        except Refused as refused:
            why += f": {refused}"
    for file in own:
        if file.is_file() and file_hash(file) == wanted.hashed:
            return file
    raise Missing(sent.name, f"{why}; as {sent} they are found")


def _free(wanted: Wanted, devices: Sequence[str], count: int) -> "queue.SimpleQueue[Slot]":
    """Return the free ones of this worker's slots; it has as many as it takes tasks."""
    with _lock:
        if wanted not in _slots:
            _slots[wanted] = queue.SimpleQueue()
            for slot in share(devices, count, wanted.threads):
                _slots[wanted].put(slot)
        return _slots[wanted]


def look(wanted: Wanted) -> Exception | None:
    """Make ready before there is an array; return the reason where that cannot be."""
    try:
        ready(wanted)
    except Exception as error:
        return error
    return None


def kind(asked: str) -> str:
    """Return the kind of device that a worker would train on."""
    from bench.run import pick_devices

    return pick_devices(asked)[0].partition(":")[0]


def receive(name: str, data: bytes) -> None:
    """Take a file that the coordinator has into the cache."""
    from bench.run import cache_folder

    write_atomically(cache_folder() / name, data)


def drain(session: str) -> None:
    """Start no array of a session any more."""
    _draining.add(session)


def train(order: Order) -> Answer:
    """Take an array: train it in a child process of this worker, as a slot of one machine does."""
    worker = get_worker()
    answer = partial(Answer, order.number, worker.address)
    if order.session in _draining:
        return answer()
    try:
        place = _provided(order, worker)
    except Exception as error:
        time.sleep(PATIENCE if order.session in _refused else 0)
        _refused.add(order.session)
        return answer(refusal=_reason(error))
    # Dask's nanny makes its worker a daemon, which may have no children. Ours end with it: they watch a pipe.
    multiprocessing.current_process()._config["daemon"] = False
    free = _free(order.wanted, tuple(place.machines), worker.state.nthreads)
    slot = free.get()
    try:
        machine = place.machines[slot.device]
        return answer(result=_trained(order, place, slot, worker), machine=machine)
    except Exception as error:  # of the machine: the array's own are rows
        return answer(refusal=_reason(error))
    finally:
        free.put(slot)


def _provided(order: Order, worker: Any) -> Place:
    """Make ready, with files from the coordinator where they are missing: a worker that joins late was not asked."""
    from bench.run import cache_folder

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ready(order.wanted)
        except Missing as missing:
            worker.log_event(order.session, ("missing", worker.address))
            file = cache_folder() / missing.file
            while not file.is_file() and time.monotonic() < deadline:
                time.sleep(0.1)
            if time.monotonic() > deadline:
                raise


def _trained(order: Order, place: Place, slot: Slot, worker: Any) -> Result:
    machine = place.machines[slot.device]
    own = {"environment": source.short_hash(machine), "device": machine["device"]}
    job = pickle.loads(order.work)
    job = replace(
        job,
        images=place.images,
        cache=place.cache,
        weights=place.weights,
        device=slot.device,
        threads=slot.threads,
        stamps={run: stamp | own for run, stamp in job.stamps.items()},
    )

    def tell(news: News) -> None:
        ids = [run.id for run in news.array.runs]
        worker.log_event(order.session, ("point", order.number, ids, news.fraction, news.distances))

    def log(line: str) -> None:
        worker.log_event(order.session, ("say", f"{worker.address}: {line}"))

    slots = Slots([slot], order.limit, tell, log)
    with _until_cancelled(slots.stop, worker):
        [(_, result)] = slots.results([Array(job.runs)], lambda array, _: replace(job, runs=array.runs))
    return result


@contextmanager
def _until_cancelled(stop: Callable[[], None], worker: Any) -> Iterator[None]:
    """Call `stop` when nobody wants this task any more: the coordinator stopped, or was killed."""
    key, over = worker.get_current_task(), threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            task = worker.state.tasks.get(key)
            if task is None or task.state not in ("executing", "long-running"):
                stop()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


# What runs at the coordinator.


def ask(client: Client, function: Callable[..., Any], *args: Any, workers: list[str] | None = None) -> dict:
    """Return what a function returns, or raises, on every worker, by address; a thread does it, beside tasks."""
    call = pickle.dumps(Call(function, *args))
    return client.run(asyncio.to_thread, pickle.loads, call, workers=workers, on_error="return")


class Caller(Client):
    """A client that does nothing when it is collected: it is closed by hand, and one that never came to be, since
    nobody answered, would wait for a loop that stands still and then print a traceback."""

    def __del__(self) -> None:
        pass


class Backend(DaskDistributedBackend):
    """joblib's Dask backend, with three things that it lacks (joblib 1.6).

    With one worker of one thread joblib would train in this process; a task whose workers all died would never come
    back; and a scheduler that is gone would look like a result.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client=client)
        self.numbers: dict[bytes, int] = {}  # of the orders that are about to be submitted

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return a number that is not 1."""
        return AT_ONCE

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Submit an order; an error that Dask has with it comes back as its answer."""
        ((_, (packed,), _),) = func.items
        number = self.numbers.pop(packed)

        def came(out: Any) -> None:
            try:
                self.retrieve_result_callback(out)
            except CancelledError:
                out = Lost("the scheduler is gone")
            except Exception as error:
                out = [Answer(number, "", refusal=_reason(error))]
            callback(out)

        def ended(done: Any) -> None:
            if isinstance(error := done.exception(), KilledWorker):
                times, last = error.allowed_failures + 1, error.last_worker.address
                reason = f"{times} worker{'s' * (times > 1)} died with it in hand, the last was {last}"
                callback([Answer(number, last, failed=reason)])
            elif error:
                callback([Answer(number, "", refusal=_reason(error))])

        future = super().submit(func, came)
        future.add_done_callback(ended)
        return future


class Cluster:
    """The workers of a scheduler, for a `with` block; `slots` makes of them what bench.slots makes of one machine.

    Raises `Refused` where no scheduler answers, or where workers have different kinds of devices and none is named.
    """

    def __init__(
        self, address: str, device: str, slots: int | None, log: Log, env: Mapping[str, str] | None = None
    ) -> None:
        self.address, self.log = address, log
        if slots and address != LOCAL:
            raise Refused(
                "--slots is for --cluster local; a worker takes as many arrays at once as its --nthreads says"
            )
        logging.getLogger("distributed").setLevel(
            logging.CRITICAL
        )  # it tells in many lines what we tell in one
        with ExitStack() as opened:
            if address == LOCAL:
                address = opened.enter_context(_local(slots, dict(env or {}))).scheduler_address
            try:
                self.client = Caller(address, timeout=CONNECT, set_as_default=False, name="bench")
            except Exception as error:  # each kind of address fails in its own way
                reason = " ".join(str(error).split())[:160]
                raise Refused(
                    f"--cluster {address}: no Dask scheduler answers there ({reason}); start one with "
                    "`dask scheduler`, or say --cluster local"
                ) from None
            opened.callback(self._close)
            self.devices = (self._kind(device),)
            self._opened = opened.pop_all()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _close(self) -> None:
        with suppress(Exception):  # the scheduler may be gone
            self.client.close(timeout=5)

    def count(self) -> int:
        """Return how many arrays the workers that are there train at once."""
        return sum(self.client.nthreads().values())

    def _kind(self, asked: str) -> str:
        if not self.client.nthreads():
            self.log(f"{self.address}: waiting for a worker (`dask worker ADDRESS --nthreads N`)")
        while not self.client.nthreads():
            time.sleep(0.5)
        found = ask(self.client, kind, asked)
        kinds = {address: answer for address, answer in found.items() if isinstance(answer, str)}
        if not kinds:
            raise Refused(_lines({address: _reason(error) for address, error in found.items()}))
        if len(set(kinds.values())) > 1:
            some = {name: address for address, name in kinds.items()}
            raise Refused(
                f"--cluster {self.address}: worker {some['cpu']} would train on cpu, {some['cuda']} on cuda; "
                "say --device cpu or --device cuda, since a grid trains on one kind"
            )
        return asked if asked != "auto" else next(iter(kinds.values()))

    def slots(self, *args: Any, **more: Any) -> "Workers":
        """Return the workers as slots."""
        return Workers(self.client, self.address, *args, **more)


@contextmanager
def _local(slots: int | None, env: dict[str, str]) -> Iterator[LocalCluster]:
    """Start a scheduler in this process and workers of one thread beside it; they end with this process."""
    from bench.run import cores

    with LocalCluster(
        n_workers=slots or cores(),
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=None,  # what takes memory are the children, which Dask does not see
        silence_logs=logging.CRITICAL,
        preload=["bench.cluster"],
        env=env,
    ) as cluster:
        yield cluster


class Workers:
    """What bench.slots.Slots is for one machine: `results` trains arrays and yields each as it finishes.

    files: what may be sent to a worker that lacks it, by the name in its cache. meet: hears of every machine that made
    a row, before the row comes.
    """

    def __init__(
        self,
        client: Client,
        address: str,
        wanted: Wanted,
        files: Mapping[str, Path],
        limit: float,
        tell: Callable[[News], None],
        log: Log,
        meet: Callable[[dict[str, Any]], None],
    ) -> None:
        self.client, self.address, self.wanted, self.files = client, address, wanted, files
        self.limit, self.tell, self.log, self.meet = limit, tell, log, meet
        self.session = f"bench-{uuid.uuid4().hex}"
        self.refused: dict[str, str] = {}
        self._known: set[str] = set()
        self._lacking: queue.SimpleQueue[str] = queue.SimpleQueue()  # addresses
        self._over = threading.Event()
        self.draining = threading.Event()  # set: no array starts any more

    def results(self, arrays: Sequence[Array], job: Make) -> Iterator[tuple[Array, Result]]:
        """Yield each array with what came of it, in the order in which they finish.

        Once `draining` is set, those that have not started are left out. Raises `Lost` where the scheduler is gone,
        and `Refused` where no worker can take an array.
        """
        self.log(f"{self.address}: {len(self.client.nthreads())} workers look for the data and the weights")
        try:
            self._look()
            self.client.subscribe_topic(self.session, partial(self._hear, arrays))
            threading.Thread(target=self._attend, daemon=True).start()
            waiting, unexplained = deque(range(len(arrays))), Counter[int]()
            while waiting and not self.draining.is_set():
                for answer in self._answers(waiting, arrays, job):
                    array = arrays[answer.number]
                    if answer.result:
                        self._greet(answer)
                        yield array, answer.result
                    elif answer.failed:
                        yield array, self._failed(array, job, answer.failed)
                    elif answer.refusal:
                        unexplained[answer.number] += not self._look(answer)
                        if unexplained[answer.number] < UNEXPLAINED:
                            waiting.append(answer.number)
                        else:
                            yield array, self._failed(array, job, answer.refusal)
        except OSError as error:  # of a call to the scheduler: it is gone
            raise Lost(self._gone(error)) from None
        except Lost as gone:
            raise Lost(self._gone(gone)) from None
        finally:
            self._over.set()

    def _answers(self, waiting: deque[int], arrays: Sequence[Array], job: Make) -> Iterator[Answer]:
        slot = Slot(self.wanted.device, self.wanted.threads)  # the worker puts its own in its place

        backend = Backend(self.client)

        def packed(number: int) -> bytes:
            work = pickle.dumps(job(arrays[number], slot))
            made = pickle.dumps(Call(train, Order(self.session, number, self.wanted, work, self.limit)))
            backend.numbers[made] = number
            return made

        def orders() -> Iterator[Any]:
            while waiting and not self.draining.is_set():
                yield joblib.delayed(pickle.loads)(packed(waiting.popleft()))

        dispatch = joblib.Parallel(
            n_jobs=-1,
            backend=backend,
            batch_size=1,
            pre_dispatch=AT_ONCE,
            return_as="generator_unordered",
        )
        yield from dispatch(orders())

    def _greet(self, answer: Answer) -> None:
        if (machine := source.short_hash(answer.machine)) not in self._known:
            self._known.add(machine)
            self.meet(answer.machine)
        if answer.address not in self._known:
            self._known.add(answer.address)
            self.log(f"worker {answer.address}: its first array is done ({answer.machine['device']})")

    def _look(self, answer: Answer | None = None) -> bool:
        """Ask the workers whether they are ready, send them what only we have, and say which ones are refused.

        Return whether this explains why an order came back; raise `Refused` where no worker is left.
        """
        found, sent = self._provide(None)
        reasons = {address: _reason(error) for address, error in found.items() if error is not None}
        if reasons and not set(found) - set(reasons):
            raise Refused(_lines(reasons))
        for address, why in reasons.items():
            if address not in self.refused:
                self.log(f"worker {address} is refused: {why}")
        self.refused |= reasons
        if sent or not (answer and answer.address):
            return bool(sent or reasons)
        return answer.address in reasons or answer.address not in found

    def _provide(self, workers: list[str] | None) -> tuple[dict[str, Exception | None], set[tuple[str, str]]]:
        """Send workers what they lack and we have; return what still is wrong by worker, and what was sent."""
        found, sent = self._asked(workers), set()
        for address in list(found):
            while isinstance(missing := found[address], Missing) and (address, missing.file) not in sent:
                if not (file := self._sendable(missing)):
                    break
                self.log(f"worker {address}: {file.name} is sent there")
                ask(self.client, receive, missing.file, file.read_bytes(), workers=[address])
                sent.add((address, missing.file))
                found |= self._asked([address])
        return found, sent

    def _asked(self, workers: list[str] | None) -> dict[str, Exception | None]:
        found = ask(self.client, look, self.wanted, workers=workers)
        gone = set(found) - set(self.client.nthreads())
        return {address: answer for address, answer in found.items() if address not in gone}

    def _sendable(self, missing: Missing) -> Path | None:
        file = self.files.get(missing.file)
        return file if file and is_small(file) else None

    def _failed(self, array: Array, job: Make, reason: str) -> Result:
        stamps = job(array, Slot(self.wanted.device, self.wanted.threads)).stamps
        return lost(array, stamps, "failed", reason, 0.0)

    def _hear(self, arrays: Sequence[Array], event: tuple[float, Any]) -> None:
        word, *rest = event[1]
        if word == "say":
            self.log(rest[0])
            return
        if word == "missing":
            self._lacking.put(rest[0])
            return
        number, ids, fraction, distances = rest
        runs = tuple(run for run in arrays[number].runs if run.id in ids)
        self.tell(News(Array(runs), fraction, distances))

    def _attend(self) -> None:
        """Give workers that join late the files they lack, tell all of them once no array starts any more, and say
        where none is left: Dask waits without a word."""
        alone, asked = False, time.monotonic()
        while not self._over.is_set():
            with suppress(Exception):  # a worker or the scheduler is gone: so are its arrays
                if time.monotonic() - asked > ASK:
                    asked = time.monotonic()
                    if (none := not self.client.nthreads()) and not alone:
                        self.log(
                            f"{self.address}: no worker is left; waiting for one (`dask worker ADDRESS`)"
                        )
                    alone = none
                with suppress(queue.Empty):
                    self._provide([self._lacking.get(timeout=0.5)])
                if self.draining.is_set():
                    ask(self.client, drain, self.session)

    def _gone(self, error: Exception) -> str:
        return (
            f"--cluster {self.address}: {error}; what was finished is kept: start the scheduler and workers "
            "again, and the same command goes on from there"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, Missing):
        return f"{error} (files of more than {SENT_MB} MB are not sent)"
    return str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"


def _lines(reasons: Mapping[str, str]) -> str:
    """Return all refusals as one line."""
    said = "; ".join(f"worker {address}: {why}" for address, why in reasons.items())
    return f"no worker can take an array: {said}"
