from bench.trick import At, Claim, Trick, dial


class R1(Trick):
    """R1 penalty: D pays for the slope of its logit at real images, so that it is flat where G should end.

    L_D + gamma/2 E_x |grad_x D(x)|^2: on logits, summed over an image's pixels and colours, averaged over the
    batch, in every step (not every 16th). What gamma does depends on the resolution: published values go from
    0.05 (CIFAR-10, R3GAN) to 150 (FFHQ at 256 pixels). BatchNorm in D would make an image's gradient depend on
    the others.
    """

    claims = [
        Claim(
            "zero-centred gradient penalties and instance noise converge locally, where WGAN(-GP) does not always",
            "fid",
            -1,
            "Mescheder et al. 2018 (abstract)",
            "https://arxiv.org/abs/1801.04406",
        ),
        Claim(
            "Dirac-GAN: eigenvalues -gamma/2 +- sqrt(gamma^2/4 - f'(0)^2), so no oscillation from 2 |f'(0)| on",
            "fid",
            -1,
            "Mescheder et al. 2018, as quoted by others",
            "https://arxiv.org/abs/1801.04406",
            evidence="quoted",
        ),
    ]
    cost = "a backward pass through D's gradient at the real images, in every step of D"
    conflicts = {"batch_norm_in_d": "the penalty is on each image's own gradient"}
    interacts = {
        "normalization": "layer normalization keeps an image's gradient its own",
        "diffaugment": "the gradient is by the changed image",
    }
    heavy = True
    penalty_at = ("real",)

    gamma: float = dial(0.1, off=0.0, span=(0.0, 1000.0), doc="weight of the penalty; try powers of ten")

    def d_penalty(self, gradient, at: At):
        return self.gamma / 2 * gradient.square().flatten(1).sum(1).mean()
