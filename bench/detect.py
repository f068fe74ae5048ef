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
    """Where a detector fires; a grid may set its own (score: limits). Pixels are in [-1, 1], shares in [0, 1]."""

    flat: float = 0.01  # const: mean standard deviation of the pixels within an image
    alike: float = 0.05  # const: standard deviation of pixels over images, in units of the real one
    saturated: float = 0.95  # const: share of pixels beyond ±0.99
    untrained: float = 0.7  # no_learn: final distance, in units of the untrained generator's
    classes: float = 0.5  # collapse_class: this share of the classes, or fewer, is left
    divergence: float = 0.5  # collapse_class: KL divergence from the real class shares, nat
    partial: float = 0.1  # collapse_class_partial: the same divergence, or any class missing
    spread: float = 0.25  # collapse_pair: standard deviation of pixels over images, in units of the real one
    within: float = 0.25  # z_ignored: the same within a class, where the class is asked for
    pairs: float = 0.5  # collapse_pair: distance of two fakes' features, in units of that of two real ones
    recall: float = 0.05  # collapse_prdc, which counts only beside another collapse
    coverage: float = 0.1  # collapse_prdc, likewise
    worse: float = 1.5  # late_collapse: final distance, in units of the best
    late: float = 0.9  # late_collapse: the best came before this share of the budget
    wins: float = 0.99  # d_win: share of clean held-out and fresh fake images that D tells apart
    zero: float = 0.05  # d_loss_zero: D's loss in training above the least that its labels allow, BCE only
    guesses: float = 0.55  # d_dead: the same share as d_win's, or less, in the first half of the budget
    level: float = 0.05  # d_dead: difference of D's mean logits, or less
    even: float = 0.01  # d_dead, BCE only: how far D's loss is from 2 ln 2, a guess
    vanish: float = 0.001  # g_vanish: gradient that G gets at its images, in units of its median early on
    blowup: float = 1_000.0  # blowup: gradient norm that ten steps hold, in units of its median so far
    large: float = 100.0  # blowup, BCE only: median of the gradient norm in a window
    harm: float = 0.5  # blown_up: blowup, and final distance beyond this share of the untrained one
    overfit: float = (
        0.5  # d_overfit: gap of D's logits, training to held-out images, in units of the full one
    )
    swing: float = (
        3.0  # oscillation: standard deviation of the log distance at five points, in units of its noise
    )
    duplicates: float = (
        3.0  # duplicates: in so many of five batches two fakes are nearer than any two real ones
    )
    memory: float = 0.5  # memorise: how far fakes lie from the training images, in units of held-out ones


