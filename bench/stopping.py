"""Stopping a grid by hand: SIGINT once lets the arrays in training end, twice or SIGTERM stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BY_HAND, BY_SIGTERM = 130, 143  # exit codes, as a shell has them


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whoever sends it does not wait."""


@contextmanager
def stoppable(drain: Callable[[], None], log: Callable[[str], None]) -> Iterator[None]:
    """Call `drain` at the first SIGINT and raise KeyboardInterrupt at the second, `Terminated` at SIGTERM.

    Outside the main thread, where Python allows no handlers, signals do what they did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        drain()
        # Not from here: the signal may have come in the middle of another line.
        line = "stopping after the arrays in training; once more stops at once, and only they are made again"
        threading.Thread(target=log, args=(line,)).start()

    def terminate(*_: Any) -> None:
        raise Terminated

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, first)
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold a SIGINT back: in the middle of an import Python would print a traceback and go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
