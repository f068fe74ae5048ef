"""What is asked of an array along training, beside its losses: does D win, does G still learn, does either blow up.

Nothing here changes what is trained: a probe has draws of its own, moves nothing and keeps nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.lift import Around, Stacked, apply, key
from bench.program import Program, Run
from bench.schedule import Row
from bench.step import Judge, State, generated, leaves, loss_of_g
from bench.streams import LATENT_WIDTH, stream
from bench.trick import Scores

IMAGES = 128  # of each kind, in batches as large as those of the training; four batches at most
METRICS = ("d_accuracy", "d_gap", "d_overfit", "d_floor", "g_signal")
GRADIENTS = ("d_gradient", "d_gradient_held", "g_gradient", "g_gradient_held")  # see `held_norms`
HELD = 10  # steps in a row
DRAWS = 1000  # of a label's noise, evenly spaced


@dataclass(frozen=True)
class Probe:
    """The images and latents that all probes of an array see: the same at every point of the budget.

    held_out, trained (K, B, R, C, H, W) in [-1, 1]: real images D never sees, and real ones it learns from; latents
    (K, B, R, length); labels (K, B, R) of held-out, trained and generated images, or None.
    """

    held_out: Tensor
    trained: Tensor
    latents: Tensor
    labels: tuple[Tensor, Tensor, Tensor] | None

    def __len__(self) -> int:
        """Return how many images of each kind a probe looks at."""
        return self.held_out.shape[0] * self.held_out.shape[1]

    def __call__(
        self, program: Program, tricks: Sequence[Stacked], state: State, row: Row, total: int
    ) -> dict[str, Tensor]:
        """Return every one of METRICS, each (R,).

        d_accuracy: share of held-out and generated images on their side of the middle between D's two mean logits, so
        for any loss, without the tricks' noise, and blind to smoothed labels; d_gap: real mean less fake mean, logits;
        d_overfit: mean logit of trained less held-out images, in units of trained less generated ones; d_floor: the
        least that D's loss can become with the labels it is told; g_signal: norm of the gradient of G's own loss at an
        image, mean over images.
        """
        nets, runs = program.nets, state.d.parameters.shape[0]
        d, g = leaves(nets.d, state.d.parameters, False), leaves(nets.g, state.g.parameters, False)
        around = Around(row.step, total, {}, state.memory)
        logits: list[Tensor] = []
        signal = torch.zeros(runs, dtype=state.d.parameters.dtype, device=state.d.parameters.device)
        for k in range(len(self.held_out)):
            labels: dict[str, Tensor] = {}
            if self.labels is not None:
                labels = dict(zip(("held_out", "trained", "g"), (own[k] for own in self.labels), strict=True))
            with torch.no_grad():
                made, _ = generated(nets.g, g, self.latents[k], state.statistics, labels.get("g"))
            made.requires_grad_()
            judge = Judge(nets, (), around, runs, state.d_statistics, labels)
            judge.featured = any(trick.cls.features for trick in tricks)
            real, fake = judge(d, {"held_out": self.held_out[k], "g": made})
            with torch.no_grad():
                seen = judge(d, {"trained": self.trained[k]})[0].logits
            scores = Scores(real.logits, fake.logits, real.features, fake.features)
            loss = loss_of_g(tricks, scores, around)
            [gradient] = torch.autograd.grad(loss.sum(), made)
            signal += gradient.flatten(2).norm(dim=2).mean(0) * len(made) / len(self.held_out)
            logits.append(torch.stack([real.logits.detach(), fake.logits.detach(), seen]))
        real, fake, seen = torch.cat(logits, 1)  # (K*B, R) each
        middle = (real.mean(0) + fake.mean(0)) / 2
        right = ((real > middle).to(signal).mean(0) + (fake < middle).to(signal).mean(0)) / 2
        full = seen.mean(0) - fake.mean(0)
        return {
            "d_accuracy": torch.where(middle.isfinite(), right, torch.nan),  # nothing is right about a NaN
            "d_gap": real.mean(0) - fake.mean(0),
            "d_overfit": torch.where(full > 0, (seen.mean(0) - real.mean(0)) / full, torch.nan),
            "d_floor": torch.where(middle.isfinite(), floor(tricks, around, runs).to(middle), torch.nan),
            "g_signal": signal,
        }


def floor(tricks: Sequence[Stacked], around: Around, runs: int) -> Tensor:
    """Return the least that each run's loss of D (R,) can become with the labels it is told: 0 where they are hard.

    That is the cross entropy of D's labels with their mean, since their noise cannot be seen in an image: 0.325 where
    real ones are 0.9, 0.397 where 5 % of both are flipped. NaN where a trick puts another loss in its place, and where
    the mean is beyond 0 or 1, so that there is no least.
    """
    found = torch.zeros(runs, dtype=torch.float64, device=around.step.device)
    for hook, value, side in (("real_targets", 1.0, "real"), ("fake_targets", 0.0, "fake")):
        told = [trick for trick in tricks if trick.cls.fills(hook)]
        noise = {key(trick, hook, side): _even(trick, hook, runs) for trick in told if trick.cls.noise}
        noise = {name: draws.to(around.step) for name, draws in noise.items()}
        hard = torch.full((DRAWS, runs), value, dtype=around.step.dtype, device=around.step.device)
        label = apply(told, hook, hard, Around(around.step, around.total, noise, around.memory), side)
        mean = label.double().mean(0)
        found -= torch.xlogy(mean, mean) + torch.xlogy(1 - mean, 1 - mean)
    for trick in tricks:
        if trick.cls.fills("d_loss"):
            found[torch.tensor(trick.on, device=found.device)] = torch.nan
    return found


def _even(trick: Stacked, hook: str, runs: int) -> Tensor:
    """Return a label hook's draws (DRAWS, R, ...), evenly spaced and in an order of their own."""
    order = stream(0, "probe", trick.name, hook)
    columns = [torch.randperm(DRAWS, generator=order) for _ in range(max(1, trick.cls.draws))]
    draws = (torch.stack(columns, 1) + 0.5) / DRAWS
    if trick.cls.noise == "normal":
        draws = torch.special.ndtri(draws)
    draws = draws[:, None].expand(-1, runs, -1)
    return draws if trick.cls.draws else draws[..., 0]


