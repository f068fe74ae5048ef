"""Which runs failed, judged by their last samples and by the distance along the budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """Where a detector fires; pixels are in [-1, 1], class frequencies are shares of all images."""

    flat: float = 0.01  # const: mean standard deviation of the pixels within an image
    saturated: float = 0.95  # const: share of pixels beyond ±0.99
    untrained: float = 0.7  # no_learn: final distance, in units of the untrained generator's
    present: float = 0.1  # collapse_class: a class is there if it has this much of its real share
    classes: float = 0.5  # collapse_class: this share of the classes, or fewer, is left
    divergence: float = 0.5  # collapse_class: KL divergence from the real class shares, nat
    partial: float = 0.1  # collapse_class_partial: the same divergence, or any class missing
    spread: float = 0.25  # collapse_pair: standard deviation of pixels over images, in units of the real one
    recall: float = 0.05  # collapse_prdc, which counts only beside another collapse
    worse: float = 1.5  # late_collapse: final distance, in units of the best
    late: float = 0.9  # late_collapse: the best came before this share of the budget


@dataclass(frozen=True)
class Looks:
    """What the pixels and the predicted classes of a set of images show.

    flat: mean over images of the standard deviation within an image; saturated: share of pixels beyond ±0.99;
    spread: root mean square over pixels of the standard deviation over images; shares (K,): of predicted
    classes, empty where no classifier of this data is at hand. Pixels are in [-1, 1].
    """

    flat: float
    saturated: float
    spread: float
    shares: Tensor


def look(images: Tensor, counts: Tensor | None = None, most: int = 1_000) -> Looks:
    """Describe uint8 images (n, C, H, W) by at most `most` of them; counts (K,): predicted classes of all."""
    some = images[:: -(-len(images) // most)].flatten(1).float() / 127.5 - 1
    shares = torch.zeros(0) if counts is None else counts / counts.sum()
    return Looks(
        flat=some.std(1, correction=0).mean().item(),
        saturated=(some.abs() > 0.99).float().mean().item(),
        spread=some.var(0, correction=0).mean().sqrt().item(),
        shares=shares,
    )


def class_shift(real: Tensor, fake: Tensor, limits: Limits = Limits()) -> tuple[int, int, float]:
    """Return how many real classes are present among the fakes, of how many, and KL(fakes || real) in nat.

    real, fake: shares (K,). A class that real images hardly have (a tenth of an equal share) is not missed.
    """
    wanted = real > 0.1 / len(real)
    present = (fake >= limits.present * real) & (fake > 0) & wanted
    floor = (real + 1e-4) / (real + 1e-4).sum()  # a class never seen in real images costs 9 nat, not infinity
    divergence = torch.where(fake > 0, fake * (fake.clamp(min=1e-12) / floor).log(), 0.0).sum().item()
    return int(present.sum()), int(wanted.sum()), divergence


def detect(
    fake: Looks,
    real: Looks,
    metrics: Mapping[str, float],
    history: Sequence[tuple[float, float]],
    cap: float | None,
    slack: float,
    limits: Limits = Limits(),
) -> tuple[str, str, tuple[str, ...]]:
    """Return the status of a finished run, the reason in words ("" where ok), and the codes that fired.

    metrics: the last scores (fd, recall where known). history: (images, fd) at every point of the budget, the
    last one included. cap: the untrained generator's distance. slack: how much worse than the best a distance
    must be, in its own units, to be called a late collapse.
    """
    fd = metrics.get("fd", float("nan"))
    found: dict[str, str] = {}  # code: why
    if fake.flat < limits.flat:
        found["const"] = f"images are flat: pixels within one vary by {fake.flat:.2g}"
    elif fake.saturated > max(limits.saturated, (1 + real.saturated) / 2):
        found["const"] = f"{fake.saturated:.0%} of the pixels are black or white (real: {real.saturated:.0%})"
    if cap is not None and fd > limits.untrained * cap:
        found["no_learn"] = f"final distance {fd:.4g} is {fd / cap:.0%} of the untrained generator's"
    if len(real.shares):
        present, classes, divergence = class_shift(real.shares, fake.shares, limits)
        why = f"{present} of {classes} classes present, KL {divergence:.2f} nat"
        if (present <= limits.classes * classes and present < classes) or divergence > limits.divergence:
            found["collapse_class"] = why
        elif present < classes or divergence > limits.partial:
            found["collapse_class_partial"] = why
    if fake.spread < limits.spread * real.spread:
        found["collapse_pair"] = f"images differ {fake.spread / real.spread:.0%} as much as real ones"
    if metrics.get("recall", 1.0) < limits.recall and {"collapse_class", "collapse_pair"} & found.keys():
        found["collapse_prdc"] = f"recall {metrics['recall']:.3f}"
    if history:
        at, best = min(history, key=lambda point: point[1])
        if at < limits.late * history[-1][0] and fd > limits.worse * best and fd > best + slack:
            found["late_collapse"] = f"final distance {fd:.4g}, but {best:.4g} after {at:g} images"
    for status, codes in _STATUSES.items():
        if fired := [found[code] for code in codes if code in found]:
            return status, "; ".join(fired), tuple(found)
    return "ok", "", tuple(found)


_STATUSES = {  # the first that fits
    "no_learn": ("const", "no_learn"),
    "collapsed": ("collapse_class", "collapse_pair", "collapse_prdc"),
    "late_collapse": ("late_collapse",),
}
