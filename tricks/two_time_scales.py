from bench.trick import At, Claim, Optim, Trick, dial


class TwoTimeScales(Trick):
    """Two time scales (TTUR): D and G have learning rates of their own, in place of the recipe's.

    In the paper's DCGAN rows G has the higher rate, against the folklore that D should. The paper compares the
    best scores along training after tuning both; "original ... is faster at the beginning, but TTUR eventually
    achieves better", so a short budget may show the opposite.
    """

    claims = [
        Claim(
            "DCGAN, FID, 8 runs each: CelebA 21.4 to 12.5, CIFAR-10 37.7 to 36.9, SVHN 21.4 to 12.5, LSUN 70.4 to 57.5",
            "fid",
            -1,
            "Heusel et al. 2017, table 1",
            "https://arxiv.org/abs/1706.08500",
        )
    ]
    after = ("learning_rate",)
    conflicts = {"optimizer": "it has a rate for each network too"}

    d: float = dial(1e-4, off=0.0, span=(0.0, 1.0), doc="D's rate; 0 keeps the recipe's")
    g: float = dial(5e-4, off=0.0, span=(0.0, 1.0), doc="G's rate; 0 keeps the recipe's")

    def optim(self, settings: Optim, at: At) -> Optim:
        import torch

        d, g = settings
        return Optim(
            d=d._replace(lr=torch.where(self.d > 0, self.d, d.lr)),
            g=g._replace(lr=torch.where(self.g > 0, self.g, g.lr)),
        )
