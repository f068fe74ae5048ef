from dataclasses import replace

from bench.trick import Claim, Trick, choice


class BatchSize(Trick):
    """Batch size: how many real and how many fake images a step uses.

    At an equal number of images a smaller batch takes more steps; at equal steps it sees fewer images. Which
    of the two is held equal is the grid's budget, and the verdict's sign can depend on it. Learning rates
    stay as they are.
    """

    claims = [
        Claim(
            "the number of images needed is least at a critical batch size, neither small nor large",
            "fid",
            0,
            "arXiv 2201.11989 (abstract); hobby write-ups differ",
            "https://arxiv.org/abs/2201.11989",
        )
    ]

    size: int = choice(16, span=(2, 4096), doc="images of each kind per step")

    def recipe(self, recipe):
        return replace(recipe, batch_size=self.size)
