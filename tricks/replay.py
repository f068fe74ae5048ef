from bench.trick import At, Claim, Now, Trick, choice, dial


class Replay(Trick):
    """Experience replay: part of D's fakes come from a store of past ones, so that D does not forget them.

    In D's step the first `share` of the fakes give way to images drawn from the store with equal chances. After
    each step as many of the new fakes as half a batch replace stored ones at random places, all different. The
    store starts full of the first batch, repeated. G's step sees fresh fakes only. At `share` 0.5 this is the
    paper's half and half.
    """

    claims = [
        Claim(
            "a history of refined images in D's batches improves the stability of adversarial training",
            "fid",
            -1,
            "Shrivastava et al. 2017 (SimGAN), section 2.3",
            "https://arxiv.org/abs/1612.07828",
        ),
        Claim(
            "use stability tricks from reinforcement learning: keep a replay buffer of past generations (no number)",
            "fid",
            -1,
            "ganhacks 8 (Chintala et al. 2016)",
            "https://github.com/soumith/ganhacks",
        ),
    ]
    ganhacks = 8
    conflicts = {"label_conditioning": "the store keeps no labels, so D would be told those of other images"}
    cost = "memory for `size` images"
    noise = "uniform"
    draws = 2

    share: float = dial(0.5, off=0.0, span=(0.0, 1.0), doc="share of D's fakes that are stored ones")
    size: int = choice(256, span=(1, 4096), doc="images in the store")

    def memory(self, now: Now) -> dict:
        import torch

        return {"images": now.fakes[torch.arange(self.size, device=now.fakes.device) % len(now.fakes)]}

    def fake_images(self, x, at: At):
        import torch

        stored = at.memory["images"][_whole(at.noise[:, 0], self.size)]
        replaced = torch.arange(len(x), device=x.device) < self.share * len(x)
        return torch.where(replaced[:, None, None, None], stored, x)

    def remember(self, now: Now, at: At) -> dict:
        import torch

        count = min(max(len(now.fakes) // 2, 1), self.size)
        # One place in each of `count` equal stretches of the ring, whose start is random: all places are different.
        stretch = self.size // count
        place = torch.arange(count, device=now.fakes.device) * stretch + _whole(at.noise[:count, 0], stretch)
        place = (place + _whole(at.noise[0, 1], self.size)) % self.size
        index = place[:, None, None, None].expand_as(now.fakes[:count])
        return {"images": at.memory["images"].scatter(0, index, now.fakes[:count])}


def _whole(u, n: int):
    """Return the whole number from 0 to n - 1 that a uniform draw stands for."""
    return (u * n).long().clamp(max=n - 1)
