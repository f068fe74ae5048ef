"""Which runs failed and which symptoms they had: from plain numbers along the budget, so that a report can ask again
with other limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from statistics import median, stdev

Curve = Sequence[tuple[float, float]]  # (images shown, value), in order


@dataclass(frozen=True)
class Limits:
    """Where a detector fires; a grid may set its own (`detect`). Pixels are in [-1, 1], shares in [0, 1]."""

    flat: float = 0.01  # const: mean standard deviation of the pixels within an image
    saturated: float = 0.95  # const: share of pixels beyond ±0.99
    untrained: float = 0.7  # no_learn: final distance, in units of the untrained generator's
    classes: float = 0.5  # collapse_class: this share of the classes, or fewer, is left
    divergence: float = 0.5  # collapse_class: KL divergence from the real class shares, nat
    partial: float = 0.1  # collapse_class_partial: the same divergence, or any class missing
    spread: float = 0.25  # collapse_pair: standard deviation of pixels over images, in units of the real one
    within: float = 0.25  # z_ignored: the same within a class, where the class is asked for
    recall: float = 0.05  # collapse_prdc, which counts only beside another collapse
    worse: float = 1.5  # late_collapse: final distance, in units of the best
    late: float = 0.9  # late_collapse: the best came before this share of the budget
    wins: float = 0.99  # d_win: share of clean held-out and fresh fake images that D tells apart
    zero: float = 0.05  # d_loss_zero: D's loss in training, or less
    guesses: float = 0.55  # d_dead: the same share, or less, in the first half of the budget
    level: float = 0.05  # d_dead: difference of D's mean logits, or less
    vanish: float = 0.001  # g_vanish: gradient that G gets at its images, in units of its median early on
    blowup: float = 100.0  # blowup: gradient norm, in units of its median so far
    overfit: float = (
        0.5  # d_overfit: gap of D's logits between training and held-out images, in units of its full gap
    )
    swing: float = 0.1  # oscillation: standard deviation of the log distance over the last five points
    duplicates: float = (
        3.0  # duplicates: of five batches, in so many two fakes lie nearer than any two real ones
    )
    memory: float = (
        0.5  # memorise: how far fakes lie from the training images, in units of how far held-out ones do
    )


USUAL = Limits()
SYMPTOMS = (
    "d_win", "d_loss_zero", "d_dead", "g_vanish", "blowup", "d_overfit", "oscillation", "duplicates", "memorise",
    "collapse_class_partial",
)  # fmt: skip
FAILURES = {  # by status, the first that fits
    "diverged": ("nan",),
    "no_learn": ("const", "no_learn"),
    "collapsed": ("collapse_class", "collapse_pair", "z_ignored", "collapse_prdc"),
    "late_collapse": ("late_collapse",),
}


def detect(
    figures: Mapping[str, float],
    curves: Mapping[str, Curve],
    cap: float | None,
    slack: float,
    limits: Limits = USUAL,
) -> tuple[str, str, tuple[str, ...]]:
    """Return the status of a finished run, the reason in words ("" where ok), and the codes that fired.

    figures: of the last samples: the scores (fd, recall where known) and what bench.looks.figures says. curves: fd at
    every point of the budget, the last included, D's loss and bench.probe's figures. cap: the untrained generator's
    distance. slack: how much worse than the best a distance must be, in its own units, to be called a late collapse.
    """
    found = failures(figures, curves.get("fd", ()), cap, slack, limits)
    codes = (*found, *symptoms(figures, curves, limits))
    for status, own in FAILURES.items():
        if fired := [found[code] for code in own if code in found]:
            return status, "; ".join(fired), codes
    return "ok", "", codes


def slack(extractor: str, cap: float | None) -> float:
    """Return how much worse than its best a distance must be, in its own units, to be called a late collapse."""
    return 10.0 if extractor.startswith("inception") else 0.02 * (cap or 0.0)


def failures(
    figures: Mapping[str, float], history: Curve, cap: float | None, slack: float, limits: Limits
) -> dict[str, str]:
    """Return why a run failed, by code; nothing for one that did not."""
    fd, found = figures.get("fd", float("nan")), {}
    if figures["flat"] < limits.flat:
        found["const"] = f"images are flat: pixels within one vary by {figures['flat']:.2g}"
    elif figures["saturated"] > max(limits.saturated, (1 + figures["saturated_real"]) / 2):
        found["const"] = (
            f"{figures['saturated']:.0%} of the pixels are black or white (real: {figures['saturated_real']:.0%})"
        )
    if cap is not None and fd > limits.untrained * cap:
        found["no_learn"] = f"final distance {fd:.4g} is {fd / cap:.0%} of the untrained generator's"
    if "classes" in figures:
        present, of, divergence = figures["classes"], figures["classes_real"], figures["kl"]
        if (present <= limits.classes * of and present < of) or divergence > limits.divergence:
            found["collapse_class"] = f"{present:.0f} of {of:.0f} classes present, KL {divergence:.2f} nat"
    if figures["spread"] < limits.spread:
        found["collapse_pair"] = f"images differ {figures['spread']:.0%} as much as real ones"
    if figures.get("within", 1.0) < limits.within:
        found["z_ignored"] = f"images of one class differ {figures['within']:.0%} as much as real ones"
    if (
        figures.get("recall", 1.0) < limits.recall
        and {"collapse_class", "collapse_pair", "z_ignored"} & found.keys()
    ):
        found["collapse_prdc"] = f"recall {figures['recall']:.3f}"
    if history:
        at, best = min(history, key=lambda point: point[1])
        if at < limits.late * history[-1][0] and fd > limits.worse * best and fd > best + slack:
            found["late_collapse"] = f"final distance {fd:.4g}, but {best:.4g} after {at:g} images"
    return found


def symptoms(figures: Mapping[str, float], curves: Mapping[str, Curve], limits: Limits) -> list[str]:
    """Return the codes of what may go with a failure and may not.

    A figure of bench.probe counts where it is beyond its limit at two probes in a row, a window of 5 % apart.
    """
    found = []
    end = max((curve[-1][0] for curve in curves.values() if curve), default=0.0)
    accuracy, gap = curves.get("d_accuracy", ()), dict(curves.get("d_gap", ()))
    if _lasts([(x, v >= limits.wins) for x, v in accuracy if x > 0.1 * end]):
        found.append("d_win")
    if _lasts([(x, v <= limits.zero) for x, v in curves.get("loss_d", ()) if x > 0.1 * end]):
        found.append("d_loss_zero")
    even = [(x, v <= limits.guesses and abs(gap.get(x, 0.0)) < limits.level) for x, v in accuracy]
    if _lasts([point for point in even if point[0] <= 0.5 * end]):
        found.append("d_dead")
    signal = curves.get("g_signal", ())
    early = [v for x, v in signal if x <= 0.1 * end]
    if early and _lasts([(x, v < limits.vanish * median(early)) for x, v in signal if x > 0.1 * end]):
        found.append("g_vanish")
    for who in ("d_gradient", "g_gradient"):
        values = [v for _, v in curves.get(who, ())]
        high = [(i, v > limits.blowup * median(values[:i])) for i, v in enumerate(values) if i >= 2]
        if _lasts(high) and "blowup" not in found:
            found.append("blowup")
    if _lasts([(x, v > limits.overfit) for x, v in curves.get("d_overfit", ())]):
        found.append("d_overfit")
    last = [v for x, v in curves.get("fd", ()) if x >= 0.5 * end][-5:]
    if len(last) == 5 and min(last) > 0 and stdev(map(log, last)) > limits.swing:
        found.append("oscillation")
    if figures.get("duplicates", 0) >= limits.duplicates:
        found.append("duplicates")
    if figures.get("nearest_trained", 1.0) < limits.memory:
        found.append("memorise")
    if "classes" in figures and (
        figures["classes"] < figures["classes_real"] or figures["kl"] > limits.partial
    ):
        found.append("collapse_class_partial")
    return found


def _lasts(points: Sequence[tuple[float, bool]]) -> bool:
    """Say whether two points in a row are true."""
    return any(a and b for (_, a), (_, b) in pairwise(points))
