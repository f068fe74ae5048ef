"""What the pixels, the predicted classes and the features of a set of images show, as plain numbers."""

from dataclasses import dataclass
from math import isfinite, nan

import torch
from torch import Tensor

from bench.products import packed, product

PRESENT = 0.1  # a class is there if it has this much of its real share
BATCHES = 5  # of duplicates: in how many of them


@dataclass(frozen=True)
class Looks:
    """What a set of images looks like, pixels in [-1, 1].

    flat: mean over images of the standard deviation within an image; saturated: share of pixels beyond ±0.99;
    spread: root mean square over pixels of the standard deviation over images; shares (K,): of predicted
    classes, empty where no classifier of this data is at hand; nearest: the smallest distance in feature space
    between two of some hundred images (`nearest_pairs`), 0 where not measured; within: like spread, but over the
    images of one class, NaN where the classes are not known.
    """

    flat: float
    saturated: float
    spread: float
    shares: Tensor
    nearest: float = 0.0
    within: float = nan


def look(
    images: Tensor, counts: Tensor | None = None, labels: Tensor | None = None, most: int = 1_000
) -> Looks:
    """Describe uint8 images (n, C, H, W) by at most `most` of them; counts (K,): predicted classes of all; labels (n,):
    the class each image is of, or was asked for."""
    every = -(-len(images) // most)
    some = images[::every].flatten(1).float() / 127.5 - 1
    shares = torch.zeros(0) if counts is None else counts / counts.sum()
    return Looks(
        flat=_variance(some, 1).sqrt().mean().item(),
        saturated=(some.abs() > 0.99).float().mean().item(),
        spread=_variance(some, 0).mean().sqrt().item(),
        shares=shares,
        within=nan if labels is None else _within(some, labels[::every]),
    )


def _variance(rows: Tensor, axis: int) -> Tensor:
    """Return the variance along an axis; Tensor.var takes some fifteen times as long on a core."""
    return (rows - rows.mean(axis, keepdim=True)).square_().mean(axis)


def _within(rows: Tensor, labels: Tensor) -> float:
    """Return the root mean square of what is left of rows (n, D) after taking away the mean of each one's class."""
    belongs = (labels[:, None] == labels.unique()).float()
    means = (belongs.T @ rows) / belongs.sum(0)[:, None]
    return (rows - belongs @ means).square().mean().sqrt().item()


def figures(
    fake: Looks,
    real: Looks,
    fake_features: Tensor | None = None,
    known: Tensor | None = None,
    apart: float = 0.0,
    variance: float = 0.0,
) -> dict[str, float]:
    """Return what bench.detect judges samples by: each figure by name.

    flat, saturated: as in `Looks`; saturated_real: of the real images; spread: in units of the real one; classes,
    classes_real: how many real classes the fakes have, of how many; kl: divergence of their shares, nat;
    within: like spread, over images asked for of one class; pairs: root mean square distance of two of `fake_features`
    (n, D), in units of that of two real ones, whose `variance` is the sum over D; duplicates: in how many of five
    batches of them two images lie nearer than any two real ones do; nearest_trained: how far the fakes lie from the
    training images, features `known` (N, D), in units of `apart`, how far held-out images do (`to_nearest`).
    """
    found = {
        "flat": fake.flat,
        "saturated": fake.saturated,
        "saturated_real": real.saturated,
        "spread": fake.spread / max(real.spread, 1e-12),
    }
    if len(real.shares):
        present, wanted, divergence = class_shift(real.shares, fake.shares)
        found |= {"classes": float(present), "classes_real": float(wanted), "kl": divergence}
    if fake_features is not None and variance > 0:
        count = len(fake_features)
        own = _variance(fake_features.double(), 0).sum() * count / (count - 1)
        found["pairs"] = (own / variance).sqrt().item()
    if fake_features is not None and real.nearest:
        found["duplicates"] = float((nearest_pairs(fake_features) < real.nearest).sum())
    if isfinite(fake.within) and real.within > 0:
        found["within"] = fake.within / real.within
    if fake_features is not None and known is not None and apart > 0:
        found["nearest_trained"] = to_nearest(fake_features, known) / apart
    return found


def class_shift(real: Tensor, fake: Tensor) -> tuple[int, int, float]:
    """Return how many real classes are present among the fakes, of how many, and KL(fakes || real) in nat.

    real, fake: shares (K,). A class that real images hardly have (a tenth of an equal share) is not missed.
    """
    wanted = real > 0.1 / len(real)
    present = (fake >= PRESENT * real) & (fake > 0) & wanted
    floor = (real + 1e-4) / (real + 1e-4).sum()  # a class never seen in real images costs 9 nat, not infinity
    divergence = torch.where(fake > 0, fake * (fake.clamp(min=1e-12) / floor).log(), 0.0).sum().item()
    return int(present.sum()), int(wanted.sum()), divergence


def nearest_pairs(features: Tensor, most: int = 500) -> Tensor:
    """Return the smallest distance between two images in each of five batches of features (n, D), `most` a batch.

    How near the nearest two of a batch lie tells how many different images there are (Arora & Zhang 2017, 1706.08224).
    """
    size = min(most, len(features) // BATCHES)
    if size < 2:
        return torch.full((BATCHES,), torch.inf)
    found = []
    for part in features[: size * BATCHES].split(size):
        near, far = halves(part)
        found.append(product(near, packed(far)).fill_diagonal_(torch.inf).min())
    return torch.stack(found).clamp(min=0).sqrt()


def to_nearest(features: Tensor, known: Tensor, block: int = 500) -> float:
    """Return the distance from one of features (n, D) to the nearest of known (N, D), median over the n."""
    far = packed(halves(known)[1])
    parts = [product(part, far).amin(1) for part in halves(features)[0].split(block)]
    return torch.cat(parts).clamp(min=0).sqrt().median().item()


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors (n, D + 2) of rows (n, D): products of the first of x and the second of y are |x - y|^2."""
    squares, ones = rows.square().sum(1, keepdim=True), torch.ones(len(rows), 1)
    return torch.cat([-2 * rows, squares, ones], 1), torch.cat([rows, ones, squares], 1)
