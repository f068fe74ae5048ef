from bench.trick import At, Claim, Now, Trick, dial


class Ema(Trick):
    """Averaged G (EMA): samples are drawn from an exponential moving average of G's weights.

    After each step of G: a <- b a + (1 - b) theta with b = min(decay, (1 + t) / (10 + t)), t the number of G's
    steps before it. The warm-up rules for the first 9000 steps at 0.999, so short runs average over about their
    last ninth. BatchNorm's running statistics are averaged alike: weights averaged without them are sampled with
    another G's statistics. A read-out: training does not know of it, so every run is scored with and without it.
    """

    claims = [
        Claim(
            "DCGAN on CelebA, FID: BCE 17.95 to 15.88, hinge 22.78 to 17.65, least squares 20.42 to 15.92, "
            "Wasserstein 17.57 to 14.93 (single runs)",
            "fid",
            -1,
            "DCGAN-zoo (Zenodo 4759263)",
            "https://zenodo.org/records/4759263",
        ),
        Claim(
            "averaging G's parameters over training improves the scores (abstract)",
            "fid",
            -1,
            "Yazici et al. 2018",
            "https://arxiv.org/abs/1806.04498",
        ),
    ]
    cost = "memory for one more G; no pass"
    readout = True

    decay: float = dial(0.999, off=0.0, span=(0.0, 0.99999), doc="largest weight of the past; 0 is G itself")

    def memory(self, now: Now) -> dict:
        return {"g": now.g, "statistics": now.statistics, "count": now.g.new_zeros(())}

    def remember(self, now: Now, at: At) -> dict:
        import torch

        kept = at.memory
        t = kept["count"]
        b = torch.minimum((1 + t) / (10 + t), self.decay)
        averaged = {
            "g": torch.lerp(now.g, kept["g"], b),
            "statistics": torch.lerp(now.statistics, kept["statistics"], b),
        }
        return averaged | {"count": t + 1}

    def sampled(self, memory: dict) -> tuple:
        return memory["g"], memory["statistics"]
