from bench.trick import At, Claim, Scores, Trick, dial


class Hinge(Trick):
    """Hinge loss: D is asked for logits above 1 on real images and below -1 on fakes, and for no more than that.

    L_D = E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))); L_G = -E D(G(z)), on logits. Images beyond their margin
    give D no gradient. Targets mean nothing here, so label tricks are inert.
    """

    claims = [
        Claim(
            "DCGAN-sized CNN on CIFAR-10: FID 43.16 (DCGAN 48.29)",
            "fid",
            -1,
            "StudioGAN's table; Lim & Ye 2017; Zhang et al. 2018 (SAGAN)",
            "https://arxiv.org/abs/1705.02894",
        ),
        Claim(
            "with spectral normalisation FID 29.3 becomes 25.5 (CIFAR-10)",
            "fid",
            -1,
            "Miyato et al. 2018, table 2",
            "https://arxiv.org/abs/1802.05957",
        ),
        Claim(
            "no tested loss is consistently better than the non-saturating GAN",
            "fid",
            0,
            "Lucic et al. 2017 (abstract)",
            "https://arxiv.org/abs/1711.10337",
        ),
    ]
    loss = "hinge"
    interacts = {"spectral_norm": "the pair of SN-GAN: a bound on D's slope gives the margin a meaning"}

    amount: float = dial(1.0, off=0.0, span=(0.0, 1.0), doc="weight of this loss against BCE")

    def d_loss(self, loss, scores: Scores, at: At):
        from torch import lerp

        return lerp(loss, (1 - scores.real).relu().mean() + (1 + scores.fake).relu().mean(), self.amount)

    def g_loss(self, loss, scores: Scores, at: At):
        from torch import lerp

        return lerp(loss, -scores.fake.mean(), self.amount)