def held_norms(who: str, norms: Tensor) -> dict[str, Tensor]:
    """Return the two gradient figures (R,) of a window from every step's norm (steps, R), NaN where `who` did not move.

    d_gradient, g_gradient: the median; with _held: the highest norm below which it did not fall for ten of its steps in
    a row (all there are, where these are fewer). NaN where it never moved.
    """
    medians, held = [], []
    for own in norms.unbind(1):
        moved = own[~own.isnan()]
        length = min(HELD, len(moved))
        medians.append(moved.median() if length else own.new_tensor(torch.nan))
        held.append(moved.unfold(0, length, 1).amin(1).amax() if length else own.new_tensor(torch.nan))
    return {f"{who}_gradient": torch.stack(medians), f"{who}_gradient_held": torch.stack(held)}


def probe(
    program: Program,
    runs: Sequence[Run],
    images: Tensor,
    held_out: Tensor,
    labels: tuple[Tensor, Tensor] | None,
    dtype: torch.dtype,
    device: str,
) -> Probe:
    """Return the probe of an array; images, held_out: uint8 (N, C, H, W); labels: of both, where wanted."""
    batch = program.batch_size
    batches = max(1, min(4, IMAGES // batch))

    def indices(of: Tensor, purpose: str) -> Tensor:  # (K, B, R); a small set's images come more than once
        drawn = [
            torch.randint(len(of), (batches, batch), generator=stream(run.seed, "probe", purpose))
            for run in runs
        ]
        return torch.stack(drawn, 2)

    def pictures(of: Tensor, which: Tensor) -> Tensor:
        return of[which].to(device, dtype).div_(127.5).sub_(1)

    held, seen = indices(held_out, "held_out"), indices(images, "trained")
    latents = [
        torch.randn(batches, batch, LATENT_WIDTH, generator=stream(run.seed, "probe", "latents"))[
            ..., : program.noise_length
        ]
        for run in runs
    ]
    known = None
    if program.labelled and labels is not None:
        fakes = indices(images, "fake_labels")
        known = tuple(
            of[which].to(device) for of, which in ((labels[1], held), (labels[0], seen), (labels[0], fakes))
        )
    z = torch.stack(latents, 2).to(device, dtype)
    return Probe(pictures(held_out, held), pictures(images, seen), z, known)
