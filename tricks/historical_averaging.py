from bench.trick import At, Claim, Now, Trick, dial


class HistoricalAveraging(Trick):
    """Historical averaging: each player is pulled to the mean of its own past parameters.

    Each loss gets weight |theta - m|^2 with m the mean of theta at the start and after every step of G so far (steps
    of D alone are not in it), a constant in the gradient: 2 weight (theta - m) is added to the gradient before the
    optimiser. Not an average for sampling: that is `ema`. The past is held once per player, as its running mean.
    """

    claims = [
        Claim(
            "finds equilibria of low-dimensional, continuous non-convex games",
            "fid",
            -1,
            "Salimans et al. 2016, section 3.3",
            "https://arxiv.org/abs/1606.03498",
        ),
        Claim(
            "Inception score 6.86 without labels and with it (4.36 without labels)",
            "is",
            1,
            "Salimans et al. 2016, table 3, as quoted by others; the second number is recalled",
            "https://arxiv.org/abs/1606.03498",
            evidence="quoted",
        ),
    ]
    cost = "memory for one more copy of both networks"

    weight: float = dial(1.0, off=0.0, span=(0.0, 1000.0), doc="weight of the squared distance")

    def memory(self, now: Now) -> dict:
        return {"d": now.d, "g": now.g, "count": now.g.new_ones(())}

    def remember(self, now: Now, at: At) -> dict:
        count, kept = at.memory["count"] + 1, at.memory
        means = {"d": kept["d"] + (now.d - kept["d"]) / count, "g": kept["g"] + (now.g - kept["g"]) / count}
        return means | {"count": count}

    def d_gradient(self, gradient, parameters, at: At):
        return gradient + 2 * self.weight * (parameters - at.memory["d"])

    def g_gradient(self, gradient, parameters, at: At):
        return gradient + 2 * self.weight * (parameters - at.memory["g"])
