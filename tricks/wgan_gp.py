from bench.trick import At, Claim, Scores, Trick, choice


class WganGp(Trick):
    """WGAN-GP: the Wasserstein loss, with D's gradient between real and fake images pulled to length 1.

    L_D = E D(G(z)) - E D(x) + weight E (|grad D(x')| - centre)^2 with x' = u x + (1 - u) G(z), u ~ U(0, 1) for
    each pair, the norm over all pixels of an image; L_G = -E D(G(z)). BatchNorm in D would make an image's
    gradient depend on the others: the paper has LayerNorm there. Published with Adam at 1e-4, beta1 0, beta2 0.9
    and 5 steps of D for one of G. Label tricks are inert.
    """

    claims = [
        Claim(
            "of 200 random architectures 147 reach Inception score 5 with WGAN-GP only, none with the GAN "
            "only, 42 with both, 11 with neither",
            "fid",
            -1,
            "Gulrajani et al. 2017",
            "https://arxiv.org/abs/1704.00028",
        ),
        Claim(
            "converges more slowly (in wall-clock time) than DCGAN",
            "fid",
            1,
            "Gulrajani et al. 2017",
            "https://arxiv.org/abs/1704.00028",
        ),
        Claim(
            "WGAN and WGAN-GP do not always converge, where instance noise and zero-centred penalties do",
            "fid",
            1,
            "Mescheder et al. 2018 (abstract)",
            "https://arxiv.org/abs/1801.04406",
        ),
    ]
    cost = "a third pass of D over a batch, and a backward pass through its gradient, in every step of D"
    conflicts = {"batch_norm_in_d": "the penalty is on each image's own gradient"}
    interacts = {
        "d_steps": "published with 5 steps of D for one of G",
        "normalization": "published with layer normalization in D",
    }
    loss = "wgan_gp"
    heavy = True
    penalty_at = ("between",)

    weight: float = choice(10.0, span=(0.0, 1000.0), doc="weight of the penalty (lambda)")
    centre: float = choice(1.0, span=(0.0, 10.0), doc="length that the gradient is pulled to")

    def d_loss(self, loss, scores: Scores, at: At):
        return scores.fake.mean() - scores.real.mean()

    def g_loss(self, loss, scores: Scores, at: At):
        return -scores.fake.mean()

    def d_penalty(self, gradient, at: At):
        return self.weight * (gradient.flatten(1).norm(dim=1) - self.centre).square().mean()
