from dataclasses import replace

from bench.trick import Claim, Trick, choice


class TrainingLength(Trick):
    """Training length: the run trains `factor` times the grid's budget.

    This breaks the equal budget on purpose: the arm's images and seconds differ from the baseline's, and the
    cost columns say so. Schedules over the budget (fading noise, a decaying rate) stretch with it. What the
    score does along one run is in its curve, at no extra training; this trick asks what the last G is worth.
    """

    claims = [
        Claim(
            'for some models FID "diverges or starts to increase at a certain time point": longer is not better',
            "fid",
            0,
            "Heusel et al. 2017",
            "https://arxiv.org/abs/1706.08500",
        ),
        Claim(
            "BCE collapses at 48 thousand steps; the author reports the result before collapse (DCGAN, CelebA)",
            "fid",
            1,
            "DCGAN-zoo (Zenodo 4759263)",
            "https://zenodo.org/records/4759263",
        ),
    ]
    cost = "`factor` times the steps of a run"

    factor: float = choice(2.0, span=(0.1, 10.0), doc="length of the run in units of the budget")

    def recipe(self, recipe):
        return replace(recipe, length=recipe.length * self.factor)
