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
    cost = "G's first layer has length x first maps parameters"
    interacts = {
        "batch_norm": "without BatchNorm in G its first maps grow with the square root of the length",
        "noise_distribution": "sets the scale of a latent number, as this sets how many there are",
    }

    length: int = choice(32, span=(1, 256), doc="numbers in a latent vector")

    def recipe(self, recipe):
        return replace(recipe, noise_length=self.length)
