"""`--scale tiny`: a grid so small that every arm trains in seconds; it tests grid and harness, no trick."""

import os
from dataclasses import replace
from pathlib import Path

from bench import trick as tricks_
from bench.data import SETS
from bench.errors import Refused
from bench.grid import Arm, Grid, load
from bench.progress import Log
from bench.spec import Budget, DataSpec

SUFFIX = "-tiny"
SET = "digits"  # comes embedded
SEEDS, STEPS, SAMPLES, POINTS = 2, 6, 32, (0.5, 1.0)
RECIPE = {"channels": 4, "batch_size": 4, "noise_length": 8}
CLASSIFIER_STEPS = 10  # its features only need to differ from picture to picture


def tiny(grid: Grid) -> Grid:
    """Return the grid with all its arms and its pixels, but digits, small nets, few steps, two seeds and few samples.

    The tricks keep their values, save those that the grid's section `tiny` multiplies: a grid knows which of its dials
    count steps, and how they should shrink with the budget.
    """
    count = len(grid.data.classes)
    data = DataSpec(SET, grid.data.size, SETS[SET].class_names[:count])
    small = {name: min(value, getattr(grid.recipe, name)) for name, value in RECIPE.items()}
    recipe = replace(grid.recipe, **small)
    return replace(
        grid,
        name=f"{grid.name}{SUFFIX}",
        data=data,
        recipe=recipe,
        arms=tuple(_shrunk(grid, arm) for arm in grid.arms),
        seeds=grid.seeds[:SEEDS],
        looks=(),
        budget=Budget("images", STEPS * recipe.batch_size),
        score=replace(grid.score, extractor="classifier", samples=SAMPLES, points=POINTS),
        text=f"# {told(grid)}\n{grid.text}",
    )


def of_results(folder: Path) -> Grid:
    """Return the grid whose results a folder holds: its grid.yaml, at the scale that the folder's name tells."""
    grid = load(str(folder / "grid.yaml"))
    return tiny(grid) if folder.resolve().name == f"{grid.name}{SUFFIX}" else grid


def told(grid: Grid) -> str:
    """Return the sentence that nobody should miss."""
    return (
        f"--scale tiny is NOT the experiment of {grid.name}: {SEEDS} seeds, {STEPS} steps, "
        f"{RECIPE['channels']} channels, on {SET}; it shows that every arm runs, its scores mean nothing"
    )


def classifier(grid: Grid, cache: Path, log: Log) -> Path | None:
    """Return a classifier's weights for the tiny grid, hastily trained and kept; None where the package has some."""
    name = f"{grid.data.set}-{grid.data.size}.safetensors"
    if (Path(__file__).parent / "weights" / name).is_file():
        return None
    kept = cache / f"classifier{SUFFIX}-{name}"
    if not kept.is_file():
        log(
            f"score: training a hasty classifier of {grid.data.set} at {grid.data.size} pixels, once ({kept})"
        )
        from safetensors.torch import save_file

        from bench.data import load as load_images
        from bench.train_classifier import train

        images = load_images(replace(grid.data, classes=()))
        weights, _ = train(images, mirror=False, steps=CLASSIFIER_STEPS)
        cache.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
        save_file(weights, fresh)
        os.replace(fresh, kept)
    return kept


def _shrunk(grid: Grid, arm: Arm) -> Arm:
    made = []
    for trick in arm.tricks:
        factors = grid.tiny.get(trick.name(), {})
        values = trick.values | {key: trick.values[key] * factor for key, factor in factors.items()}
        try:
            made.append(tricks_.make(trick.name(), values))
        except Refused as refused:
            raise Refused(f"{grid.at(f'tiny.{trick.name()}')}: {refused}") from None
    return replace(arm, tricks=tuple(made))
