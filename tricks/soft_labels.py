from bench.trick import At, Claim, Trick, dial


class SoftLabels(Trick):
    """Soft labels: D is told a random number near 1 of each real image, and one near 0 of each fake.

    Image by image, in D's step: t ~ U(real_low, real_high) where the label is 1 and t ~ U(0, fake_high) where it
    is 0; the target is y + amount (t - y). BCE on logits is linear in t, so in expectation this is two-sided
    smoothing to the means (0.95 and 0.15), its partner; what is left is noise in the gradient. A target above 1
    leaves that image's loss without a lower bound, harmless only because the mean is below 1. A label that was
    flipped is drawn from the other side's range.
    """

    claims = [
        Claim(
            "label smoothing: draw real labels from 0.7 to 1.2 and fake ones from 0.0 to 0.3 (no number)",
            "fid",
            -1,
            "ganhacks 6 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        )
    ]
    ganhacks = 6
    noise = "uniform"
    after = ("label_noise",)
    conflicts = {
        "label_smoothing": "both say what D is told of a real image",
        "two_sided_smoothing": "both say what D is told of an image",
    }
    inert_if = {"other_loss": "only BCE is told targets"}

    amount: float = dial(
        1.0, off=0.0, span=(0.0, 1.0), doc="how far targets go from hard labels to the drawn ones"
    )
    real_low: float = dial(0.7, span=(0.0, 1.0), doc="least target of a real image")
    real_high: float = dial(1.2, span=(0.5, 1.5), doc="largest target of a real image")
    fake_high: float = dial(0.3, span=(0.0, 1.0), doc="largest target of a fake image; the least is 0")

    def real_targets(self, y, at: At):
        return self._soft(y, at.noise)

    def fake_targets(self, y, at: At):
        return self._soft(y, at.noise)

    def _soft(self, y, u):
        drawn = y * (self.real_low + (self.real_high - self.real_low) * u) + (1 - y) * self.fake_high * u
        return y + self.amount * (drawn - y)

    def partner(self):
        real = 1 + self.amount * ((self.real_low + self.real_high) / 2 - 1)
        fake = self.amount * self.fake_high / 2
        reachable = 0.5 <= real <= 1 and fake <= 0.5
        return (
            ("two_sided_smoothing", {"real": round(real, 12), "fake": round(fake, 12)}) if reachable else None
        )
