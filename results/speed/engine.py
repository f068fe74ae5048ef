"""How fast the engine trains on this device by runs per array: python results/speed/engine.py [--device cpu]

Rates are run-steps per second: as trained, of replays alone (no draws, nothing sent), and of the draws alone. With
--profile R, the time of every kernel in four steps of R runs is written beside.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from bench import engine, train
from bench.speed import Mode, Settings, _planned, grid_text

CHUNK = engine.CHUNK


def per_second(amount: float, seconds: float, work: Callable[[], object]) -> float:
    """Return `amount` per call over the time of a call, from calls for some seconds."""
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        work()
        calls += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return calls * amount / (time.perf_counter() - start)


def measure(size: int, channels: int, dtype: str, runs: int, given: argparse.Namespace) -> None:
    """Print the rates of one array."""
    images = torch.randint(0, 256, (4000, 1, size, size), dtype=torch.uint8)
    program, planned = _planned(grid_text(Settings(size=size), channels, Mode(1, runs, dtype)))
    training = train.begin(program, planned[:runs], images, given.device, engine=engine.Captured, say=print)
    start = time.perf_counter()
    training.advance(0, CHUNK)
    begun, at = time.perf_counter() - start, [CHUNK]

    def chunk() -> None:
        training.advance(at[0], at[0] + CHUNK)
        at[0] += CHUNK

    def replays() -> None:
        training._counter.zero_()
        for _ in range(CHUNK):
            training._replay(training.schedule.kind(1))

    each = CHUNK * runs
    trained = per_second(each, given.seconds, chunk)
    alone = per_second(each, given.seconds / 2, replays)
    drawn = per_second(each, 0, lambda: training._chunk(at[0], at[0] + CHUNK))
    print(
        f"{size} px, {channels} channels, {dtype}, {runs} runs: {trained:.0f} (replays alone {alone:.0f}, "
        f"draws alone {drawn:.0f}); {training.mode}, begun in {begun:.1f} s",
        flush=True,
    )
    if runs == given.profile:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            train.begin(program, planned[:runs], images, given.device, engine=engine.Eager).advance(0, 4)
        table = found.key_averages().table(sort_by="self_cuda_time_total", row_limit=45)
        with open(f"profile-{size}-{channels}-{dtype}.txt", "w") as file:
            file.write(table)


def main() -> None:
    """Measure every combination that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nets", default="28x32,32x64,64x64", help="size x channels")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--runs", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--profile", type=int, default=0)
    given = parser.parse_args()
    for net in given.nets.split(","):
        for dtype in given.dtypes.split(","):
            for runs in map(int, given.runs.split(",")):
                measure(*map(int, net.split("x")), dtype, runs, given)


if __name__ == "__main__":
    main()
