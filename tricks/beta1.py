from dataclasses import replace

from bench.trick import Claim, Trick, choice


class Beta1(Trick):
    """Adam's beta1: how long the memory of past gradients is, in both networks.

    m <- beta1 m + (1 - beta1) g, with the usual bias correction. The recipe has 0.5; torch's default is 0.9; 0
    is Adam without momentum, common with gradient penalties. Where a network has SGD or RMSProp it changes
    nothing there.
    """

    claims = [
        Claim(
            "0.9 resulted in training oscillation and instability, 0.5 helped stabilise training",
            "fid",
            1,
            "Radford et al. 2015, section 4",
            "https://arxiv.org/abs/1511.06434",
            about={"both": 0.9},
        ),
        Claim(
            "WGAN-GP fails at a rate of 1e-3 with beta1 0.9, spectral normalisation does not (settings A to F)",
            "fid",
            1,
            "Miyato et al. 2018, section 4.1",
            "https://arxiv.org/abs/1802.05957",
        ),
    ]
    conflicts = {"r3gan": "its recipe sets beta1"}

    both: float = choice(0.9, span=(0.0, 0.999), doc="beta1 of D and of G")

    def recipe(self, recipe):
        return replace(recipe, beta1=self.both)
