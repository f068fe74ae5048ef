"""What a child process does: train one array, score it at every point, return rows, curves and pictures."""

import io
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from bench import train
from bench.convolve import kernels
from bench.data import open_kept
from bench.detect import Limits, failed_since
from bench.extractors import INCEPTION
from bench.program import Program, Run
from bench.score import Scorer, make_scorer, rounded
from bench.spec import Score
from bench.streams import evaluation_labels, evaluation_latents
from bench.train import Snapshot
from bench.trick import make

tqdm.set_lock(threading.RLock())  # tqdm's own is a semaphore, which a killed child would leave behind

RAW = "raw"  # G's own weights
EVAL, TRAIN = "eval", "train"  # BatchNorm with its running statistics, with those of the batch
READOUT = f"{RAW}-{EVAL}"  # what runs.csv holds
TILES = (4, 8)  # rows and columns of a sample grid
# What torch's allocator, C++ and oneDNN say where memory is short. oneDNN says it of other lacks too; those come back
# from half the array, and in the end from one run.
SHORT = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a",
    "could not execute a",
)


@dataclass(frozen=True)
class Job:
    """An array with everything a child process needs to know; it is sent by pickle."""

    runs: tuple[Run, ...]
    score: Score
    images: Path  # the data set as one tensor file
    cache: Path
    weights: Path | None
    cap: float | None
    device: str
    threads: int
    framed: frozenset[str] = frozenset()  # runs whose samples are kept at every point
    keep: bool = False
    stamps: dict[str, dict[str, str]] = field(default_factory=dict)  # by run: columns the parent knows


@dataclass
class Result:
    """What comes back: rows and curves of runs.csv and curves.csv, PNG files by name, generators by run, tracebacks by
    run."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: list[tuple] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    generators: dict[str, bytes] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)


def serve(pipe: Connection, job: Job) -> None:
    """Be the child: do the job, send ("point", ...) and ("say", line), then ("done", Result) or ("error", kind, line,
    traceback)."""
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    settle(job.device, job.threads)
    try:
        hear = (lambda *news: pipe.send(("point", *news)), lambda line: pipe.send(("say", line)))
        pipe.send(("done", do(job, *hear)))
    except BaseException as error:  # whatever it is, it must cost this array only
        pipe.send(("error", *failure(error), traceback.format_exc()))
    pipe.close()


def failure(error: BaseException) -> tuple[str, str]:
    """Return the kind of an error, memory or error, and a line for people."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(said in str(error) for said in SHORT):
        return "memory", line if "memory" in line.lower() else f"{line}, probably for want of memory"
    return "error", line


def settle(device: str, threads: int) -> None:
    """Make this process one that trains."""
    torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")  # NumPy's: it listens to nothing else once it is loaded
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    # Moments below 1e-38, as a G that learns nothing has them, make Adam's square root thirty times slower; taken as
    # 0 they give the same step, since Adam adds 1e-8 to the root.
    torch.set_flush_denormal(True)


