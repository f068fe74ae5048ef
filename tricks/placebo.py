from bench.trick import At, Claim, Trick, dial


class Placebo(Trick):
    """Placebo: noise far below one grey level on what D sees, so its runs are re-trainings of the same thing.

    One grey level is 2/255 = 0.0078 on the scale [-1, 1]; training is chaotic, so noise of 1e-4 gives other runs
    with nothing changed. What the harness says of this arm measures the harness.
    """

    claims = [Claim("does nothing", "fid", 0, "this project: an A/A control in every grid")]
    control = True
    noise = "normal"

    sigma: float = dial(1e-4, off=0.0, span=(0.0, 1e-3), doc="standard deviation; images are in [-1, 1]")

    def images(self, x, at: At):
        return x + self.sigma * at.noise
