from bench.trick import At, Claim, Scores, Trick, choice


class Wasserstein(Trick):
    """Wasserstein loss with clipping (WGAN): D's logit is a critic's score, kept from steepness by small weights.

    L_D = E D(G(z)) - E D(x); L_G = -E D(G(z)); after every move of D all its parameters are clamped to [-clip,
    clip], BatchNorm's scales with them (they start near 1 and are at `clip` from the first step on), as in the
    authors' code. Published with RMSProp at 5e-5 and 5 steps of D for one of G: the arm of the paper is this
    trick with `optimizer` and `d_steps`; with the baseline's Adam it is another experiment. Label tricks are
    inert.
    """

    claims = [
        Claim(
            "improved stability of learning, no mode collapse, and a loss that correlates with sample quality",
            "fid",
            -1,
            "Arjovsky et al. 2017",
            "https://arxiv.org/abs/1701.07875",
            evidence="recalled",
        ),
        Claim(
            "RMSProp at 5e-5 and n_critic 5; momentum and Adam are unstable with it",
            "fid",
            0,
            "Arjovsky et al. 2017, as quoted by others",
            "https://arxiv.org/abs/1701.07875",
            evidence="quoted",
        ),
        Claim(
            "CIFAR-10 FID 107.68 with a ResNet: the worst control of that table",
            "fid",
            1,
            "StudioGAN's table",
            "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
        ),
    ]
    loss = "wasserstein"
    interacts = {
        "optimizer": "published with RMSProp at 5e-5 for both networks",
        "d_steps": "published with 5 steps of D for one of G",
    }

    clip: float = choice(0.01, span=(0.0001, 10.0), doc="largest absolute value of a parameter of D")

    def d_loss(self, loss, scores: Scores, at: At):
        return scores.fake.mean() - scores.real.mean()

    def g_loss(self, loss, scores: Scores, at: At):
        return -scores.fake.mean()

    def d_parameters(self, parameters, at: At):
        return parameters.clamp(-self.clip, self.clip)
