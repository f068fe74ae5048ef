from bench.trick import At, Claim, Gates, Trick, dial


class Pretraining(Trick):
    """Discriminator pretraining: D trains alone against the untrained G before G's first step.

    The D-only steps have negative numbers, data and latents of their own, and come on top of the budget: they
    show in the cost columns. D's Adam moments stay warm; G, its moments and its running statistics do not
    move.
    """

    claims = [
        Claim(
            "gives G a useful gradient from its first step",
            "fid",
            -1,
            "hobby write-ups, which contradict each other",
            "https://github.com/soumith/ganhacks",
        ),
        Claim(
            "a D near its optimum leaves G with a vanishing gradient",
            "fid",
            1,
            "Arjovsky & Bottou 2017, theorem 2.4 (saturating loss)",
            "https://arxiv.org/abs/1701.04862",
        ),
    ]

    steps: float = dial(500, off=0, span=(0, 10_000), doc="D-only steps before G's first")

    def gates(self, gates: Gates, at: At) -> Gates:
        return Gates(d=gates.d | (at.step >= -self.steps), g=gates.g)
