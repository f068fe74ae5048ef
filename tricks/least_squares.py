from bench.trick import At, Claim, Scores, Trick, dial


class LeastSquares(Trick):
    """Least-squares loss (LSGAN): D regresses real images on b and fakes on a; G wants its fakes at c.

    L_D = 1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2; L_G = 1/2 E (D(G(z)) - c)^2, with a, b, c = 0, 1, 1 (the
    paper's other choice is -1, 1, 0), on raw logits: some code applies it to sigmoid outputs, which is another
    objective. Label tricks are inert.
    """

    claims = [
        Claim(
            "CIFAR-10: DCGAN FID 48.29, LSGAN 40.22",
            "fid",
            -1,
            "StudioGAN's table",
            "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
        ),
        Claim(
            "CIFAR-10: FID 87.1 with a standard deviation of 47.5 over seeds, so some of them fail",
            "fid",
            1,
            "Lucic et al. 2017, as two papers quote it",
            "https://arxiv.org/abs/1711.10337",
            evidence="quoted",
        ),
        Claim(
            "higher quality images and a more stable training than the regular GAN",
            "fid",
            -1,
            "Mao et al. 2016",
            "https://arxiv.org/abs/1611.04076",
            evidence="recalled",
        ),
    ]
    loss = "least_squares"

    amount: float = dial(1.0, off=0.0, span=(0.0, 1.0), doc="weight of this loss against BCE")
    a: float = dial(0.0, span=(-2.0, 2.0), doc="where D wants fakes")
    b: float = dial(1.0, span=(-2.0, 2.0), doc="where D wants real images")
    c: float = dial(1.0, span=(-2.0, 2.0), doc="where G wants D to put its fakes")

    def d_loss(self, loss, scores: Scores, at: At):
        from torch import lerp

        squares = (scores.real - self.b).square().mean() + (scores.fake - self.a).square().mean()
        return lerp(loss, squares / 2, self.amount)

    def g_loss(self, loss, scores: Scores, at: At):
        from torch import lerp

        return lerp(loss, (scores.fake - self.c).square().mean() / 2, self.amount)
