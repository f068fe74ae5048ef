from bench.trick import At, Claim, Trick, dial


class Dropout(Trick):
    """Dropout: in training each number of a hidden map is zero with probability p, the rest are scaled up.

    maps * (u >= p) / (1 - p) with uniform u of its own for every number, after every hidden activation of D (and of G).
    D drops in all its passes, with other draws each: for real images, for fakes, and for fakes in G's step. G is whole
    when it is sampled; ganhacks and pix2pix keep its dropout then, which changes what the score means.
    """

    claims = [
        Claim(
            "a DCGAN study over 0, .2, .4, .6 and .8, single runs: best at .6",
            "fid",
            -1,
            "Applied and Computational Engineering, vol. 260 (abstract)",
            about={"d": 0.6},
        ),
        Claim(
            "use dropout in G in both training and test phase, as noise (50 %)",
            "fid",
            -1,
            "ganhacks 17 (Chintala et al. 2016), after pix2pix",
            "https://github.com/soumith/ganhacks",
            about={"g": 0.5},
        ),
    ]
    noise = "uniform"
    heavy = True
    ganhacks = 17
    cost = "as many draws, made on the CPU, as there are numbers in the hidden maps"
    interacts = {
        **dict.fromkeys(("r1", "r2", "wgan_gp"), "the penalty is on the gradient of a D that drops"),
        "layer_noise": "both disturb the same maps",
        "batch_norm": "the variance that BatchNorm sees behind a dropped map is that of training only",
    }

    d: float = dial(0.5, off=0.0, span=(0.0, 0.9), doc="probability that a number of D's hidden maps is zero")
    g: float = dial(0.0, off=0.0, span=(0.0, 0.9), doc="the same for G, in training only")

    def d_maps(self, maps, at: At):
        return _dropped(maps, self.d, at.noise)

    def g_maps(self, maps, at: At):
        return _dropped(maps, self.g, at.noise)


def _dropped(maps, p, u):
    return (maps * (u >= p) / (1 - p)).to(maps.dtype)
