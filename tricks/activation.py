from dataclasses import replace

from bench.trick import Claim, Trick, choice


class Activation(Trick):
    """Activation: the slope a of LeakyReLU(x) = max(x, a x) in each network; a slope of 0 is ReLU.

    The published network has 0.2 in D and 0 in G; both slopes are said here, whatever the recipe's is. The
    initialisation stays N(0, 0.02), not rescaled for the slope: BatchNorm takes out the scale where it follows.
    """

    claims = [
        Claim(
            "ReLU in G, except for the output; LeakyReLU with slope 0.2 in all layers of D",
            "fid",
            1,
            "Radford et al. 2015, sections 3 and 4",
            "https://arxiv.org/abs/1511.06434",
        ),
        Claim(
            "LeakyReLU is good in both G and D: the game's stability suffers from sparse gradients",
            "fid",
            -1,
            "ganhacks 5 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        ),
        Claim(
            "leaky in both networks; GELU and Swish are worse",
            "fid",
            -1,
            "Huang et al. 2024 (R3GAN)",
            "https://arxiv.org/abs/2501.05441",
            "quoted",
        ),
    ]
    ganhacks = 5
    stage = "activations"

    d: float = choice(0.2, span=(0.0, 1.0), doc="slope in D (published: 0.2; hobby write-ups: to 0.3)")
    g: float = choice(0.2, span=(0.0, 1.0), doc="slope in G (published: 0)")

    def d_layers(self, layers: tuple) -> tuple:
        return _with_slope(layers, self.d)

    def g_layers(self, layers: tuple) -> tuple:
        return _with_slope(layers, self.g)


def _with_slope(layers: tuple, slope: float) -> tuple:
    from bench.networks import LeakyReLU

    return tuple(replace(layer, slope=slope) if isinstance(layer, LeakyReLU) else layer for layer in layers)
