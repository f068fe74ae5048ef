from bench.trick import Claim, Trick, choice


class Upsampling(Trick):
    """Upsampling in G: every doubling is a 3x3 convolution on enlarged maps, not a transposed convolution.

    nearest, bilinear (corners not aligned): the maps are enlarged twofold, then convolved with stride 1 and padding 1.
    pixel_shuffle: a 3x3 convolution makes 4 C channels, of which pixel (2i + a, 2j + b) of channel c takes number
    4c + 2a + b (Shi et al. 2016); the four start as one (ICNR, Aitken et al. 2017), so G starts without a checkerboard.
    The image layer doubles too; only the first layer, from latents to the smallest maps, stays. All three kinds take
    36 multiply-adds where the 4x4 transposed convolution takes 16; weights are 9/16 of its, with pixel_shuffle 36/16.
    A transposed convolution whose kernel is no multiple of its stride (3 or 5) overlaps unevenly, so what this trick
    is compared with depends on the recipe's kernel, which it does not use itself.
    """

    claims = [
        Claim(
            "enlarging, then convolving removes the checkerboard of transposed convolutions",
            "fid",
            -1,
            "Odena et al. 2016 (abstract)",
            "https://distill.pub/2016/deconv-checkerboard/",
        ),
        Claim(
            "for upsampling, use PixelShuffle or a transposed convolution with stride",
            "fid",
            0,
            "ganhacks 5 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
            about={"kind": "pixel_shuffle"},
        ),
        Claim(
            "an initialisation that makes the sub-pixel convolution an enlargement at first is free of checkerboards",
            "fid",
            -1,
            "Aitken et al. 2017 (abstract)",
            "https://arxiv.org/abs/1707.02937",
            about={"kind": "pixel_shuffle"},
        ),
        Claim(
            "PixelShuffle without a low-pass makes checkerboard-like artefacts; bilinear is kept",
            "fid",
            1,
            "Huang et al. 2024 (R3GAN)",
            "https://arxiv.org/abs/2501.05441",
            "quoted",
            about={"kind": "pixel_shuffle"},
        ),
    ]
    ganhacks = 5
    cost = "multiply-adds of G's doublings x 9/4; their weights x 9/16, with pixel_shuffle x 9/4"
    interacts = {"kernel_size": "changes D only: these convolutions are always 3x3"}

    kind: str = choice(
        "nearest", among=("nearest", "bilinear", "pixel_shuffle"), doc="how G doubles its maps"
    )

    def g_layers(self, layers: tuple) -> tuple:
        from bench.layers import UpConv
        from bench.networks import ConvTranspose

        return tuple(
            UpConv(layer.name, layer.inputs, layer.outputs, bias=layer.bias, init=layer.init, kind=self.kind)
            if isinstance(layer, ConvTranspose) and layer.stride == 2
            else layer
            for layer in layers
        )
