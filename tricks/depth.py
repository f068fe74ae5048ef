from dataclasses import replace

from bench.trick import Claim, Trick, choice


class Depth(Trick):
    """Depth: extra 3x3 convolutions with stride 1 at every resolution of hidden maps.

    After each hidden activation come `d` (or `g`) times convolution, BatchNorm and the same activation, with as many
    channels as before. The image's own resolution in G gets none: it has no hidden map. There are no shortcuts, so
    deep stacks of this kind are hard to train.
    """

    claims = [
        Claim(
            "more layers in D, with results either way",
            "fid",
            0,
            "hobby write-ups, without numbers",
        ),
        Claim(
            "twice as deep, with residual blocks: no gain at first (at ImageNet's scale)",
            "fid",
            0,
            "Brock et al. 2018 (BigGAN), section 3.1",
            "https://arxiv.org/abs/1809.11096",
            "recalled",
        ),
    ]
    cost = "9 C^2 parameters for each extra layer on C channels"

    d: int = choice(1, span=(0, 3), doc="extra layers at each resolution of D")
    g: int = choice(0, span=(0, 3), doc="extra layers at each resolution of G")

    def d_layers(self, layers: tuple) -> tuple:
        return _deeper(layers, self.d)

    def g_layers(self, layers: tuple) -> tuple:
        return _deeper(layers, self.g)


def _deeper(layers: tuple, extra: int) -> tuple:
    from bench.networks import BatchNorm, Conv

    table, channels, block = [], 0, ""
    for layer in layers:
        table.append(layer)
        if isinstance(layer, Conv):
            channels, block = layer.outputs, layer.name
        if layer.hidden:
            for i in range(1, extra + 1):
                name = f"{block}_more{i}"
                table += [
                    Conv(name, channels, channels, kernel=3, stride=1, padding=1),
                    BatchNorm(f"{name}_norm", channels),
                    replace(layer, name=f"{name}_relu"),
                ]
    return tuple(table)