def _end_with_parent(pipe: Connection) -> None:
    """Leave when the parent is gone: its end of the pipe closes even if it was killed."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


def do(
    job: Job,
    tell: Callable[..., None] = lambda *news: None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Train and score an array; `tell(fraction, {run id: distance})` is called at every point of the budget.

    `say` hears, in a line, of a fallback to something slower.
    """
    if job.device.startswith("cuda") and not kernels():
        say(
            "no Triton, or no C compiler for it: an array's convolutions are slow, as cuDNN takes its runs in turn"
        )
    if not job.device.startswith("cuda") and not torch.backends.mkldnn.is_available():
        say("this torch has no oneDNN: convolutions are slow, and bfloat16 slower still")
    images = open_kept(job.images)
    scorer = make_scorer(
        images,
        job.runs[0].data,
        job.score.extractor,
        job.score.samples,
        job.cache,
        job.weights,
        device=job.device,
    )
    program, result = job.runs[0].program, Result()
    wide, labels = evaluation(program, [run.seed for run in job.runs], job.score.samples, images.train_labels)
    readouts = [make(name, dict(values)) for name, values in job.score.readouts]
    total = program.steps(len(images.train))
    history: list[list[tuple[int, float]]] = [[] for _ in job.runs]
    states: list[list[tuple[int, bool]]] = [[] for _ in job.runs]  # whether it had failed, at every point
    outcomes: list[dict[str, Any]] = []
    training = scoring = 0.0
    mark = time.perf_counter()
    of = images.train_labels if program.labelled else None
    for shot in train.train(
        program,
        job.runs,
        images.train,
        job.device,
        say=say,
        labels=of,
        readouts=readouts,
        held_out=(images.held_out, images.held_out_labels),
    ):
        training, mark = training + time.perf_counter() - mark, time.perf_counter()
        last = shot.step == total
        fakes, finite = sampled(program, shot, wide, labels=labels)
        outcomes = []
        for r, run in enumerate(job.runs):
            if finite[r] and shot.broken[r] is None:
                found = scorer.score(fakes[r], job.score.metrics)
                history[r].append((shot.images, found["fd"]))
                found |= scorer.figures(fakes[r], None if labels is None else labels[:, r], symptoms=last)
                result.curves += [
                    (run.id, shot.images, READOUT, key, job.score.samples, value)
                    for key, value in found.items()
                ]
                lost = [(images_shown, float(loss_d[r])) for images_shown, loss_d, _ in shot.losses]
                curves = probed(shot, r) | {"fd": history[r], "loss_d": lost}
                outcomes.append(judged(scorer, found, curves, job.cap, job.score.limits))
                states[r].append((shot.images, outcomes[r]["status"] != "ok"))
            else:
                broken = shot.broken[r]
                where = f"step {broken}" if broken is not None else f"{shot.images} images"
                what = "a loss was" if broken is not None else "samples were"
                reason = f"{what} not finite at {where}"
                outcomes.append({"status": "diverged", "reason": reason, "detectors": "nan"})
                at = shot.images if broken is None else (broken + 1) * program.batch_size
                states[r].append((at, True))
            if run.id in job.framed:
                result.pictures[f"{run.id}/{shot.images}.png"] = tiled(fakes[r])
        if last:
            result.curves += _other_readouts(job, program, shot, scorer, wide, labels)
        scoring, mark = scoring + time.perf_counter() - mark, time.perf_counter()
        tell(shot.step / total, {run.id: h[-1][1] for run, h in zip(job.runs, history, strict=True) if h})
    count = len(job.runs)
    nets = program.nets
    for r, run in enumerate(job.runs):
        for images_shown, loss_d, loss_g in shot.losses:
            result.curves += [(run.id, images_shown, None, "loss_d", None, float(loss_d[r]))]
            result.curves += [(run.id, images_shown, None, "loss_g", None, float(loss_g[r]))]
        for key, curve in probed(shot, r).items():
            result.curves += [(run.id, images_shown, None, key, None, value) for images_shown, value in curve]
        result.pictures[f"{run.id}.png"] = tiled(fakes[r])
        if job.keep:
            result.generators[run.id] = kept(shot, r, count)
        result.rows.append(
            {
                **outcomes[r],
                "images": shot.images,
                "steps": shot.step,
                "fd_best": min((fd for _, fd in history[r]), default=None),
                "failed_at": failed_since(states[r]),
                "extractor": job.score.extractor,
                "samples": job.score.samples,
                "protocol": scorer.protocol_id,
                "runs_per_array": count,
                "train_seconds": round(training / count, 3),
                "score_seconds": round(scoring / count, 3),
                "peak_memory_mb": peak_memory_mb(job.device),
                "probes": len(shot.probes),
                "probe_images": shot.probe_images,
                "parameters": nets.g.size() + nets.d.size(),
                "multiply_adds": nets.g.multiply_adds() + nets.d.multiply_adds(),
                "threads": job.threads,
                "mode": shot.mode,
            }
            | stamp(run)
            | job.stamps.get(run.id, {})
        )
    # Curves are numbers: a loss that was not finite is left out, the row says where it happened.
    result.curves = [line for line in result.curves if np.isfinite(line[-1])]
    return result


def stamp(run: Run) -> dict[str, Any]:
    """Return the columns of a row that follow from the run itself."""
    settings = {f"{t.name()}.{key}": value for t in run.tricks for key, value in t.values.items()}
    return {"run": run.id, "arm": run.arm, "seed": run.seed, "dtype": run.dtype} | settings


def judged(
    scorer: Scorer,
    found: dict[str, float],
    curves: dict[str, list[tuple[float, float]]],
    cap: float | None,
    limits: tuple[tuple[str, float], ...],
) -> dict[str, Any]:
    """Return scores, status, reason and detectors of a run whose last samples are finite."""
    status, reason, detectors = scorer.detect(found, curves, cap, Limits(**dict(limits)))
    scores = {key: found[key] for key in ("fd", "is", "kid", "precision", "recall") if key in found}
    fid = {"fid": found["fd"]} if scorer.protocol["extractor"] == INCEPTION else {}
    return {"status": status, "reason": reason, "detectors": ";".join(detectors)} | scores | fid


