"""What a run is made of besides tricks and recipe: which images, how long, how scored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import Refused, nearest

IS_SPLITS = 10
FEWEST = {
    "fid": 16,
    "is": 2 * IS_SPLITS,
    "kid": 16,
    "precision": 16,
    "recall": 16,
}  # below: numbers without meaning


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
    """How runs are scored: extractor, fakes per score, metrics, and the fractions of the budget where.

    readouts: tricks that change how G is sampled, with their values: each run is scored with each of them at its end.
    limits: of the failure detectors (bench.detect), those that are not the usual ones.
    """

    extractor: str
    samples: int
    points: tuple[float, ...]
    metrics: tuple[str, ...]
    readouts: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    limits: tuple[tuple[str, float], ...] = ()


def check_samples(metrics: Sequence[str], samples: int, real: int | None = None) -> None:
    """Refuse unknown metrics, and those that `samples` fakes (or `real` images) are too few for."""
    for metric in metrics:
        if metric not in FEWEST:
            raise Refused(
                f'score: unknown metric "{metric}"{nearest(metric, FEWEST)}; there are {", ".join(FEWEST)}'
            )
        for count, what in ((samples, "samples"), (real, "real images")):
            if count is not None and count < FEWEST[metric]:
                raise Refused(f"score: {count} {what} are too few for {metric}, which needs {FEWEST[metric]}")


def protocol_id(protocol: Mapping[str, str | int]) -> str:
    """Return the first 12 hex digits of the SHA-256 of the protocol's canonical JSON."""
    return hashlib.sha256(canonical(protocol).encode()).hexdigest()[:12]


def canonical(protocol: Mapping[str, str | int]) -> str:
    """Return a protocol as JSON of which there is one spelling."""
    return json.dumps(protocol, sort_keys=True, separators=(",", ":"))


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256: how a protocol names its weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
