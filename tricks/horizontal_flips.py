from bench.trick import At, Claim, Trick, dial


class HorizontalFlips(Trick):
    """Horizontal flips: each real image that D sees is mirrored, left to right, with probability `p`.

    Data augmentation of the real images alone, before anything else; G has to make mirrored images as well. The
    real images that scores compare with are not flipped. Not valid where left and right differ in meaning, as in
    digits and letters: there it changes the data, and the score should say so.
    """

    claims = [
        Claim(
            "on in all of StudioGAN's configurations (no comparison)",
            "fid",
            -1,
            "StudioGAN's configurations",
            "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
        )
    ]
    noise = "uniform"
    draws = 1

    p: float = dial(0.5, off=0.0, span=(0.0, 1.0), doc="probability that a real image is mirrored")

    def real_images(self, x, at: At):
        import torch

        return torch.where((at.noise[:, 0] < self.p)[:, None, None, None], x.flip(-1), x)
