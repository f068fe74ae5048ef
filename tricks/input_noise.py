from bench.trick import At, Claim, Trick, dial


class InputNoise(Trick):
    """Input noise (instance noise): Gaussian noise on every image D sees, real and fake, fading to nothing.

    D sees x + s_t e and G(z) + s_t e' with independent standard normal e, e' and s_t = sigma (1 - t / (fade T)), in
    D's step and in G's step alike (the gradient passes through the addition), not clamped. Images are in [-1, 1].
    """

    claims = [
        Claim(
            "steadies training: the two distributions overlap, D cannot win at once",
            "fid",
            -1,
            "Sonderby et al. 2017 (instance noise); Arjovsky & Bottou 2017; ganhacks 13",
            "https://arxiv.org/abs/1610.04490",
        )
    ]
    noise = "normal"

    sigma: float = dial(
        0.1, off=0.0, span=(0.0, 1.0), doc="standard deviation at step 0; images are in [-1, 1]"
    )
    fade: float = dial(1.0, span=(0.01, 1.0), doc="fraction of the budget after which the noise is gone")

    def images(self, x, at: At):
        return x + self.sigma * (1 - at.step / (self.fade * at.total)).clamp(0, 1) * at.noise