USUAL = Limits()
SYMPTOMS = (
    "d_win", "d_loss_zero", "d_dead", "g_vanish", "blowup", "d_overfit", "oscillation", "duplicates", "memorise",
    "collapse_class_partial",
)  # fmt: skip
FAILURES = {  # by status, the first that fits
    "diverged": ("nan",),
    "no_learn": ("const", "no_learn", "blown_up"),
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
    shown = symptoms(figures, curves, limits)
    if "blowup" in shown and cap is not None and figures.get("fd", float("nan")) > limits.harm * cap:
        share = figures["fd"] / cap
        found["blown_up"] = (
            f"a gradient blew up, and final distance {figures['fd']:.4g} is {share:.0%} of the untrained one"
        )
    codes = (*found, *shown)
    for status, own in FAILURES.items():
        if fired := [found[code] for code in own if code in found]:
            return status, "; ".join(fired), codes
    return "ok", "", codes


def failed_since(judged: Sequence[tuple[int, bool]]) -> int | None:
    """Return after how many images a run had failed for good, from what it would have been called at each point of the
    budget (images shown, failed): the first of the failed points that no sound one follows. None where it ended sound.
    """
    since = None
    for images, failed in judged:
        since = (images if since is None else since) if failed else None
    return since


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
    elif figures["spread"] < limits.alike:
        found["const"] = (
            f"one image, whatever z: pixels differ {figures['spread']:.1%} as much as over real ones"
        )
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
    elif figures.get("pairs", 1.0) < limits.pairs:
        found["collapse_pair"] = (
            f"features of images lie {figures['pairs']:.0%} as far apart as those of real ones"
        )
    if figures.get("within", 1.0) < limits.within:
        found["z_ignored"] = f"images of one class differ {figures['within']:.0%} as much as real ones"
    if {"collapse_class", "collapse_pair", "z_ignored"} & found.keys():
        few = {name: figures[name] for name in ("recall", "coverage") if name in figures}
        if few := [f"{name} {share:.3f}" for name, share in few.items() if share < getattr(limits, name)]:
            found["collapse_prdc"] = ", ".join(few)
    if history:
        at, best = min(history, key=lambda point: point[1])
        if at < limits.late * history[-1][0] and fd > limits.worse * best and fd > best + slack:
            found["late_collapse"] = f"final distance {fd:.4g}, but {best:.4g} after {at:g} images"
    return found


def symptoms(figures: Mapping[str, float], curves: Mapping[str, Curve], limits: Limits) -> list[str]:
    """Return the codes of what may go with a failure and may not.

    A figure of bench.probe counts where it is beyond its limit at two probes in a row, a window of 5 % apart; one of
    all the steps of a window, once.
    """
    found = []
    end = max((curve[-1][0] for curve in curves.values() if curve), default=0.0)
    accuracy, gap = curves.get("d_accuracy", ()), dict(curves.get("d_gap", ()))
    if _lasts([(x, v >= limits.wins) for x, v in accuracy if x > 0.1 * end]):
        found.append("d_win")
    floor = dict(curves.get("d_floor", ()))  # known for BCE alone
    loss = [(x, v) for x, v in curves.get("loss_d", ()) if x in floor]
    if any(v - floor[x] <= limits.zero for x, v in loss if x > 0.1 * end):
        found.append("d_loss_zero")
    level = [(x, v <= limits.guesses and abs(gap.get(x, 0.0)) < limits.level) for x, v in accuracy]
    even = [(x, abs(v - 2 * log(2)) < limits.even) for x, v in loss]
    if any(_lasts([point for point in side if point[0] <= 0.5 * end]) for side in (level, even)):
        found.append("d_dead")
    signal = curves.get("g_signal", ())
    early = [v for x, v in signal if x <= 0.1 * end]
    if early and _lasts([(x, v < limits.vanish * median(early)) for x, v in signal if x > 0.1 * end]):
        found.append("g_vanish")
    if any(_blown(curves, who, floor, limits) for who in ("d_gradient", "g_gradient")):
        found.append("blowup")
    # Not by how often D calls training images real (60 % net, as ADA has it): it was so at 70 to 95 % of the probes of
    # healthy runs here, and of held-out images as often.
    if _lasts([(x, v > limits.overfit) for x, v in curves.get("d_overfit", ())]):
        found.append("d_overfit")
    last = [v for x, v in curves.get("fd", ()) if x >= 0.5 * end][-5:]
    noise = figures.get("fd_spread", float("inf"))
    if len(last) == 5 and min(last) > 0 and stdev(map(log, last)) > limits.swing * noise:
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


def _blown(curves: Mapping[str, Curve], who: str, floor: Mapping[float, float], limits: Limits) -> bool:
    """Say whether a network's gradient left its own past behind for ten steps, or was large for a window."""
    medians, held = curves.get(who, ()), dict(curves.get(f"{who}_held", ()))
    far = [
        held.get(x, 0.0) > limits.blowup * median(v for _, v in medians[:i])
        for i, (x, _) in enumerate(medians)
        if i
    ]
    return any(far) or any(v > limits.large for x, v in medians if x in floor)


def _lasts(points: Sequence[tuple[float, bool]]) -> bool:
    """Say whether two points in a row are true."""
    return any(a and b for (_, a), (_, b) in pairwise(points))
