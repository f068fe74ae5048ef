from bench.trick import Claim, Trick, choice


class LabelConditioning(Trick):
    """Label conditioning: G is told which class to make, D of which class an image is said to be.

    G: every BatchNorm has a scale and a shift for each class, statistics over all classes (conditional BatchNorm).
    D: to the logit is added <embedding of y, sum over pixels of its last maps>, the projection discriminator.
    Embeddings start at N(0, 0.02), scales at N(1, 0.02), shifts at 0.

    Real images come with their own labels, fakes with labels in the data's proportions, in training and when G is
    scored: a score of equal shares of unequal classes would measure the shares. Not one more trick among unconditional
    arms: it uses what they are not given. Beside spectral normalization the embedding stays as it is (the paper
    normalises it too).
    """

    claims = [
        Claim(
            "CIFAR-10, ResNet: FID 10.84 with projection, 16.77 unconditional (SNGAN)",
            "fid",
            -1,
            "mimicry, table of results; Miyato & Koyama 2018, arXiv 1802.05637",
            "https://github.com/kwotsin/mimicry",
        ),
        Claim(
            "if you have labels, use them; embed discrete variables",
            "fid",
            -1,
            "ganhacks 12 and 16 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        ),
    ]
    ganhacks = 16
    cost = "a scale and a shift for each class and channel of G; an embedding for each class in D"
    stage = "extras"
    after = ("minibatch_stddev", "minibatch_discrimination")  # what they append is projected too
    conflicts = {
        "no_labels": "there is nothing to be told",
        "no_batch_norm_in_g": "G is told the label by its BatchNorm",
        "virtual_batch_norm": "G is told the label by its BatchNorm",
    }
    interacts = {"spectral_norm": "the embedding is left as it is"}

    classes: int = choice(10, span=(2, 1000), doc="number of classes: labels are below it")

    def d_layers(self, layers: tuple) -> tuple:
        from bench.norms import Projection, last_weights

        at = last_weights(layers)
        told = Projection(layers[at].name, layers[at], self.classes)
        return (*layers[:at], told, *layers[at + 1 :])

    def g_layers(self, layers: tuple) -> tuple:
        from bench.norms import ConditionalBatchNorm, replaced

        return replaced(
            layers, lambda x: ConditionalBatchNorm(x.name, x.channels, x.momentum, x.eps, self.classes)
        )
