"""Slots: where arrays train, one child process each, so that a crash costs one array's attempt."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import joblib

from bench.plan import Array
from bench.worker import Job, Result, serve, stamp

TRIES = 2  # a crash is tried again once, at once


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


def forkserver(threads: int) -> Any:
    """Return the multiprocessing context whose children start in milliseconds, with torch imported."""
    os.environ |= environment(threads)  # read by the forkserver when it loads the libraries
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.worker"])
    return context


class Slots:
    """Some slots; `results` trains arrays in them and yields each as it finishes.

    Children are forked from a server that has imported torch once, so that a child starts in milliseconds;
    each has a process group of its own and dies when this process does, even by SIGKILL.
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
        self._stopping = threading.Event()
        self.draining = threading.Event()  # set: no array starts any more

    def results(self, arrays: Sequence[Array], job: Make) -> Iterator[tuple[Array, Result]]:
        """Yield each array with what came of it, in the order in which they finish.

        Once `draining` is set, those that have not started are left out.
        """
        dispatch = joblib.Parallel(n_jobs=self.count, backend="threading", return_as="generator_unordered")
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
        before = _oom_kills()
        child = self._context.Process(target=self.target, args=(theirs, job), daemon=True)
        child.start()
        _first_to_go(child.pid)
        theirs.close()
        self._children.add(child)
        try:
            return self._listen(array, child, ours, before)
        finally:
            self._children.discard(child)
            kill(child)
            ours.close()

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


def _first_to_go(child: int) -> None:
    """Let the kernel's out-of-memory killer take a child before the process that keeps the results (Linux)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{child}/oom_score_adj").write_text("500")


def lost(array: Array, stamps: dict[str, dict[str, str]], status: str, reason: str, seconds: float) -> Result:
    """Return the rows of an array of which nothing came, by the machine's fault."""
    about = {"status": status, "reason": reason, "runs_per_array": len(array.runs)}
    about["train_seconds"] = round(seconds / len(array.runs), 3)
    return Result(rows=[stamp(run) | about | stamps.get(run.id, {}) for run in array.runs])


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables that a process must start with to train as fast as it can.

    OpenBLAS does not listen to torch.set_num_threads; and glibc gives the memory of every step back to the kernel
    and asks for it again unless told not to (it ignores a threshold of more than 32 MB).
    """
    libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    memory = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2 * 10**9)}
    return dict.fromkeys(libraries, str(threads)) | memory


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
