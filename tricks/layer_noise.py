from bench.trick import At, Claim, Trick, dial


class LayerNoise(Trick):
    """Layer noise: in training Gaussian noise is added to every hidden map of D (and of G).

    maps + sigma e after every hidden activation, with standard normal e of its own for every number and every pass.
    The maps have no fixed scale: behind BatchNorm and LeakyReLU they are about 1 wide; without BatchNorm they are much
    smaller at first, so the same sigma does more. Noise on the images is `input_noise`. G is sampled without noise.
    """

    claims = [
        Claim(
            "on MNIST D has Gaussian noise on the output of each layer (part of a semi-supervised recipe, not ablated)",
            "fid",
            -1,
            "Salimans et al. 2016, section 6.1",
            "https://arxiv.org/abs/1606.03498",
        ),
        Claim(
            "add Gaussian noise to every layer of G (Zhao et al., EBGAN)",
            "fid",
            -1,
            "ganhacks 13 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        ),
    ]
    noise = "normal"
    heavy = True
    ganhacks = 13
    cost = "as many draws, made on the CPU, as there are numbers in the hidden maps"
    after = ("dropout",)  # so that the noise is on every number, as after the layer's last operation
    interacts = {
        "input_noise": "noise on what D sees, of known scale",
        "dropout": "both disturb the same maps",
    }

    d: float = dial(0.1, off=0.0, span=(0.0, 10.0), doc="standard deviation on D's hidden maps")
    g: float = dial(
        0.0, off=0.0, span=(0.0, 10.0), doc="standard deviation on G's hidden maps, in training only"
    )

    def d_maps(self, maps, at: At):
        return (maps + self.d * at.noise).to(maps.dtype)

    def g_maps(self, maps, at: At):
        return (maps + self.g * at.noise).to(maps.dtype)
