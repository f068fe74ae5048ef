from dataclasses import replace

from bench.trick import Claim, Trick, choice


class BatchNorm(Trick):
    """BatchNorm per network: without it the layers before it get a bias instead.

    The initialisation stays N(0, 0.02), so without BatchNorm the signal also starts small: this measures
    removing BatchNorm from the published network, not the best network without it.
    """

    claims = [
        Claim(
            "BatchNorm proved critical to get deep generators to begin learning",
            "fid",
            1,
            "Radford et al. 2015, section 3",
            "https://arxiv.org/abs/1511.06434",
        )
    ]

    g: bool = choice(False, among=(True, False), doc="whether G keeps its BatchNorm")
    d: bool = choice(True, among=(True, False), doc="whether D keeps its BatchNorm")

    def g_layers(self, layers: tuple) -> tuple:
        return layers if self.g else _without(layers)

    def d_layers(self, layers: tuple) -> tuple:
        return layers if self.d else _without(layers)


def _without(layers: tuple) -> tuple:
    from bench import networks

    kept = []
    for layer in layers:
        if not isinstance(layer, networks.BatchNorm):
            kept.append(layer)
            continue
        # The layer that BatchNorm's shift used to serve, the last one with weights, gets a bias of its own.
        last = max(i for i, before in enumerate(kept) if isinstance(before, networks.Conv))
        kept[last] = replace(kept[last], bias=True)
    return tuple(kept)
