from bench.trick import At, Claim, Trick, dial


class LabelNoise(Trick):
    """Label noise: in D's step each label is flipped with a small probability, image by image.

    BCE on logits is linear in the target, so in expectation flipping both sides with probability p equals
    two-sided smoothing to 1 - p and p, its partner; what flipping adds is noise in the gradient. Flipping fakes
    puts the model's density into D's optimum, against the advice of one-sided smoothing. Not G's target: that is
    another trick.
    """

    claims = [
        Claim(
            "steadies training: occasionally flip the labels when training D",
            "fid",
            -1,
            "ganhacks 6 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        )
    ]
    ganhacks = 6
    noise = "uniform"
    inert_if = {"other_loss": "only BCE is told targets"}

    real: float = dial(0.05, off=0.0, span=(0.0, 0.5), doc="probability that a real image is called fake")
    fake: float = dial(0.05, off=0.0, span=(0.0, 0.5), doc="probability that a fake image is called real")

    def real_targets(self, y, at: At):
        return y + (at.noise < self.real) * (1 - 2 * y)

    def fake_targets(self, y, at: At):
        return y + (at.noise < self.fake) * (1 - 2 * y)

    def partner(self):
        return "two_sided_smoothing", {"real": round(1 - self.real, 12), "fake": self.fake}
