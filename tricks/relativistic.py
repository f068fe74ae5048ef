from bench.trick import At, Claim, Scores, Trick


class Relativistic(Trick):
    """Relativistic pairing (RpGAN): D is asked whether a real image looks more real than a fake, pair by pair.

    L_D = E softplus(-(D(x_i) - D(G(z_i)))); L_G = E softplus(-(D(G(z_i)) - D(x_i))), on logits; real image i of
    the batch is paired with fake i. The non-saturating form for G, as in published code (the R3GAN paper writes
    the minimax form). G's step shows D the batch's real images too. Label tricks are inert.
    """

    claims = [
        Claim(
            "CIFAR-10, CNN: FID 36.61 (its averaging variant RaSGAN 31.98; 25.60 with a gradient penalty)",
            "fid",
            -1,
            "Jolicoeur-Martineau 2018, as quoted by others",
            "https://arxiv.org/abs/1807.00734",
            evidence="quoted",
        ),
        Claim(
            "StackedMNIST: diverges with R1 alone; with R1 and R2 1000 modes, where the GAN loss has 693",
            "fid",
            -1,
            "Huang et al. 2025 (R3GAN), as quoted by others",
            "https://arxiv.org/abs/2501.05441",
            evidence="quoted",
        ),
    ]
    cost = "one more pass of D, over real images, in G's step"
    loss = "relativistic"
    paired = True

    def d_loss(self, loss, scores: Scores, at: At):
        from torch.nn.functional import softplus

        return softplus(scores.fake - scores.real).mean()

    def g_loss(self, loss, scores: Scores, at: At):
        from torch.nn.functional import softplus

        return softplus(scores.real - scores.fake).mean()
