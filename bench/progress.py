"""What `bench run` says while it works: readable on a terminal and in a log file."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.grid import Grid
from bench.plan import Array

if TYPE_CHECKING:  # they import torch
    from bench.slots import News
    from bench.worker import Result

Log = Callable[[str], None]


class Progress:
    """Lines for people: runs done, failures, best distance so far, time left; at most one each ten
    seconds."""

    EVERY = 10.0

    def __init__(
        self, arrays: Sequence[Array], planned: int, done: int, slots: int, log: Log, grid: Grid
    ) -> None:
        self.planned, self.done, self.log, self.slots = planned, done, log, slots
        self.name = "FID" if grid.score.extractor != "classifier" else "FD"
        # One look-up and one addition for each piece of news, however many arrays there are.
        self.number = {run.id: i for i, array in enumerate(arrays) for run in array.runs}
        self.work = [_work(array) for array in arrays]
        self.fractions = [0.0] * len(arrays)
        self.sizes = [len(array.runs) for array in arrays]
        self.total, self.worked = sum(self.work), 0.0
        self.lock = threading.Lock()
        self.failed = 0
        self.best: tuple[float, str] | None = None
        self.started = self.said = time.monotonic()

    def hear(self, news: "News") -> None:
        """Take note of an array in training (called from its supervisor's thread)."""
        i = self.number[news.array.runs[0].id]
        self._reach(i, news.fraction * len(news.array.runs) / self.sizes[i])
        names = {r.id: f"{r.arm}, seed {r.seed}" for r in news.array.runs}
        for run_id, distance in news.distances.items():
            if self.best is None or distance < self.best[0]:
                self.best = (distance, names[run_id])
        if time.monotonic() - self.said > self.EVERY:
            self.say()

    def finished(self, array: Array, result: "Result") -> None:
        """Take note of an array that is done, and say what failed in it."""
        self._reach(self.number[array.runs[0].id], 1.0)
        self.done += len(result.rows)
        for row in result.rows:
            if row["status"] != "ok":
                self.failed += 1
                self.log(f"  {row['arm']}, seed {row['seed']}: {row['status']}: {row['reason']}")
        self.say(f"{array.label} done")

    def _reach(self, i: int, fraction: float) -> None:
        """Take note that an array is at least that far."""
        with self.lock:  # every supervisor has a thread of its own
            if fraction > self.fractions[i]:
                self.worked += self.work[i] * (fraction - self.fractions[i])
                self.fractions[i] = fraction

    def say(self, what: str = "") -> None:
        """Log one line."""
        self.said = time.monotonic()
        share = self.worked / self.total
        elapsed = self.said - self.started
        left = f"{duration(elapsed / share - elapsed)} left" if share > 0.02 else "time left not known yet"
        best = f"best {self.name} {self.best[0]:.4g} ({self.best[1]})" if self.best else "no score yet"
        self.log(
            f"[{self.done}/{self.planned} runs, {self.failed} not ok] {best}; {left}"
            + (f"; {what}" if what else "")
        )

    def end(self) -> None:
        """Log the closing line."""
        seconds = time.monotonic() - self.started
        self.log(
            f"done: {self.planned} runs in results, {self.failed} of the new ones not ok, {duration(seconds)}"
        )


def _work(array: Array) -> float:
    """Return an array's expected cost, in multiply-adds of its steps; a step costs something however small it
    is."""
    program = array.program
    per_image = program.nets.g.multiply_adds() + program.nets.d.multiply_adds()
    steps = program.steps(10_000)
    return len(array.runs) * steps * (program.batch_size * per_image + 4e6)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def to_stderr(line: str) -> None:
    """Print a line where progress goes."""
    print(line, file=sys.stderr, flush=True)
