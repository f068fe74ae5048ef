from bench.trick import At, Claim, Scores, Trick, dial


class SaturatingLoss(Trick):
    """Saturating loss: G minimises log(1 - D(G(z))), the minimax loss, and not -log D(G(z)).

    With l the logit of a fake: L_G = -softplus(l) in place of softplus(-l), the same fixed point with another
    gradient: -sigmoid(l), which vanishes where D is sure that the image is fake, against -sigmoid(-l). The
    published DCGAN (and the baseline) has the non-saturating loss, "flip labels when training G" in some
    write-ups, which has nothing to do with flipping labels in D's step. D's loss stays BCE, so label tricks stay
    alive.
    """

    claims = [
        Claim(
            "in practice use max log D, because of vanishing gradients early on with min log(1 - D)",
            "fid",
            1,
            "ganhacks 2 (Chintala et al. 2016); Goodfellow et al. 2014",
            "https://github.com/soumith/ganhacks",
        )
    ]
    ganhacks = 2
    conflicts = dict.fromkeys(
        ("hinge", "least_squares", "wasserstein", "wgan_gp", "relativistic", "r3gan"),
        "it brings G's loss with it",
    )
    interacts = {"pretraining": "a D that starts near its optimum is where this loss has no gradient"}

    amount: float = dial(
        1.0, off=0.0, span=(0.0, 1.0), doc="weight of this loss against the non-saturating one"
    )

    def g_loss(self, loss, scores: Scores, at: At):
        from torch import lerp
        from torch.nn.functional import softplus

        return lerp(loss, -softplus(scores.fake).mean(), self.amount)
