from bench.trick import Claim, Trick, choice


class Width(Trick):
    """Width: the channels of every hidden map of a network times a factor.

    Rounded, and at least 1. Latents, image and logit stay as they are. Parameters and multiply-adds grow with the
    factor squared (those next to image, latents and logit with the factor), so a comparison at equal images is not
    one at equal cost: both are recorded in each row. G's and D's capacities are balanced in the published network.
    """

    claims = [
        Claim(
            "a wider D is stronger",
            "fid",
            0,
            "hobby write-ups, without numbers",
        ),
        Claim(
            "half as many channels again in both networks improve IS by 21 % (at ImageNet's scale)",
            "fid",
            -1,
            "Brock et al. 2018 (BigGAN), section 3.1",
            "https://arxiv.org/abs/1809.11096",
            "recalled",
            about={"d": 1.5, "g": 1.5},
        ),
    ]
    stage = "widths"
    cost = "parameters and multiply-adds of hidden layers x factor^2"
    conflicts = {"constant_width": "it says how many channels there are, so there is nothing to multiply"}

    d: float = choice(2.0, span=(0.25, 8.0), doc="factor in D")
    g: float = choice(1.0, span=(0.25, 8.0), doc="factor in G")

    def d_layers(self, layers: tuple) -> tuple:
        return _times(layers, self.d)

    def g_layers(self, layers: tuple) -> tuple:
        return _times(layers, self.g)


def _times(layers: tuple, factor: float) -> tuple:
    from bench.layers import resized

    return resized(layers, lambda channels: max(1, round(channels * factor)))
