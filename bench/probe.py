"""What is asked of an array along training, beside its losses: does D win, does G still learn, does either blow up.

Nothing here changes what is trained: a probe has draws of its own, moves nothing and keeps nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.lift import Around, Stacked
from bench.program import Program, Run
from bench.schedule import AdamRow, Row
from bench.step import Judge, Player, State, generated, leaves, loss_of_g
from bench.streams import LATENT_WIDTH, stream
from bench.trick import Scores

IMAGES = 128  # of each kind, in batches as large as those of the training; four batches at most
METRICS = ("d_accuracy", "d_gap", "d_overfit", "g_signal", "d_gradient", "g_gradient")


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

    def __call__(
        self, program: Program, tricks: Sequence[Stacked], state: State, row: Row, total: int
    ) -> dict[str, Tensor]:
        """Return every one of METRICS, each (R,).

        d_accuracy: share of held-out and generated images on their side of the middle between D's two mean logits, so
        for any loss, without the tricks' noise, and blind to smoothed labels; d_gap: real mean less fake mean, logits;
        d_overfit: mean logit of trained less held-out images, in units of trained less generated ones; g_signal:
        norm of the gradient of G's own loss at an image, mean over images; d_gradient, g_gradient: norm of the
        gradient as the optimiser remembers it.
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
            "g_signal": signal,
            "d_gradient": _remembered(state.d, row.d, nets.d_optimizer),
            "g_gradient": _remembered(state.g, row.g, nets.g_optimizer),
        }


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


def _remembered(player: Player, row: AdamRow, optimizer: str) -> Tensor:
    """Return the norm (R,) of the gradient: its root mean square over what Adam and RMSProp remember of it, and for
    SGD, which does not square, its mean."""
    if optimizer == "sgd":
        return player.first.norm(dim=1) * row.weight1[:, 0]
    return player.second.sum(1).clamp(min=0).sqrt() / row.root2[:, 0]
