from dataclasses import replace

from bench.trick import Adam, At, Claim, Optim, Trick, choice, dial

OPTIMIZERS = ("adam", "sgd", "rmsprop")
USUAL = {"sgd": 0.02}  # where a rate of 0 does not mean the recipe's: SGD at Adam's rate hardly moves


class Optimizer(Trick):
    """Optimiser per network: Adam, SGD or RMSProp, each with a rate of its own.

    SGD: theta <- theta - lr g, with momentum v <- momentum v + g where asked for. RMSProp (torch's): s <- 0.99 s
    + 0.01 g^2, theta <- theta - lr g / (sqrt(s) + 1e-8). Equal rates would compare rates, not optimisers (SGD at
    2e-4 leaves D frozen): a rate of 0 means the recipe's for Adam and RMSProp, and 0.02 for SGD. To be fair to
    an optimiser list a few rates: they train in one program.
    """

    claims = [
        Claim(
            "use SGD for the discriminator and Adam for the generator (no number)",
            "fid",
            -1,
            "ganhacks 9 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
            about={"d": "sgd", "g": "adam"},
        ),
        Claim(
            "a Wasserstein critic with clipping wants RMSProp at 5e-5: momentum and Adam are unstable",
            "fid",
            0,
            "Arjovsky et al. 2017, as quoted by others",
            "https://arxiv.org/abs/1701.07875",
            evidence="quoted",
            about={"d": "rmsprop", "g": "rmsprop"},
        ),
    ]
    ganhacks = 9
    after = ("learning_rate",)

    d: str = choice("sgd", among=OPTIMIZERS, doc="D's optimiser")
    g: str = choice("adam", among=OPTIMIZERS, doc="G's optimiser")
    d_lr: float = dial(
        0.0, span=(0.0, 1.0), doc="D's rate; 0 is the usual one: the recipe's, or 0.02 for SGD"
    )
    g_lr: float = dial(
        0.0, span=(0.0, 1.0), doc="G's rate; 0 is the usual one: the recipe's, or 0.02 for SGD"
    )
    momentum: float = dial(0.0, span=(0.0, 0.999), doc="SGD's momentum")

    def recipe(self, recipe):
        return replace(recipe, d_optimizer=self.d, g_optimizer=self.g)

    def optim(self, settings: Optim, at: At) -> Optim:
        d, g = settings
        return Optim(d=self._own(self.d, self.d_lr, d), g=self._own(self.g, self.g_lr, g))

    def _own(self, kind: str, rate, adam: Adam) -> Adam:
        import torch

        usual = torch.full_like(adam.lr, USUAL[kind]) if kind in USUAL else adam.lr
        adam = adam._replace(lr=torch.where(rate > 0, rate, usual))
        if kind == "sgd":
            adam = adam._replace(beta1=self.momentum + torch.zeros_like(adam.beta1))
        if kind == "rmsprop":
            adam = adam._replace(beta2=torch.full_like(adam.beta2, 0.99))
        return adam
