from bench.trick import At, Claim, Optim, Trick, dial


class LearningRate(Trick):
    """Learning rate: Adam's rate for both networks, in place of the recipe's.

    Levels that people argue about: 2e-5 (lower), 2e-4 (the recipe), 1e-3 (torch's default, too high for DCGAN).
    What a rate does depends on the length of the training: a finding about it is a finding at this budget.
    """

    claims = [
        Claim(
            "0.001 is too high, 0.0002 works; lower rates are not discussed",
            "fid",
            0,
            "Radford et al. 2015, section 4",
            "https://arxiv.org/abs/1511.06434",
            about={"both": 0.001},
        )
    ]

    both: float = dial(2e-5, off=0.0, span=(0.0, 1.0), doc="the rate of D and of G; 0 keeps the recipe's")

    def optim(self, settings: Optim, at: At) -> Optim:
        import torch

        return Optim(*(adam._replace(lr=torch.where(self.both > 0, self.both, adam.lr)) for adam in settings))
