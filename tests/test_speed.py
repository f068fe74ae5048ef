"""The default grid's training against the plain loop, in one interleaved measurement on one thread."""

import re
import statistics
import time

import plain
import pytest
import torch

from bench import grid as grids
from bench import plan, train

STEPS = 40


@pytest.mark.slow
def test_an_array_of_the_default_grid_trains_faster_than_the_plain_loop(capsys):
    text = re.sub(r"budget: .*", f"budget: {{steps: {STEPS}}}", grids.locate("digits").read_text())
    grid = grids.read(text, "digits")
    assert grid.budget.amount == STEPS
    array = plan.arrays(plan.runs(grid), lambda program: plan.suggested(program, "cpu"))[0]
    pictures = torch.randint(0, 256, (1618, 1, 16, 16), dtype=torch.uint8)

    def ours() -> float:
        start = time.perf_counter()
        list(train.train(array.program, array.runs, pictures))
        return STEPS * len(array.runs) / (time.perf_counter() - start)

    def theirs() -> float:
        d, g = plain.networks(16, 1, grid.recipe.channels, 100)
        start = time.perf_counter()

        def batches():
            for _ in range(STEPS):
                chosen = torch.randint(0, len(pictures), (64,))
                yield pictures[chosen].float().div_(127.5).sub_(1), torch.randn(64, 100)

        plain.train(d, g, list(batches()))
        return STEPS / (time.perf_counter() - start)

    rounds = [(ours(), theirs()) for _ in range(6)][1:]
    ratios = sorted(a / b for a, b in rounds)
    with capsys.disabled():
        print(
            f"\nrun-steps/s on one thread, median of 5: array of {len(array.runs)} "
            f"{statistics.median(a for a, _ in rounds):.0f}, plain loop {statistics.median(b for _, b in rounds):.0f}; "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    assert statistics.median(ratios) > 1
