"""Where the processes that train come from: a server that has loaded torch once, in an environment made for it."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver as server
from multiprocessing import resource_tracker
from typing import Any


def forkserver(threads: int) -> Any:
    """Return the multiprocessing context whose children start in milliseconds, with torch imported."""
    os.environ |= environment(
        threads
    )  # read by the server, if it is not there yet, when it loads the libraries
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.worker", "bench.slots"])
    return context


def begin(threads: int) -> None:
    """Start the server now: it loads torch while this process does, whose own environment stays as it is."""
    with kept_environment(), unheard():
        forkserver(threads)
        server.ensure_running()


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables that a process must start with to train as fast as it can.

    OpenBLAS does not listen to torch.set_num_threads; and glibc gives the memory of every step back to the kernel
    and asks for it again unless told not to (it ignores a threshold of more than 32 MB). Triton's kernels multiply and
    add in one rounding, whatever its next version has as its default.
    """
    libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    memory = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2 * 10**9)}
    return dict.fromkeys(libraries, str(threads)) | memory | {"TRITON_DEFAULT_FP_FUSION": "1"}


@contextlib.contextmanager
def kept_environment() -> Iterator[None]:
    """Put the environment back as it was, for what is started later."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Keep SIGINT from what is started meanwhile: the server of children, which for seconds loads torch before it
    ignores the signal, would die of a Ctrl-C that is meant for us."""
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def apart() -> None:
    """Be a child that was started `unheard`: hear SIGINT from now on, but not the terminal's, nor one that came
    before."""
    os.setpgid(0, 0)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which drops what is pending
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, handler)
