from bench.trick import Claim, Trick, choice


class BatchNorm(Trick):
    """BatchNorm per network: without it the layers before it get a bias instead.

    The initialisation stays N(0, 0.02), so without BatchNorm the signal also starts small: this measures
    removing BatchNorm from the published network, not the best network without it. Layers that no BatchNorm follows
    (D's first, the image, the logit) have no bias in the published network and get none here.
    """

    claims = [
        Claim(
            "BatchNorm proved critical to get deep generators to begin learning",
            "fid",
            1,
            "Radford et al. 2015, section 3",
            "https://arxiv.org/abs/1511.06434",
        ),
        Claim(
            "D with BatchNorm has FID 56.3 on CIFAR-10; with weight, layer or spectral normalisation in its place"
            " 34.7, 33.9 or 29.3",
            "fid",
            -1,
            "Miyato et al. 2018, table 2",
            "https://arxiv.org/abs/1802.05957",
            about={"d": False},
        ),
    ]
    stage = "norms"
    cost = "two parameters a channel fewer, one more"
    inert_if = {"fully_connected": "its dense layers have no BatchNorm to remove"}
    interacts = {
        "initialization": "N(0, 0.02) lets the signal vanish without BatchNorm; crossed with kaiming the two come apart"
    }

    g: bool = choice(False, among=(True, False), doc="whether G keeps its BatchNorm")
    d: bool = choice(True, among=(True, False), doc="whether D keeps its BatchNorm")

    def g_layers(self, layers: tuple) -> tuple:
        return self._kept(layers, self.g)

    def d_layers(self, layers: tuple) -> tuple:
        return self._kept(layers, self.d)

    def _kept(self, layers: tuple, kept: bool) -> tuple:
        from bench.norms import replaced

        return layers if kept else replaced(layers, lambda norm: None)
