from bench.trick import Claim, Trick, choice


class ConstantWidth(Trick):
    """Constant width: every hidden map of a network has the same number of channels.

    The published network doubles its channels with every halving of its maps, so that each layer costs alike; with a
    constant width the layers next to the image hold most of the cost, and those next to the logit few parameters.
    """

    claims = [
        Claim(
            "128 channels in all layers of D, among what rescued a D whose loss went to 0",
            "fid",
            -1,
            "hobby write-ups, without numbers",
            about={"d": 128},
        )
    ]
    stage = "widths"
    cost = "more multiply-adds next to the image, fewer parameters next to the logit"

    d: int = choice(128, span=(0, 1024), doc="channels of D's hidden maps; 0: as published")
    g: int = choice(0, span=(0, 1024), doc="channels of G's hidden maps; 0: as published")

    def d_layers(self, layers: tuple) -> tuple:
        return _all(layers, self.d)

    def g_layers(self, layers: tuple) -> tuple:
        return _all(layers, self.g)


def _all(layers: tuple, channels: int) -> tuple:
    from bench.layers import resized

    return resized(layers, lambda _: channels) if channels else layers
