from dataclasses import replace

from bench.trick import At, Claim, Gates, Trick, choice


class DSteps(Trick):
    """Several D steps: D moves `k` times, each time on new images, for every move of G.

    G's gate opens at every k-th step. With `on_top` the run is k times as long, so G moves as often as in the
    baseline and D's further images come on top of the budget: they show in the cost columns. Without it the run
    sees as many images as the baseline, and G moves k times less often.
    """

    claims = [
        Claim(
            "train D more, if you have a labelled or a noisy set [notsure]; do not balance by the losses",
            "fid",
            0,
            "ganhacks 11 and 14 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
            evidence="recalled",
        ),
        Claim(
            "the critic should be trained to optimality: 5 steps for one of G",
            "fid",
            -1,
            "Arjovsky et al. 2017, as quoted by others",
            "https://arxiv.org/abs/1701.07875",
            evidence="quoted",
            about={"k": 5},
        ),
        Claim(
            "DCGAN is configured with 2 steps of D for one of G",
            "fid",
            -1,
            "StudioGAN's configurations",
            "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
            about={"k": 2},
        ),
    ]
    cost = "k times the steps of D, on top of the budget or in G's place"
    interacts = {"wasserstein": "its paper's 5 steps", "wgan_gp": "its paper's 5 steps"}

    k: int = choice(2, span=(2, 10), doc="steps of D for one of G")
    on_top: bool = choice(True, among=(True, False), doc="whether G moves as often as in the baseline")

    def recipe(self, recipe):
        return replace(recipe, length=recipe.length * self.k) if self.on_top else recipe

    def gates(self, gates: Gates, at: At) -> Gates:
        return Gates(d=gates.d, g=gates.g & ((at.step + 1) % self.k == 0))
