from dataclasses import replace

from bench.trick import Claim, Trick, choice


class BatchNormMomentum(Trick):
    """BatchNorm momentum: how fast G's running statistics follow those of its batches.

    running <- (1 - g) running + g batch, PyTorch's sense: 0.1 here is a decay of 0.9 in TensorFlow. Training uses
    batch statistics, so this changes no weight: only what is sampled in eval mode. With g too small for a short budget
    the statistics are still those of the start; with 1 they are those of the last batch. D is never sampled and keeps
    no running statistics, so its momentum cannot matter here.
    """

    claims = [
        Claim(
            "a decay of .9 (0.1 in PyTorch) with eps 1e-5 is what a large comparison used for all its models",
            "fid",
            0,
            "compare_gan, configurations",
            "https://github.com/google/compare_gan",
        ),
        Claim(
            "sampling with running or with batch statistics can change FID by an order of magnitude (about 20 against "
            "more than 400; 2 against 9)",
            "fid",
            0,
            "pytorch-fid, issue 118",
            "https://github.com/mseitzer/pytorch-fid/issues/118",
        ),
    ]
    stage = "norms"
    inert_if = {"no_batch_norm_in_g": "there are no running statistics"}
    interacts = {"batch_norm": "without BatchNorm in G there is nothing to follow"}

    g: float = choice(0.01, span=(0.0, 1.0), doc="weight of the newest batch in G's running statistics")

    def g_layers(self, layers: tuple) -> tuple:
        from bench.networks import BatchNorm

        return tuple(replace(x, momentum=self.g) if isinstance(x, BatchNorm) else x for x in layers)
