from bench.trick import At, Claim, Trick, choice

POLICIES = ("translation_cutout", "color_translation_cutout", "color", "translation", "cutout")


class Diffaugment(Trick):
    """DiffAugment: D sees randomly changed images only, real and fake, in D's step and in G's.

    D(T(x)) and D(T(G(z))), T drawn anew for each image, with the gradient passing through it. On images in [-1,
    1], in this order. Colour: brightness + U(-0.5, 0.5); saturation times U(0, 2) about the pixel's mean colour;
    contrast times U(0.5, 1.5) about the image's mean; not clamped. Translation: up to 1/8 of the side in whole
    pixels, each way, with zeros (grey) moving in. Cutout: a square of half the side, its centre anywhere in the
    image, set to zero. Noise that other tricks put on images is changed with them. The real images of the scores
    stay as they are.
    """

    claims = [
        Claim(
            "BigGAN on CIFAR-10, FID: 9.59 to 8.70 with all data, 21.58 to 14.04 with 20%, 39.78 to 22.40 with 10%",
            "fid",
            -1,
            "Zhao et al. 2020",
            "https://arxiv.org/abs/2006.10738",
        ),
        Claim(
            "DCGAN on CelebA, FID: BCE 17.95 to 15.25, but Wasserstein 17.57 to 157.5 (single runs)",
            "fid",
            0,
            "DCGAN-zoo (Zenodo 4759263)",
            "https://zenodo.org/records/4759263",
        ),
        Claim(
            "StyleGAN2 on CIFAR-10: FID 3.78 to 2.39",
            "fid",
            -1,
            "StudioGAN's table",
            "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
        ),
    ]
    noise = "uniform"
    draws = 7
    after = ("input_noise", "placebo")
    interacts = {"minibatch_stddev": "images changed one by one hide a collapsed batch from it"}

    policy: str = choice("translation_cutout", among=POLICIES, doc="which changes, in this order")

    def images(self, x, at: At):
        u = at.noise[:, :, None, None, None]  # (B, draws, 1, 1, 1)
        if "color" in self.policy:
            x = x + (u[:, 0] - 0.5)
            x = _about(x.mean(1, keepdim=True), x, 2 * u[:, 1])
            x = _about(x.mean((1, 2, 3), keepdim=True), x, u[:, 2] + 0.5)
        if "translation" in self.policy:
            x = _shifted(_shifted(x, 2, u[:, 3]), 3, u[:, 4])
        if "cutout" in self.policy:
            x = x.masked_fill(_stretch(x, 2, u[:, 5]) & _stretch(x, 3, u[:, 6]), 0)
        return x


def _about(mean, x, factor):
    return (x - mean) * factor + mean


def _whole(u, n: int):
    """Return the whole number from 0 to n - 1 that a uniform draw stands for."""
    return (u * n).long().clamp(max=n - 1)


def _places(x, axis: int):
    """Return 0, 1, ... along an axis of (B, C, H, W)."""
    import torch

    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return torch.arange(x.shape[axis], device=x.device).view(shape)


def _shifted(x, axis: int, u):
    """Return x moved along an axis by up to an eighth of the side, with zeros moving in."""
    side = x.shape[axis]
    source = _places(x, axis) + _whole(u, 2 * (side // 8) + 1) - side // 8
    outside = (source < 0) | (source >= side)
    return x.gather(axis, source.clamp(0, side - 1).expand_as(x)).masked_fill(outside, 0)


def _stretch(x, axis: int, u):
    """Return where along an axis the cutout lies."""
    half = x.shape[axis] // 2
    start = _whole(u, x.shape[axis] + 1 - half % 2) - half // 2
    places = _places(x, axis)
    return (places >= start) & (places < start + half)
