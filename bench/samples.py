"""Pictures from a kept generator, so that anybody can score a run with another tool."""

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench import plan, worker
from bench.data import load
from bench.errors import Refused, nearest
from bench.program import Run
from bench.tiny import of_results
from bench.train import Snapshot


def write(results: Path, run: str, count: int, out: Path, kept: Path) -> int:
    """Write `count` PNG files of the run called `run` (an id, or ARM:SEED) into `out`; return how many.

    Pictures are made in the order of the evaluation latents, with BatchNorm's running statistics: the first
    ones are those that the run was scored on. Raises `Refused` where the run or its generator is not there.
    """
    if not (results / "grid.yaml").is_file():
        raise Refused(f"{results}: no results here (no grid.yaml); run `bench run` first")
    planned = plan.runs(of_results(results))
    names: dict[str, Run] = {r.id: r for r in planned} | {f"{r.arm}:{r.seed}": r for r in planned}
    if run not in names:
        raise Refused(f"{run}: no such run in {results}{nearest(run, names)}; give a run id, or ARM:SEED")
    chosen = names[run]
    path = kept / results.name / f"{chosen.id}.safetensors"
    if not path.is_file():
        raise Refused(f"{path}: no generator was kept; `bench run --keep` keeps those of the runs it makes")
    of = load(chosen.data).train_labels if chosen.program.labelled else None
    pictures = _pictures(path, chosen, count, of)
    if pictures is None:
        raise Refused(f"{run}: its generator diverged; its samples are not finite")
    out.mkdir(parents=True, exist_ok=True)
    digits = max(5, math.ceil(math.log10(count + 1)))
    for i, picture in enumerate(pictures):
        (out / f"{i:0{digits}}.png").write_bytes(worker.png(picture.permute(1, 2, 0)))
    return count


def _pictures(path: Path, run: Run, count: int, labels: Tensor | None) -> Tensor | None:
    """Return uint8 samples (count, C, H, W) of a kept generator at its seed's latents; None where one is not finite."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise Refused(f"{path}: not a whole safetensors file: {error}") from None
    running: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer, _, key = name.rpartition(".")
        if layer:
            running.setdefault(layer, {})[key] = tensor
    shot = Snapshot(0, 0, tensors["parameters"][None], running, (), (None,))
    z, of = worker.evaluation(run.program, [run.seed], count, labels)
    pictures, finite = worker.sampled(run.program, shot, z, labels=of)
    return pictures[0] if finite[0] else None
