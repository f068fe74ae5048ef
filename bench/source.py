"""What can change a row's numbers, as short digests: the code, and the machine."""

import ast
import hashlib
import inspect
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.program import Run
from bench.trick import find

NUMERIC = (
    "convolve", "data", "detect", "engine", "extractors", "inception", "kernels", "layers", "lift", "looks",
    "networks", "norms", "probe", "products", "program", "recipe", "schedule", "score", "spec", "step", "streams",
    "tape", "train", "trick", "worker",
)  # fmt: skip


@cache
def _code(path: Path) -> str:
    """Return what a module's code says, without comments, docstrings and layout: the same in every Python version."""
    return _said(ast.parse(path.read_text(encoding="utf-8")))


def _said(node: Any) -> str:
    """Return a tree of code as text; what is empty is left out, since later versions of Python know more of it."""
    if isinstance(node, list):
        return f"[{' '.join(map(_said, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [node.__class__.__name__]
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and value and _is_text(value[0]):
            value = value[1:]
        if value is not None and value != []:
            parts.append(f"{name}={_said(value)}")
    return f"({' '.join(parts)})"


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digest(run: Run, readouts: tuple[str, ...]) -> str:
    """Return 12 hex digits over the code that can change this run's row: bench's numeric modules, its tricks and
    the read-outs it is scored with."""
    names = {*(trick.name() for trick in run.tricks), *readouts}
    return code(tuple(sorted(Path(inspect.getfile(find(name))) for name in names)))


@cache
def code(others: tuple[Path, ...] = ()) -> str:
    """Return 12 hex digits over bench's numeric modules and other files."""
    modules = [Path(__file__).with_name(f"{name}.py") for name in NUMERIC]
    text = "\0".join(_code(path) for path in [*modules, *others])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parts(tricks: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Return 12 hex digits over the code of each of bench's numeric modules, of `others` of bench, and of tricks."""
    paths = {f"bench/{name}.py": Path(__file__).with_name(f"{name}.py") for name in (*NUMERIC, *others)}
    paths |= {f"tricks/{name}.py": Path(inspect.getfile(find(name))) for name in tricks}
    return {name: hashlib.sha256(_code(path).encode()).hexdigest()[:12] for name, path in paths.items()}


def environment(device: str) -> dict[str, Any]:
    """Return the machine and the versions that a row was made with."""
    import torch

    cuda = device.startswith("cuda")
    commit, dirty = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "bench", "tricks")
    return {
        "git_commit": commit or None,
        "git_dirty": None if commit is None else bool(dirty),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "torch_fidelity": version("torch-fidelity"),
        "numpy": version("numpy"),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def short_hash(value: Any) -> str:
    """Return 8 hex digits over the canonical JSON of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _processor() -> str:
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = ()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*words: str) -> str | None:
    """Return what git says of this checkout, or None outside one."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
