"""Shared by all tests: one thread, and a tiny grid on random pictures."""

import os

import pytest
import torch

from bench import grid as grids

torch.set_num_threads(1)
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # as processes that train have it (bench.children.environment)
if not torch.cuda.is_available():  # kernels for a GPU are interpreted; Triton asks when it is first imported
    os.environ["TRITON_INTERPRET"] = "1"

LONG = (
    "test_grids.py",
    "test_faults.py",
    "test_cluster.py",
)  # minutes each: begun last, one core would wait for another

TINY = """
name: tiny
data: digits
recipe: {{channels: 4, batch_size: 8, noise_length: 8}}
tricks: {{{tricks}}}
design: {design}
seeds: {seeds}
budget: {{steps: {steps}}}
dtype: float64
"""


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (40, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


@pytest.fixture
def tiny():
    """A function that reads a small float64 grid: `tiny("label_smoothing: 0.9", seeds=2)`."""

    def read(
        tricks: str = "placebo:", seeds: int = 2, steps: int = 20, design: str = "one-at-a-time"
    ) -> grids.Grid:
        return grids.read(TINY.format(tricks=tricks, seeds=seeds, steps=steps, design=design), "tiny.yaml")

    return read


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; pytest-xdist gives them out in this order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
