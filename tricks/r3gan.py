from dataclasses import replace

from bench.trick import At, Claim, Scores, Trick, choice


class R3gan(Trick):
    """R3GAN's recipe: relativistic pairing, R1 and R2, no BatchNorm, LeakyReLU in both networks, Adam without momentum.

    L_D = E softplus(-(D(x_i) - D(G(z_i)))) + gamma/2 (E |grad D(x)|^2 + E |grad D(G(z))|^2); L_G = E
    softplus(-(D(G(z_i)) - D(x_i))); penalties in every step; beta1 0, beta2 0.99. The layers before the lost
    BatchNorms get biases, and G's ReLUs the slope 0.2. What is not here: the paper's architecture (its residual
    blocks, grouped convolutions, bilinear resampling, no tanh), its initialisation, the schedules of gamma (0.05
    to 0.005), of beta2 (0.9 to 0.99) and of the rate, and the averaged G, which is a read-out. N(0, 0.02)
    without BatchNorm makes a small signal.
    """

    claims = [
        Claim(
            "StackedMNIST: 1000 modes and KL 0.078; the GAN loss with R1 and R2 693 and 0.93; R1 alone diverges",
            "fid",
            -1,
            "Huang et al. 2025, as quoted by others",
            "https://arxiv.org/abs/2501.05441",
            evidence="quoted",
        )
    ]
    stage = "norms"
    cost = (
        "a backward pass through D's gradient at real images and at fakes; D sees real images in G's step too"
    )
    conflicts = {
        "r1": "it has the penalty already",
        "r2": "it has the penalty already",
        "optimizer": "its betas are Adam's",
        "normalization": "it has no normalization",
        "virtual_batch_norm": "it has no normalization",
    }
    interacts = {"initialization": "without BatchNorm, N(0, 0.02) starts with a small signal"}
    loss = "r3gan"
    heavy = True
    paired = True
    penalty_at = ("real", "fake")

    gamma: float = choice(0.05, span=(0.0, 1000.0), doc="weight of both penalties; try powers of ten")

    def recipe(self, recipe):
        return replace(recipe, beta1=0.0, beta2=0.99)

    def d_layers(self, layers: tuple) -> tuple:
        from bench.norms import replaced

        return replaced(layers, lambda norm: None)

    def g_layers(self, layers: tuple) -> tuple:
        from bench.networks import LeakyReLU
        from bench.norms import replaced

        leaky = (replace(layer, slope=0.2) if isinstance(layer, LeakyReLU) else layer for layer in layers)
        return replaced(tuple(leaky), lambda norm: None)

    def d_loss(self, loss, scores: Scores, at: At):
        from torch.nn.functional import softplus

        return softplus(scores.fake - scores.real).mean()

    def g_loss(self, loss, scores: Scores, at: At):
        from torch.nn.functional import softplus

        return softplus(scores.real - scores.fake).mean()

    def d_penalty(self, gradient, at: At):
        return self.gamma / 2 * gradient.square().flatten(1).sum(1).mean()
