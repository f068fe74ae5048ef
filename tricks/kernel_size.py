from dataclasses import replace

from bench.trick import Claim, Trick, choice


class KernelSize(Trick):
    """Kernel size: of every convolution that halves or doubles, in both networks.

    Padding is (size - 1) // 2, so maps keep their sizes; an odd transposed convolution gets one pixel of
    output padding. Parameters and multiply-adds of these layers grow with size squared. A transposed convolution whose
    kernel is no multiple of the stride 2 (3 or 5) adds up unevenly over its output: a checkerboard to unlearn.
    """

    claims = [
        Claim(
            "5 in the original and in compare_gan, 4 in the public PyTorch example; nobody compares them",
            "fid",
            0,
            "source code of DCGAN and compare_gan",
            "https://github.com/google/compare_gan",
            about={"size": 5},
        ),
        Claim(
            "a kernel that the stride divides avoids uneven overlap",
            "fid",
            1,
            "Odena et al. 2016",
            "https://distill.pub/2016/deconv-checkerboard/",
            "recalled",
        ),
    ]
    cost = "parameters and multiply-adds of those layers x size^2 / 16"
    interacts = {
        "pooling": "D's convolutions are then always 3x3",
        "upsampling": "G's convolutions are then always 3x3",
    }

    size: int = choice(5, among=(3, 4, 5), doc="side of the kernel; the published network here has 4")

    def recipe(self, recipe):
        return replace(recipe, kernel=self.size)
