from bench.trick import Claim, Trick, choice

KINDS = ("batch", "layer", "group", "instance", "none")


class Normalization(Trick):
    """Normalization per network: layer, group, instance or no normalization where BatchNorm was.

    (x - mean) / sqrt(var + 1e-5), then a scale and a shift for each channel, with mean and variance of one image: over
    all channels and pixels (layer), over those of a group of channels (group: the largest number of groups up to 8 that
    divides the channels) or of one channel (instance). No image sees its batch, and sampling is the same function as
    training. Scales start at N(1, 0.02) as BatchNorm's do, from the same draws. "none" gives the layers before it a
    bias and, as with `batch_norm`, leaves the initialisation as it is, so the signal starts small.
    """

    claims = [
        Claim(
            "in D on CIFAR-10: FID 33.9 with layer norm, 56.3 with BatchNorm (weight norm 34.7, spectral norm 29.3)",
            "fid",
            -1,
            "Miyato et al. 2018, table 2",
            "https://arxiv.org/abs/1802.05957",
            about={"d": "layer"},
        ),
        Claim(
            "with a penalty on each image's gradient D takes layer normalization: BatchNorm makes the penalty invalid",
            "fid",
            -1,
            "Gulrajani et al. 2017 (WGAN-GP)",
            "https://arxiv.org/abs/1704.00028",
            about={"d": "layer"},
        ),
    ]
    stage = "norms"
    conflicts = {
        "batch_norm": "both say what is in BatchNorm's place; none here is that trick's false",
        "r3gan": "its recipe has no normalization",
    }
    interacts = {
        **dict.fromkeys(("r1", "r2", "wgan_gp"), "they refuse BatchNorm in D: with this they are possible"),
        "spectral_norm": "it takes out D's BatchNorm; another normalization stays and is stacked on it",
        "label_conditioning": "G is told the label by its BatchNorm, so leave g at batch",
    }

    d: str = choice("layer", among=KINDS, doc="what normalises D's maps")
    g: str = choice("batch", among=KINDS, doc="what normalises G's maps")

    def d_layers(self, layers: tuple) -> tuple:
        return _with(layers, self.d)

    def g_layers(self, layers: tuple) -> tuple:
        return _with(layers, self.g)


def _with(layers: tuple, kind: str) -> tuple:
    from bench.norms import GroupNorm, replaced

    def norm(layer):
        few = max(n for n in range(1, 9) if layer.channels % n == 0)
        groups = {"layer": 1, "group": few, "instance": layer.channels}
        return GroupNorm(layer.name, layer.channels, groups[kind], layer.eps) if kind in groups else None

    return layers if kind == "batch" else replaced(layers, norm)
