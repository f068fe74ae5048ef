from bench.trick import Claim, Trick, choice


class VirtualBatchNorm(Trick):
    """Virtual batch normalization in G: each image is normalised by a fixed reference batch and itself.

    Mean and variance over the maps of `reference` fixed latents and the image's own, which count for
    1 / (reference + 1); the reference images are normalised by their own statistics alone. G makes the reference
    images at every pass, with the weights of the moment, and the gradient goes through them. The reference latents are
    normal draws, the same for every run, and pass whatever another trick does to latents. An image does not depend on
    its batch, and nothing is kept for sampling: eval and train mode are the same function.
    """

    claims = [
        Claim(
            "BatchNorm in its place is a small decrease",
            "is",
            1,
            "Salimans et al. 2016, section 3.5",
            "https://arxiv.org/abs/1606.03498",
        ),
        Claim(
            "CIFAR-10, inception score: 8.09 with it, 7.54 with BatchNorm in its place",
            "is",
            1,
            "Salimans et al. 2016, table 3",
            "https://arxiv.org/abs/1606.03498",
            evidence="recalled",
        ),
    ]
    cost = "G makes the reference images at every pass: twice G's work where they are as many as the batch"
    stage = "extras"
    after = ("noise_distribution",)  # the reference comes in front of it, so its latents pass it too
    conflicts = {
        "batch_norm": "this is what is in BatchNorm's place in G; for D there is normalization",
        "r3gan": "its recipe has no normalization",
        "fully_connected": "its G has no BatchNorm",
        "label_conditioning": "G is told the label by its BatchNorm",
    }
    interacts = {
        "normalization": "leave its g at batch: only BatchNorm is replaced",
        "batch_norm_momentum": "there are no running statistics left",
    }

    reference: int = choice(64, span=(2, 4096), doc="images in the reference batch")

    def g_layers(self, layers: tuple) -> tuple:
        from bench.errors import Refused
        from bench.networks import BatchNorm
        from bench.norms import AppendReference, DropReference, VirtualBatchNorm, replaced

        if not any(isinstance(layer, BatchNorm) for layer in layers):
            raise Refused("virtual_batch_norm: G has no BatchNorm that it could replace")
        own = replaced(layers, lambda x: VirtualBatchNorm(x.name, x.channels, self.reference, x.eps))
        return (AppendReference("reference", self.reference), *own, DropReference("live", self.reference))
