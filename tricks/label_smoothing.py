from bench.trick import At, Claim, Trick, dial


class LabelSmoothing(Trick):
    """One-sided label smoothing: D is told that real images are `target` real, not 1.

    L_D = BCE(D(x), target) + BCE(D(G(z)), 0). Only the targets of real images in D's step change; smoothing those
    of the fakes would put the model's own density into D's optimum. The least D loss is then above 0 (0.325 nats
    at 0.9). Flipping labels is the same in expectation, plus noise: see `label_noise`.
    """

    claims = [
        Claim(
            "improves samples: D is less confident and less open to adversarial examples",
            "fid",
            -1,
            "Salimans et al. 2016, section 3.4; ganhacks 6",
            "https://arxiv.org/abs/1606.03498",
        )
    ]
    ganhacks = 6
    inert_if = {"other_loss": "only BCE is told targets"}
    after = ("label_noise",)  # a real image whose label was flipped is told 0, not a smoothed 0

    target: float = dial(0.9, off=1.0, span=(0.5, 1.0), doc="what D is told about a real image")

    def real_targets(self, y, at: At):
        return y * self.target
