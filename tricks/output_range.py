from bench.trick import Claim, Trick


class OutputRange(Trick):
    """Output range: G ends in a sigmoid and D sees images in [0, 1], in place of tanh and [-1, 1].

    One joint factor: with a sigmoid and data in [-1, 1] D would tell them apart by their range. G's last layers are
    sigmoid and 2x - 1, D's first is (x + 1)/2, so everything between the two (noise on images, penalties on D's
    gradient, scores) still meets images in [-1, 1]: a standard deviation of noise keeps its size relative to the data,
    and a gradient by the image is half of that by what D's convolutions see.

    Since 2 sigmoid(x) - 1 = tanh(x/2), G differs by a factor 2 before its output, and D by half the contrast, a mean
    that is no longer 0, and the meaning of its zero padding: black instead of grey.
    """

    claims = [
        Claim(
            "normalise the images between -1 and 1; tanh as the last layer of G",
            "fid",
            1,
            "ganhacks 1 (Chintala et al. 2016); Radford et al. 2015, section 3",
            "https://github.com/soumith/ganhacks",
        ),
        Claim(
            "compare_gan puts out 0.5 tanh + 0.5, mimicry's DCGAN for CIFAR a sigmoid, both with data in [0, 1]",
            "fid",
            0,
            "source code of compare_gan and mimicry",
            "https://github.com/google/compare_gan",
        ),
    ]
    ganhacks = 1
    stage = "extras"  # in front of whatever D is

    def d_layers(self, layers: tuple) -> tuple:
        from bench.layers import Affine

        return (Affine("range", 0.5, 0.5), *layers)

    def g_layers(self, layers: tuple) -> tuple:
        from bench.layers import Affine, Sigmoid
        from bench.networks import Tanh

        table = []
        for layer in layers:
            tanh = isinstance(layer, Tanh)
            table += [Sigmoid("image_sigmoid"), Affine("image_range", 2.0, -1.0)] if tanh else [layer]
        return tuple(table)