def probed(shot: Snapshot, r: int) -> dict[str, list[tuple[float, float]]]:
    """Return run `r`'s curve of every figure that was asked along training; one that is not finite is left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for images, figures in shot.probes:
        for key, values in figures.items():
            if np.isfinite(value := float(values[r])):
                # Six digits are more than a symptom needs, and half the file.
                curves.setdefault(key, []).append((images, float(f"{value:.6g}")))
    return curves


def evaluation(
    program: Program, seeds: Sequence[int], count: int, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the latents (count, R, length), and where wanted the labels (count, R), at which generators are scored."""
    latents = [evaluation_latents(seed, count)[:, : program.noise_length] for seed in seeds]
    of = None
    if program.labelled and labels is not None:
        of = torch.stack([evaluation_labels(seed, count, labels) for seed in seeds], 1)
    return torch.stack(latents, 1), of


def _other_readouts(
    job: Job, program: Program, shot: Snapshot, scorer: Scorer, latents: Tensor, labels: Tensor | None
) -> list[tuple]:
    """Return lines of curves.csv: the distance of every run at its end, sampled in the ways that runs.csv does not
    hold.

    With statistics of the batch, a batch is as large as those of the training.
    """
    modes = [EVAL, TRAIN] if any(layer.for_sampling for layer in program.nets.g.layers) else [EVAL]
    lines = []
    for name, (parameters, statistics) in ({RAW: (shot.parameters, shot.statistics)} | shot.readouts).items():
        for mode in modes:
            if f"{name}-{mode}" == READOUT:
                continue
            so = replace(shot, parameters=parameters, statistics=statistics)
            fakes, finite = sampled(program, so, latents, mode == TRAIN, labels)
            for r, run in enumerate(job.runs):
                if finite[r] and shot.broken[r] is None:
                    value = scorer.score(fakes[r], ["fid"])["fd"]
                    lines.append((run.id, shot.images, f"{name}-{mode}", "fd", job.score.samples, value))
    return lines


def sampled(
    program: Program, shot: Snapshot, latents: Tensor, batch: bool = False, labels: Tensor | None = None
) -> tuple[Tensor, list[bool]]:
    """Return uint8 samples (R, n, C, H, W) of each run's G at latents (n, R, length), and whether they are
    finite; with `batch`, BatchNorm takes the statistics of batches as large as those of the training."""
    parts, finite = [], torch.ones(latents.shape[1], dtype=torch.bool)
    chunk = train.CHUNK if shot.parameters.device.type == "cpu" else train.GPU_CHUNK
    if batch:  # whole batches, some hundred images at once
        chunk = max(1, 512 // program.batch_size) * program.batch_size
    cuts = max(1, len(latents) // chunk if batch else -(-len(latents) // chunk))
    given = labels.tensor_split(cuts) if labels is not None else [None] * cuts
    for z, of in zip(latents.tensor_split(cuts), given, strict=True):
        at = {"train": batch, "chunk": program.batch_size if batch else chunk, "labels": of}
        made = train.sample(program.nets.g, shot.parameters, shot.statistics, z, **at)
        fine = made.sum((0, 2, 3, 4)).isfinite().cpu()  # one pass; a sum of pixels does not overflow
        parts.append(rounded(made if fine.all() else made.nan_to_num(0, 1, -1)).cpu())
        finite &= fine
    return torch.cat(parts).transpose(0, 1).contiguous(), finite.tolist()


def tiled(images: Tensor) -> bytes:
    """Return the first images (n, C, H, W) uint8 as one PNG of 4 rows and 8 columns."""
    rows, columns = TILES
    n, c, h, w = images.shape
    some = torch.zeros(rows * columns, c, h, w, dtype=torch.uint8)
    some[: min(n, len(some))] = images[: len(some)]
    sheet = some.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return png(sheet)


def png(picture: Tensor) -> bytes:
    """Return a picture (H, W, C) uint8, grey or colour, as PNG bytes."""
    file = io.BytesIO()
    Image.fromarray(picture.squeeze(-1).numpy() if picture.shape[-1] == 1 else picture.numpy()).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def kept(shot: Snapshot, r: int, runs: int) -> bytes:
    """Return run `r`'s generator as safetensors: its parameters (P,) and running statistics by layer."""
    tensors = {"parameters": shot.parameters[r].contiguous()}
    for layer, own in shot.statistics.items():
        for key, value in own.items():
            tensors[f"{layer}.{key}"] = value.unflatten(0, (runs, -1))[r].contiguous()
    return to_safetensors({name: tensor.cpu() for name, tensor in tensors.items()})


def peak_memory_mb(device: str) -> int:
    """Return the most memory this process (on a GPU: its tensors there) ever held, in MB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() // 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used // (2**20 if sys.platform == "darwin" else 2**10)
