"""Slots: where arrays train, one child process each, so that a crash costs one array's attempt."""

import contextlib
import fcntl
import os
import queue
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import joblib

from bench.children import apart, forkserver, unheard
from bench.plan import Array
from bench.worker import Job, Result, serve, stamp

# joblib's word for what a stop is: we say it ourselves, and the tasks are made when the grid goes on.
warnings.filterwarnings("ignore", message=r"\d+ tasks which were still being processed", category=UserWarning)

TRIES = 2  # a crash is tried again once, at once
LOCK = "lock"  # in a folder of temporary files: held by the process that made it
STARTS = (0.2, 1.0, 3.0)  # seconds to wait before a child that did not start is started again


@dataclass(frozen=True)
class Slot:
    """One place where an array can train: a device, and CPU threads that are its own."""

    device: str
    threads: int


def share(devices: Sequence[str], count: int, threads: int) -> tuple[Slot, ...]:
    """Return `count` slots, dealt to the devices in turn, so that no device holds two more than another."""
    return tuple(Slot(devices[i % len(devices)], threads) for i in range(count))


Make = Callable[[Array, Slot], Job]  # what a slot does with an array


@dataclass(frozen=True)
class News:
    """What a supervisor reports while its child trains: how far, and the latest distances by run."""

    array: Array
    fraction: float
    distances: dict[str, float]


class Failed(NamedTuple):
    """How a child failed: kind (memory, timeout, error, signal, stopped), a line for people, its traceback if it had
    one."""

    kind: str
    reason: str
    trace: str = ""


class Slots:
    """Some slots; `results` trains arrays in them and yields each as it finishes.

    Children are forked from a server that has imported torch once, so that a child starts in milliseconds;
    each has a process group of its own and dies when this process does, even by SIGKILL. Its temporary files go
    with it: one that filled the disk leaves room for the row that says so.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        limit: float,
        tell: Callable[[News], None],
        log: Callable[[str], None],
        target: Callable[..., None] = serve,
    ) -> None:
        self.count, self.limit, self.tell, self.log, self.target = len(slots), limit, tell, log, target
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._context = forkserver(max(slot.threads for slot in slots))
        self._children: set[Any] = set()
        self._said: set[str] = set()
        self._homes: str | None = None  # the folder of the children's folders
        self._stopping = threading.Event()
        self.draining = threading.Event()  # set: no array starts any more

    def results(self, arrays: Sequence[Array], job: Make) -> Iterator[tuple[Array, Result]]:
        """Yield each array with what came of it, in the order in which they finish.

        Once `draining` is set, those that have not started are left out.
        """
        dispatch = joblib.Parallel(n_jobs=self.count, backend="threading", return_as="generator_unordered")
        _reclaim(Path(tempfile.gettempdir()))
        with _temporary(None) as self._homes, _owned(self._homes):
            try:
                for array, result in dispatch(
                    joblib.delayed(self._unless_draining)(array, job) for array in arrays
                ):
                    if result is not None:
                        yield array, result
            finally:
                self.stop()

    def stop(self) -> None:
        """End all children; nothing starts any more."""
        self._stopping.set()
        for child in list(self._children):
            kill(child)

    def _unless_draining(self, array: Array, make: Make) -> tuple[Array, Result | None]:
        if self.draining.is_set():
            return array, None
        slot = self._free.get()
        try:
            return self._supervise(array, make, slot)
        finally:
            self._free.put(slot)

    def _supervise(self, array: Array, make: Make, slot: Slot) -> tuple[Array, Result]:
        job = make(array, slot)
        for attempt in range(TRIES):
            started = time.monotonic()
            outcome = self._attempt(array, job)
            if isinstance(outcome, Result):
                return array, outcome
            if self._stopping.is_set():
                break
            last = attempt + 1 == TRIES or outcome.kind in ("memory", "timeout")  # as likely the next time
            if (
                last and len(array.runs) > 1
            ):  # one of its runs may be at fault: the others must not go with it
                half = len(array.runs) // 2
                self.log(f"{array.label}: {outcome.reason}; trying again as two arrays")
                halves = (array.runs[:half], array.runs[half:])
                return array, _joined([self._supervise(Array(runs), make, slot)[1] for runs in halves])
            if attempt + 1 < TRIES:
                self.log(f"{array.label}: {outcome.reason}; trying again")
        status = "timeout" if outcome.kind == "timeout" else "failed"
        rows = lost(array, job.stamps, status, outcome.reason, time.monotonic() - started)
        return array, replace(rows, traces={r.id: outcome.trace for r in array.runs if outcome.trace})

    def _attempt(self, array: Array, job: Job) -> Result | Failed:
        """Train in a child; return its result, or how it failed."""
        if self._stopping.is_set():
            return Failed("stopped", "stopped")
        ours, theirs = self._context.Pipe()
        before, since = _oom_kills(), time.time()
        with _temporary(self._homes) as home:
            try:
                child = self._born(home, theirs, job)
            except (EOFError, OSError) as error:
                ours.close()
                theirs.close()
                return Failed("error", f"no child process could be started ({type(error).__name__}: {error})")
            _first_to_go(child.pid)
            theirs.close()
            self._children.add(child)
            if self._stopping.is_set():  # `stop` came while it was being born
                kill(child)
            outcome = None
            try:
                outcome = self._listen(array, child, ours, before)
                return outcome
            finally:
                self._children.discard(child)
                kill(child)
                ours.close()
                if not isinstance(outcome, Result):
                    _clear(job.cache, child.pid, since)

    def _born(self, home: str | None, pipe: Any, job: Job) -> Any:
        """Return a child that has started; raise EOFError or OSError where none would, whose server died for instance:
        some moments pass until it is known to be dead, and another is started."""
        pauses = iter(STARTS)
        while True:
            child = self._context.Process(target=_within, args=(home, self.target, pipe, job), daemon=True)
            try:
                with unheard():
                    child.start()
                return child
            except (EOFError, OSError):
                pause = next(pauses, None)
                if pause is None or self._stopping.is_set():
                    raise
            time.sleep(pause)

    def _listen(self, array: Array, child: Any, pipe: Any, before: int | None) -> Result | Failed:
        deadline = time.monotonic() + self.limit
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return Failed("timeout", f"no result after {self.limit:g} s")
            if not wait([pipe], timeout=left):
                continue
            try:
                word, *rest = pipe.recv()
            except (EOFError, OSError):
                child.join()
                return _ended(child.exitcode, before)
            if word == "point":
                self.tell(News(array, *rest))
            elif word == "say":
                self._say(rest[0])
            elif word == "done":
                child.join(timeout=10)  # let it end by itself
                return rest[0]
            else:
                failed = Failed(*rest)
                self._say(failed.trace.rstrip())
                return failed

    def _say(self, line: str) -> None:
        """Log what every array of a grid may say, once."""
        if line not in self._said:
            self._said.add(line)
            self.log(line)


@contextlib.contextmanager
def _temporary(above: str | None) -> Iterator[str | None]:
    """Make a folder below another, or where temporary files go, and remove it in the end; None where it cannot be
    made: on a full disk a child may do without."""
    try:
        folder = tempfile.mkdtemp(prefix="dcgan-bench-", dir=above)
    except OSError:
        folder = None
    try:
        yield folder
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _owned(folder: str | None) -> Iterator[None]:
    """Hold a lock in a folder of temporary files: where nobody holds it, who made it was killed (`_reclaim`)."""
    with contextlib.ExitStack() as opened:
        if folder:
            with contextlib.suppress(OSError):  # a full disk, a file system without locks
                file = opened.enter_context(open(Path(folder, f"{LOCK}.new"), "w"))
                fcntl.flock(file, fcntl.LOCK_EX)
                os.rename(file.name, Path(folder, LOCK))  # nobody sees it unlocked
        yield


def _reclaim(above: Path) -> None:
    """Remove the temporary files of processes that were killed before they could."""
    for lock in above.glob(f"dcgan-bench-*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:
            if lock.stat().st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)


def _within(home: str | None, target: Callable[..., None], pipe: Any, job: Job) -> None:
    """Be a child whose temporary files, and those of what it starts, are in a folder of its own."""
    apart()
    if home:
        os.environ["TMPDIR"] = tempfile.tempdir = home
    target(pipe, job)


def _clear(cache: Path, child: int, since: float) -> None:
    """Remove what a child that failed had begun to write in the cache: such names end with its process id.

    since: when it started; an older file is of a process elsewhere that has the same number and the same cache.
    """
    for file in cache.glob(f"*.{child}*"):
        if file.name.removesuffix(".tmp").endswith(f".{child}"):
            with contextlib.suppress(OSError):
                if (
                    file.stat().st_mtime >= since - 2
                ):  # file systems with whole seconds, clocks that differ a little
                    file.unlink()


def _first_to_go(child: int) -> None:
    """Let the kernel's out-of-memory killer take a child before the process that keeps the results (Linux)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{child}/oom_score_adj").write_text("500")


