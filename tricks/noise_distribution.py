from bench.trick import Claim, Trick, choice


class NoiseDistribution(Trick):
    """Noise distribution: what latents are drawn from, in place of the standard normal.

    Made of the same normal draws z, number by number, in a first layer of G, so runs of one seed stay paired and
    sampling follows by itself. With Phi the normal distribution function:

        uniform       2 Phi(z) - 1, in (-1, 1), variance 1/3, as DCGAN has it
        uniform_unit  sqrt(3) (2 Phi(z) - 1), variance 1: another shape at the same scale
        truncated     the normal cut off at -2 and 2 and not rescaled, variance 0.77, by its inverse distribution
                      function: what drawing again until |z| < 2 gives

    The BatchNorm behind G's first layer takes out any scale, so there uniform and uniform_unit are one trick but for
    its epsilon; what is left to measure is the shape.
    """

    claims = [
        Claim(
            "do not sample from a uniform distribution, sample from a Gaussian",
            "fid",
            1,
            "ganhacks 3 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
            about={"kind": "uniform"},
        ),
        Claim(
            "DCGAN itself draws 100 uniform numbers",
            "fid",
            0,
            "Radford et al. 2015, section 4",
            "https://arxiv.org/abs/1511.06434",
            about={"kind": "uniform"},
        ),
        Claim(
            "a truncated normal moves FID from 17.95 to 21.23 with BCE, 22.78 to 18.45 with the hinge, 20.42 to 18.59"
            " with least squares, 17.57 to 17.17 with Wasserstein: no stable sign, one run a cell",
            "fid",
            0,
            "DCGAN ablation on CelebA (README, Zenodo 4759263)",
            "https://doi.org/10.5281/zenodo.4759263",
            about={"kind": "truncated"},
        ),
    ]
    ganhacks = 3
    stage = "extras"  # in front of whatever G is
    interacts = {
        "batch_norm": "without BatchNorm in G, `uniform` also starts with smaller maps (0.58 of the scale)"
    }

    kind: str = choice(
        "uniform", among=("uniform", "uniform_unit", "truncated"), doc="the distribution of a latent number"
    )

    def g_layers(self, layers: tuple) -> tuple:
        from bench.layers import Latents

        return (Latents("latents", self.kind), *layers)
