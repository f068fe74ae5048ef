from dataclasses import replace

from bench.trick import Claim, Trick, choice


class MinibatchDiscrimination(Trick):
    """Minibatch discrimination: D is shown how near each image is to the others of its batch.

    With f(x_i) D's last maps, flattened, and T a trained tensor: M_i = f(x_i) T, kernels x dims;
    o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1), appended to f(x_i) for the logit. The sum has j = i in it, as the paper's
    formula: o is never below 1, which serves the logit as a bias; the authors' code leaves it out. T starts at
    N(0, 0.02) as other weights do. Real and fake images are judged in batches of their own.
    """

    claims = [
        Claim(
            "taking it out of the full model is a very large drop",
            "is",
            1,
            "Salimans et al. 2016, section 3.2",
            "https://arxiv.org/abs/1606.03498",
        ),
        Claim(
            "CIFAR-10, inception score: 8.09 with it, 3.87 without",
            "is",
            1,
            "Salimans et al. 2016, table 3",
            "https://arxiv.org/abs/1606.03498",
            evidence="recalled",
        ),
        Claim(
            "mixed results",
            "fid",
            0,
            "ganhacks 15 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        ),
    ]
    ganhacks = 15
    cost = (
        "features x kernels x dims parameters (2 million at 32 pixels); distances of all pairs in the batch"
    )
    stage = "extras"
    after = ("minibatch_stddev",)  # whose map is then one of the last maps
    conflicts = {"mixed_batches": "in a batch of real and fake images an image is compared with both kinds"}
    interacts = {
        "minibatch_stddev": "a simpler way to the same end",
        "spectral_norm": "T is not normalised",
        "diffaugment": "augmenting each image its own way hides a collapsed batch from it",
    }

    kernels: int = choice(100, span=(1, 1024), doc="measures of nearness (B in the paper)")
    dims: int = choice(5, span=(1, 64), doc="numbers that each measure compares (C in the paper)")

    def d_layers(self, layers: tuple) -> tuple:
        from bench.norms import MinibatchDiscrimination, last_weights

        at = last_weights(layers)
        features = layers[at].inputs * layers[at].kernel ** 2  # the logit's kernel covers the whole last maps
        nearness = MinibatchDiscrimination("nearness", features, self.kernels, self.dims)
        logit = replace(layers[at], inputs=features + self.kernels, kernel=1, stride=1, padding=0)
        return (*layers[:at], nearness, logit, *layers[at + 1 :])
