from bench.trick import At, Claim, Trick, dial


class R2(Trick):
    """R2 penalty: D pays for the slope of its logit at fake images, as R1 makes it pay at real ones.

    L_D + gamma/2 E_z |grad_x D(x)|^2 at x = G(z): on logits, summed over an image's pixels and colours, averaged
    over the batch, in every step. BatchNorm in D would make an image's gradient depend on the others.
    """

    claims = [
        Claim(
            "zero-centred gradient penalties converge locally",
            "fid",
            -1,
            "Mescheder et al. 2018 (abstract)",
            "https://arxiv.org/abs/1801.04406",
        ),
        Claim(
            "StackedMNIST: with R1 alone both the GAN and the relativistic loss diverge, with R1 and R2 neither",
            "fid",
            -1,
            "Huang et al. 2025 (R3GAN), as quoted by others",
            "https://arxiv.org/abs/2501.05441",
            evidence="quoted",
        ),
    ]
    cost = "a backward pass through D's gradient at the fakes, in every step of D"
    conflicts = {"batch_norm_in_d": "the penalty is on each image's own gradient"}
    interacts = {
        "normalization": "layer normalization keeps an image's gradient its own",
        "diffaugment": "the gradient is by the changed image",
    }
    heavy = True
    penalty_at = ("fake",)

    gamma: float = dial(0.1, off=0.0, span=(0.0, 1000.0), doc="weight of the penalty; try powers of ten")

    def d_penalty(self, gradient, at: At):
        return self.gamma / 2 * gradient.square().flatten(1).sum(1).mean()
