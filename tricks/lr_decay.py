from bench.trick import At, Claim, Optim, Trick, dial


class LrDecay(Trick):
    """Learning-rate decay: both rates fall linearly, from `start` of the budget on, to `final` times themselves.

    lr_t = lr (1 - (1 - final) u), u = (t / T - start) / (1 - start), not below 0. A schedule over the budget:
    the same trick at another budget is another schedule, so a run cannot be cut short or made longer and stay
    itself.
    """

    claims = [
        Claim(
            "SN-GAN's ResNets and mimicry's configurations decay the rate linearly to 0 (no comparison)",
            "fid",
            -1,
            "Miyato et al. 2018; mimicry",
            "https://arxiv.org/abs/1802.05957",
        )
    ]
    after = ("learning_rate", "optimizer", "two_time_scales")  # it scales the rate that they set

    final: float = dial(0.0, off=1.0, span=(0.0, 1.0), doc="what is left of the rate at the end")
    start: float = dial(0.0, span=(0.0, 0.99), doc="fraction of the budget before the rate falls")

    def optim(self, settings: Optim, at: At) -> Optim:
        fallen = ((at.step / at.total - self.start) / (1 - self.start)).clamp(0, 1)
        left = 1 - (1 - self.final) * fallen
        return Optim(*(adam._replace(lr=adam.lr * left) for adam in settings))
