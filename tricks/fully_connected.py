import math
from dataclasses import replace

from bench.trick import Claim, Trick, choice

_NONE = "there are no convolutions left"


class FullyConnected(Trick):
    """Fully connected GAN: dense layers in both networks, in place of all convolutions.

    G: latents, then `layers` times dense and ReLU, then dense to C x H x W numbers and tanh. D: all pixels in a row,
    then `layers` times dense and LeakyReLU, then dense to the logit. Biases everywhere, no BatchNorm: the nets of
    Goodfellow et al. 2014 with the parts of this benchmark (they had sigmoids in G, maxout and dropout in D). Weights
    start from N(0, 0.02) here too, which lets the signal of narrow layers vanish. The recipe's channels and kernel
    mean nothing here.
    """

    claims = [
        Claim(
            "convolutional networks in place of dense ones make GANs stable for larger images",
            "fid",
            1,
            "Radford et al. 2015, section 3",
            "https://arxiv.org/abs/1511.06434",
            "recalled",
        ),
        Claim(
            "use DCGAN when you can, it works",
            "fid",
            1,
            "ganhacks 7 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        ),
        Claim(
            "dense nets suffice for MNIST and make poor CIFAR-10 images",
            "fid",
            0,
            "Goodfellow et al. 2014, section 5",
            "https://arxiv.org/abs/1406.2661",
            "recalled",
        ),
    ]
    ganhacks = 7
    cost = "few multiply-adds; parameters grow with the number of pixels"
    conflicts = {
        "constant_width": "the width of dense layers is its own setting, `size`",
        "dense_layer": "all layers are dense already",
        "depth": f"{_NONE} to add to; `layers` is its own setting",
        "kernel_size": _NONE,
        "pooling": _NONE,
        "upsampling": _NONE,
        "virtual_batch_norm": "there is no BatchNorm that it could replace",
        "width": "the width of dense layers is its own setting, `size`",
    }
    interacts = {"initialization": "kaiming keeps the signal's scale, which nothing else does here"}

    size: int = choice(512, span=(1, 4096), doc="units of every hidden layer")
    layers: int = choice(2, span=(1, 8), doc="hidden layers of each network")

    def d_layers(self, layers: tuple) -> tuple:
        from bench.layers import Reshape
        from bench.networks import Conv

        convs = [layer for layer in layers if isinstance(layer, Conv)]
        side = convs[-1].kernel * math.prod(layer.stride for layer in convs)  # of the image
        pixels = convs[0].inputs * side**2
        return (Reshape("pixels", (pixels, 1, 1)), *self._chain(layers, pixels, convs[-1].name, 1))

    def g_layers(self, layers: tuple) -> tuple:
        from bench.layers import Reshape
        from bench.networks import Network

        *_, image, tanh = layers
        latents = layers[0].inputs
        shape = Network(layers, (latents, 1, 1)).output()
        chain = self._chain(layers, latents, image.name, math.prod(shape))
        return (*chain, Reshape("pixels", shape), tanh)

    def _chain(self, layers: tuple, inputs: int, last: str, outputs: int) -> tuple:
        """Return the hidden layers with the activation of `layers`, and the last one."""
        from bench.layers import Dense

        activation, table = next(layer for layer in layers if layer.hidden), []
        for i in range(1, self.layers + 1):
            table.append(Dense(f"dense{i}", inputs, self.size, bias=True))
            table.append(replace(activation, name=f"dense{i}_relu"))
            inputs = self.size
        return (*table, Dense(last, inputs, outputs, bias=True))
