from bench.trick import At, Claim, Trick, dial


class TwoSidedSmoothing(Trick):
    """Two-sided label smoothing: D is told `real` of a real image and `fake` of a fake one, not 1 and 0.

    L_D = BCE(D(x), real) + BCE(D(G(z)), fake), in D's step only. D's optimum is (real p_d + fake p_g) / (p_d +
    p_g): with `fake` above 0 the model's own density is in the numerator, which is why Salimans et al. smooth
    positives only. Flipping labels with probabilities 1 - real and fake is the same in expectation, plus noise:
    each is the other's partner. Together with it, labels are flipped first and smoothed then.
    """

    claims = [
        Claim(
            "smooth only the positive labels: with the fakes smoothed, D's optimum has p_model in its numerator",
            "fid",
            1,
            "Salimans et al. 2016, section 3.4 (against Szegedy et al. 2015, who smooth all labels)",
            "https://arxiv.org/abs/1606.03498",
        )
    ]
    ganhacks = 6
    after = ("label_noise",)
    conflicts = {"label_smoothing": "both say what D is told of a real image"}
    inert_if = {"other_loss": "only BCE is told targets"}

    real: float = dial(0.9, off=1.0, span=(0.5, 1.0), doc="what D is told about a real image")
    fake: float = dial(0.1, off=0.0, span=(0.0, 0.5), doc="what D is told about a fake image")

    def real_targets(self, y, at: At):
        return self.fake + y * (self.real - self.fake)

    def fake_targets(self, y, at: At):
        return self.fake + y * (self.real - self.fake)

    def partner(self):
        return "label_noise", {"real": round(1 - self.real, 12), "fake": self.fake}
