from dataclasses import replace

from bench.trick import Claim, Trick, choice


class NoiseLength(Trick):
    """Noise length: how many numbers G makes an image from.

    Latents are drawn 256 wide and a shorter length takes the prefix, so runs of one seed stay paired. G's
    first layer has `length` inputs; the BatchNorm behind it keeps the scale of its output.
    """

    claims = [
        Claim(
            "matters: the best length depends on data set and architecture",
            "fid",
            0,
            "Padala et al. 2020, arXiv 2004.06882 (abstract)",
            "https://arxiv.org/abs/2004.06882",
        )
    ]

    length: int = choice(32, span=(1, 256), doc="numbers in a latent vector")

    def recipe(self, recipe):
        return replace(recipe, noise_length=self.length)
