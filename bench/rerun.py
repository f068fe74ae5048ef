"""`bench verify NAME --rerun K`: some checked-in rows are trained again; do they come out as they were?"""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench import plan
from bench.checks import Check
from bench.errors import Refused
from bench.plan import Array
from bench.program import Run
from bench.results import MACHINE_FAILURES
from bench.stats import FEWEST_PAIRS, TINY
from bench.store import cell
from bench.verify import SCORES, Subject

FALSE_ALARM = 0.01  # over all rows that are trained again
ROUNDING = 1e-9  # relative: less than chaos makes of the last bit of a weight within a few steps
COMPARED = ("status", "reason", "detectors", "images", "steps", *SCORES, "fid", "fd_best", "protocol")


def rerun(
    s: Subject,
    count: int,
    seed: int,
    device: str,
    cache: Path,
    data_root: Path | None,
    weights: Path | None,
    log: Callable[[str], None],
    time_limit: float = 6 * 3600.0,
) -> Iterator[Check]:
    """Train `count` sampled rows again, one after the other, and yield for each whether it reproduces.

    To the bit: in all scores and words. To rounding: but for the last digits of scores. Else statistically: its log
    score differs by no more than runs of its arm with different seeds do.
    Raises `Refused` where data or weights cannot be had or are others.
    """
    from bench.data import load
    from bench.extractors import find_weights
    from bench.run import keep_images
    from bench.score import make_scorer
    from bench.slots import Slots, share
    from bench.worker import Job

    chosen = sample(s, count, seed)
    images = load(s.grid.data, data_root, log)
    known = s.environment["data"].get("checksum")
    if images.checksum != known:
        raise Refused(
            f"{s.folder}: its data had checksum {known}, {s.grid.data.set} here has {images.checksum}"
        )
    file = keep_images(images, cache)
    own = s.folder / "classifier.safetensors"
    weights = weights or (own if own.exists() else None)
    weights = weights or find_weights(s.grid.score.extractor, s.grid.data, cache, None, data_root, log)
    # The real images' statistics are made here, as `bench run` makes them: their last bits depend on the threads.
    make_scorer(
        images,
        s.grid.data,
        s.grid.score.extractor,
        s.grid.score.samples,
        cache,
        weights,
        device=device,
        log=log,
    )
    for run in chosen:
        array = Array(array_of(s, run))
        threads = int(s.rows[run.id]["threads"] or 1)
        job = Job(
            runs=array.runs,
            score=s.grid.score,
            images=file,
            cache=cache,
            weights=weights,
            cap=(s.environment.get("cap") or {}).get("fd"),
            device=device,
            threads=threads,
        )
        slots = Slots(share([device], 1, threads), time_limit, lambda news: None, log)
        result = next(slots.results([array], lambda array, slot, job=job: job))[1]
        made = {key: cell(v) for r in result.rows if r["run"] == run.id for key, v in r.items()}
        yield judge(s, run, made, len(chosen))


def sample(s: Subject, count: int, seed: int) -> list[Run]:
    """Return `count` planned runs that have a row, drawn by `seed`, spread over the arms as evenly as they go."""
    draw = random.Random(seed)
    arms: dict[str, list[Run]] = {}
    for run in s.planned.values():
        if run.id in s.rows and s.rows[run.id]["status"] not in MACHINE_FAILURES:
            arms.setdefault(run.arm, []).append(run)
    turns = [draw.sample(runs, len(runs)) for runs in draw.sample(list(arms.values()), len(arms))]
    longest = max(map(len, turns), default=0)
    return [own[i] for i in range(longest) for own in turns if i < len(own)][:count]