def lost(array: Array, stamps: dict[str, dict[str, str]], status: str, reason: str, seconds: float) -> Result:
    """Return the rows of an array of which nothing came, by the machine's fault."""
    about = {"status": status, "reason": reason, "runs_per_array": len(array.runs)}
    about["train_seconds"] = round(seconds / len(array.runs), 3)
    return Result(rows=[stamp(run) | about | stamps.get(run.id, {}) for run in array.runs])


def _oom_kills() -> int | None:
    """Return how many processes the kernel killed for memory since it started, where it says so (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError):
        return None


def _ended(code: int | None, before: int | None = None) -> Failed:
    """Return why a child that sent no result ended; `before`: `_oom_kills` when it started."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        # The kernel's out-of-memory killer sends SIGKILL; half the array may fit where the whole did not. Somebody
        # else's SIGKILL is tried again as it was.
        now = _oom_kills()
        memory = name == "SIGKILL" and (before is None or now is None or now > before)
        return Failed(
            "memory" if memory else "signal", f"the process was killed by {name}{', out of memory' * memory}"
        )
    return Failed("error", f"the process ended with exit status {code} and no result")


def kill(child: Any) -> None:
    """End a child and whatever it started."""
    for end in (lambda: os.killpg(child.pid, signal.SIGKILL), child.kill):
        try:
            end()
        except (ProcessLookupError, PermissionError):
            continue
    child.join()


def _joined(parts: Sequence[Result]) -> Result:
    whole = Result()
    for part in parts:
        whole = replace(
            whole,
            rows=whole.rows + part.rows,
            curves=whole.curves + part.curves,
            pictures=whole.pictures | part.pictures,
            generators=whole.generators | part.generators,
            traces=whole.traces | part.traces,
        )
    return whole
