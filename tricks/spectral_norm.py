from bench.trick import Claim, Trick, choice


class SpectralNorm(Trick):
    """Spectral normalization: every weight of D is divided by its largest singular value.

    W / sigma(W) with sigma = u^T W v; a convolution's W is the matrix (out, in k k). Each forward pass in training
    takes one power iteration u <- W v / |W v|, v <- W^T u / |W^T u| on vectors kept from pass to pass (three passes of
    D a step). They are not differentiated, sigma is: as torch.nn.utils.parametrizations.spectral_norm, but without its
    15 iterations before the first step, so sigma is underestimated there. It replaces D's BatchNorm, as published: the
    layers before it get a bias. With g, G's weights too; G keeps its BatchNorm.

    It lowers the effective learning rate, so a short budget can turn the verdict round. An average of G's weights over
    time must not average u and v. With SN the initial scale of a weight does not matter, only its direction.
    """

    claims = [
        Claim(
            "CIFAR-10, standard CNN: FID 29.3 against 56.3 with BatchNorm in D; inception score 7.42 against 6.27",
            "fid",
            -1,
            "Miyato et al. 2018, table 2",
            "https://arxiv.org/abs/1802.05957",
        ),
        Claim(
            "CelebA, DCGAN, single runs: 17.95 to 23.16 with BCE, 22.78 to 19.4 with hinge; "
            '"seems that SN does little to small models"',
            "fid",
            1,
            "README of a DCGAN ablation, Zenodo 4759263",
            "https://doi.org/10.5281/zenodo.4759263",
        ),
    ]
    cost = "one power iteration on each weight in each pass: no extra parameters, no extra passes"
    stage = "weights"
    interacts = {
        "ema": "u and v are averaged with the running statistics; they are brought back to norm 1 where G is sampled",
        "batch_norm": "D has no BatchNorm with either",
        "normalization": "what it puts in place of D's BatchNorm stays, stacked on this",
        "initialization": "only the direction of a weight still matters",
        "learning_rate": "the effective rate is lower: train longer, or raise the rate",
    }

    d: bool = choice(
        True, among=(True, False), doc="whether D's weights are normalised, in place of its BatchNorm"
    )
    g: bool = choice(
        False, among=(True, False), doc="whether G's weights are normalised, beside its BatchNorm"
    )

    def d_layers(self, layers: tuple) -> tuple:
        from bench.norms import replaced, spectral

        return spectral(replaced(layers, lambda norm: None)) if self.d else layers

    def g_layers(self, layers: tuple) -> tuple:
        from bench.norms import spectral

        return spectral(layers) if self.g else layers