def array_of(s: Subject, run: Run) -> tuple[Run, ...]:
    """Return the array that the row was trained in, as near as it can be known: its size is a column of the row.

    The plan is cut as `bench run` cuts it, by sizes until this run's array has the right one (the place of a run in its
    array decides the last bits too); where none gives that, the run and its followers in the plan.
    """
    size = int(s.rows[run.id]["runs_per_array"] or 1)
    same = [other for other in s.planned.values() if other.program == run.program]
    measured = (s.environment.get("picked") or {}).get("runs_per_array") or {}
    for most in dict.fromkeys([*measured.values(), *range(size, len(same) + 1)]):
        cut = plan.arrays(same, lambda program, most=most: most)
        own = next(array.runs for array in cut if any(other.id == run.id for other in array.runs))
        if len(own) == size:
            return own
    at = next(i for i, other in enumerate(same) if other.id == run.id)
    return tuple((same[at:] + same[:at])[:size])


def judge(s: Subject, run: Run, made: dict[str, str], tests: int) -> Check:
    """Say whether a row that was made again is the row that is there."""
    row, name = s.rows[run.id], f"rerun {run.arm}:{run.seed}"
    other = [key for key in COMPARED if row.get(key, "") != made.get(key, "")]
    if not other:
        return Check(name, "ok", f"reproduces to the bit ({_told(row)})")
    if not set(other) - {*SCORES, "fid", "fd_best"} and all(
        _close(row.get(key), made.get(key)) for key in other
    ):
        # the training was the same; real images' statistics were summed by another number of threads
        return Check(
            name, "ok", f"reproduces to rounding ({_told(row)}; {', '.join(other)} differ by under 1e-9)"
        )
    told = f"not to the bit ({', '.join(other)}): {_told(row)}, now {_told(made)}"
    if "protocol" in other:
        return Check(
            name, "failed", f"{told}; scored under another protocol ({made.get('protocol') or 'none'})"
        )
    usual = {r["status"] for r in s.rows.values() if r["arm"] == row["arm"]}
    if made["status"] not in usual:
        return Check(name, "failed", f"{told}; no run of the arm has this status")
    if not (row["fd"] and made.get("fd")):
        return Check(name, "ok", f"{told}; the arm has runs of both kinds, and there is no score to compare")
    spread, freedom = _spread(s, run)
    if not freedom or not spread:
        return Check(name, "failed", f"{told}; too few seeds to tell whether that is chance")
    from scipy.stats import t

    apart = math.log(max(float(made["fd"]), TINY)) - math.log(max(float(row["fd"]), TINY))
    far = abs(apart) / (spread * math.sqrt(2))
    limit = float(t.ppf(1 - FALSE_ALARM / tests / 2, freedom))
    size = f"{math.expm1(apart):+.1%}, {far:.2g} of at most {limit:.2g} standard deviations between seeds"
    if far <= limit:
        return Check(name, "ok", f"reproduces statistically, {told}; {size}")
    return Check(name, "failed", f"does not reproduce, {told}; {size}")


def _close(a: str | None, b: str | None) -> bool:
    return bool(a and b) and math.isclose(float(a), float(b), rel_tol=ROUNDING)


def _told(row: dict[str, str]) -> str:
    score = f"fd {float(row['fd']):.6g}" if row.get("fd") else "no score"
    return score if row["status"] == "ok" else f"{row['status']}, {score}"


def _spread(s: Subject, run: Run) -> tuple[float, int]:
    """Return the standard deviation of log scores over seeds, and its degrees of freedom, without the run itself.

    Of its arm, where that has six other scores or more, else pooled over all arms of the grid.
    """
    runs = s.results.runs
    scored = runs[(runs["fd"] > 0) & (runs["run"] != run.id)]
    logs = np.log(scored["fd"].astype("float64")).groupby(scored["arm"], observed=True)
    count = logs.count()
    arm = s.rows[run.id]["arm"]
    if count.get(arm, 0) >= FEWEST_PAIRS:
        return float(logs.std()[arm]), int(count[arm]) - 1
    freedom = int((count - 1).sum())
    squares = float((logs.var().fillna(0) * (count - 1)).sum())
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)
