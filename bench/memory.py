"""How much memory an array will take, from its shapes, before it starts."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.program import Program

if TYPE_CHECKING:  # it imports torch
    from bench.networks import Network

MB = 2**20
LIBRARIES = 60  # MB that the first step and the first score load and compile
STATES = 11  # parameters, two moments, gradients, the next ones of each, and what Adam makes in between
MAPS = 1.2  # of every map that is kept for the backward passes
CHUNK = 128  # latents that a core samples at once (bench.train, which imports torch)
DISTANCES = 8 * 500  # rows of samples float32 each, that precision and recall hold: blocks of 500


def predict_mb(program: Program, runs: int, samples: int, base: float) -> float:
    """Return the peak in MB of a process that trains and scores an array of `runs`; `base` is what it held before.

    The factors were fitted to eight CPU processes at 16 pixels, of 16 to 256 channels; tests hold it to 20 %. On a GPU
    ten arrays of results/seven-tricks took .77 to 1.10 of it; one with noise of a whole image for each took 1.5 times
    as much, since draws for 32 steps lie there.
    """
    nets, width = program.nets, 2 if program.dtype == "bfloat16" else 8 if program.dtype == "float64" else 4
    held = 8 if program.dtype == "float64" else 4
    states = STATES * (nets.g.size() + nets.d.size()) * held
    d, g = maps(nets.d), maps(nets.g)
    kept = MAPS * (2 * sum(d) + sum(g)) * program.batch_size * width
    sampled = 1.5 * max(g) * CHUNK * width
    fakes = 2 * samples * g[-1]
    scored = DISTANCES * samples * 4
    return base + LIBRARIES + (runs * (states + kept + sampled + fakes) + scored) / MB


def maps(net: "Network") -> list[int]:
    """Return how many numbers each layer makes of one image."""
    shape, sizes = net.shape, []
    for layer in net.layers:
        shape = layer.output(shape)
        sizes.append(shape[0] * shape[1] * shape[2])
    return sizes


def resident_mb() -> float:
    """Return what this process holds in memory now, in MB."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB
    from bench.worker import peak_memory_mb  # no such file on macOS: the most it ever held

    return peak_memory_mb("cpu")


def available_mb(device: str) -> float:
    """Return the memory that is free for arrays on a device, in MB; on a CPU no more than its control groups leave."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0] / MB
    lines = Path("/proc/meminfo")
    if lines.exists():
        found = dict(line.split(":") for line in lines.read_text().splitlines())
        return min(int(found["MemAvailable"].split()[0]) / 1024, cgroup_mb())
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MB / 2


def cgroup_mb(root: Path = Path("/")) -> float:
    """Return the memory in MB that a container or a batch system leaves to this process; infinite without a limit.

    A control group's limit holds for those inside it, so the least of the groups above counts. Pages of files that
    nobody has used lately are free: the kernel drops them first. Source: Linux, cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    kinds = {  # mount, limit, usage, and the line of memory.stat that holds those pages
        "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        "memory": (
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }
    left = math.inf
    try:
        own = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return left
    for line in own:
        _, names, path = line.split(":", 2)
        if not (kind := kinds.get("memory" if "memory" in names.split(",") else names)):
            continue
        top, *files, idle = root / kind[0], *kind[1:]
        group = top / path.lstrip("/")
        # Inside a container the path may be that outside it, where no such folder is: then the mount is the group.
        for folder in [g for g in (group, *group.parents) if g.is_relative_to(top)]:
            try:
                limit, used = ((folder / name).read_text().strip() for name in files)
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                left = min(left, (int(limit) - int(used) + int(stat.get(idle, 0))) / MB)
            except (OSError, ValueError):  # no such file; "max"
                continue
    return max(left, 0.0)
