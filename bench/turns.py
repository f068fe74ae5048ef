"""Contestants that take timed turns, each in child processes of its own: `bench speed` is made of such turns."""

import multiprocessing
import os
import queue
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench.children import apart, environment, kept_environment, unheard
from bench.errors import Refused

Work = Callable[[int], Iterator[float]]  # given the number of its process; yields how much it did each time
WARM = 0.2  # share of a turn that is worked before it, untimed: caches, clocks, the DataLoader's workers
LIMIT = 900.0  # seconds without an answer after which a child is given up


@dataclass(frozen=True)
class Contestant:
    """Work that several processes do at once, with some threads each, for some seconds a turn.

    tuned: in processes that start as those of `bench run` do, with its environment. droppable: where it cannot be
    done it is left out with a word; else nothing is measured.
    """

    name: str
    work: Work
    seconds: float
    processes: int = 1
    threads: int = 1
    tuned: bool = False
    droppable: bool = False


class Failed(Exception):
    """A contestant that could not take its turn; the message is one line."""


class Seats:
    """Child processes, started when they are first needed, kept from turn to turn, gone at the end."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._children: list[Any] = []
        self._pipes: dict[bool, list[Connection]] = {False: [], True: []}

    def __enter__(self) -> "Seats":
        return self

    def __exit__(self, *error: object) -> None:
        self._empty()

    def turn(self, contestant: Contestant) -> float:
        """Warm up, wait until all of a contestant's processes have, work; return what was done per second.

        Raises `Failed` where the contestant cannot, and `Refused` where one of its processes died.
        """
        pipes = self._seated(contestant.tuned, contestant.processes)
        self._ask(pipes, ("warm", contestant))
        return sum(self._ask(pipes, ("go", contestant)))

    def clear(self) -> None:
        """Let all processes forget what they worked on."""
        self._ask([pipe for pipes in self._pipes.values() for pipe in pipes], ("clear", None))

    def _ask(self, pipes: Sequence[Connection], order: tuple[str, Contestant | None]) -> list[float]:
        """Give an order to some children and return their answers; after a death or a silence all start anew."""
        try:
            for pipe in pipes:
                pipe.send(order)
            answers = [pipe.recv() if pipe.poll(LIMIT) else None for pipe in pipes]
        except (EOFError, OSError):
            self._empty()
            raise Refused("a child process of the measurement died; is there enough memory?") from None
        if None in answers:
            self._empty()
            raise Failed(f"no answer after {LIMIT:g} s")
        for answer in answers:
            if isinstance(answer, str):
                raise Failed(answer)
        return answers

    def _empty(self) -> None:
        from bench.slots import kill

        for child in self._children:
            kill(child)
        self._children.clear()
        for pipes in self._pipes.values():
            for pipe in pipes:
                pipe.close()
            pipes.clear()

    def _seated(self, tuned: bool, count: int) -> list[Connection]:
        pipes, context = self._pipes[tuned], multiprocessing.get_context("spawn")
        with kept_environment(), unheard():
            if tuned:
                os.environ |= environment(1)
            while len(pipes) < count:
                ours, theirs = context.Pipe()
                # Not a daemon: those may not have the children that a DataLoader needs.
                child = context.Process(target=_serve, args=(theirs, len(pipes), tuned, self.device))
                child.start()
                theirs.close()
                self._children.append(child)
                pipes.append(ours)
        return pipes[:count]


def interleave(
    seats: Seats, contestants: Sequence[Contestant], rounds: int, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Let all contestants take their turns round by round, in an order that rotates; return their rates by name.

    A drift of the machine then meets all of them alike, and none is always the first. One that cannot take its first
    turn is announced and left out if it may be, else refused.
    """
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        shift = number * len(contestants) // rounds
        for contestant in [*contestants[shift:], *contestants[:shift]]:
            if contestant.name not in rates:
                continue
            try:
                rates[contestant.name].append(seats.turn(contestant))
            except Failed as failed:
                if not contestant.droppable:
                    raise Refused(f"{contestant.name}: {failed}") from None
                say(f"{contestant.name}: left out: {failed}")
                del rates[contestant.name]
                continue
            say(
                f"round {number + 1} of {rounds}: {contestant.name}: {rates[contestant.name][-1]:.4g} a second"
            )
    seats.clear()
    return rates


def _serve(pipe: Connection, number: int, tuned: bool, device: str) -> None:
    """Be a child: follow orders until the parent is gone."""
    apart()  # and so DataLoader workers can be ended with their parent
    orders: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, orders), daemon=True).start()
    warnings.simplefilter(
        "ignore"
    )  # that two workers are more than a small machine has cores is what (a) is about
    # A spawned process would spawn its DataLoader's workers as well, which is slow, is not what people's loops do, and
    # leaves semaphores behind when it is killed.
    multiprocessing.set_start_method(None, force=True)
    import torch

    if device.startswith("cuda:"):  # "cuda" alone names no device to set
        torch.cuda.set_device(device)
    if tuned:
        torch.set_flush_denormal(True)  # as bench.worker does
    loops: dict[str, Iterator[float]] = {}
    while True:
        order, contestant = orders.get()
        try:
            if order == "clear":
                loops.clear()
                pipe.send(0.0)
                continue
            torch.set_num_threads(contestant.threads)
            fresh = contestant.name not in loops
            if fresh:
                loops[contestant.name] = contestant.work(number)
            seconds = contestant.seconds if order == "go" else WARM * contestant.seconds
            pipe.send(_rate(loops[contestant.name], seconds, 3 if fresh else 1, device))
        except Exception as error:  # whatever it is, it is this contestant's
            loops.pop(getattr(contestant, "name", ""), None)
            pipe.send(f"{type(error).__name__}: {error}".splitlines()[0][:150])


def _rate(loop: Iterator[float], seconds: float, least: int, device: str) -> float:
    """Work for some seconds, and some times at least; return the amount per second."""
    from torch import cuda

    done, times, start = 0.0, 0, time.perf_counter()
    while times < least or time.perf_counter() - start < seconds:
        done, times = done + next(loop), times + 1
    if device.startswith("cuda"):
        cuda.synchronize()
    return done / (time.perf_counter() - start)


def _listen(pipe: Connection, orders: queue.SimpleQueue) -> None:
    """Pass orders on; end this process and all it started when the parent is gone, even if it was killed."""
    while True:
        try:
            orders.put(pipe.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
