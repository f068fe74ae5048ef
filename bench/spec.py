"""What a run is made of besides tricks and recipe: which images, how long, how scored."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSpec:
    """Which images: a set, their side in pixels, the classes to keep (all where empty), and a folder's
    path."""

    set: str
    size: int
    classes: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True)
class Budget:
    """How long every run trains: `amount` of real images shown to D, of steps, or of epochs."""

    unit: str
    amount: float

    def steps(self, batch: int, images: int) -> int:
        """Return the number of adversarial steps at this batch size on a set of `images`."""
        per_unit = {"images": 1 / batch, "steps": 1.0, "epochs": images / batch}[self.unit]
        return max(1, round(self.amount * per_unit))


@dataclass(frozen=True)
class Score:
    """How runs are scored: extractor, fakes per score, metrics, and the fractions of the budget where."""

    extractor: str
    samples: int
    points: tuple[float, ...]
    metrics: tuple[str, ...]
