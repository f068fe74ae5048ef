from dataclasses import replace

from bench.trick import Claim, Trick, choice


class Initialization(Trick):
    """Initialisation: how the weights of both networks start, in place of N(0, 0.02).

    As torch.nn.init counts fans (of a transposed convolution by its weight's axes, too):

        xavier      N(0, 2 / (fan_in + fan_out))
        kaiming     N(0, 2 / fan_in), the gain of ReLU in every layer
        orthogonal  rows or columns of the weight (out, in k k) orthonormal

    BatchNorm's scale stays N(1, 0.02), biases 0. Where BatchNorm follows a layer it takes out the scale of its weights,
    which then only sets how far a step of the optimiser reaches; the first and the last layer of each network feel it.
    """

    claims = [
        Claim(
            "weights from a normal distribution around 0 with standard deviation 0.02",
            "fid",
            0,
            "Radford et al. 2015, section 4",
            "https://arxiv.org/abs/1511.06434",
        ),
        Claim(
            "orthogonal is StudioGAN's default for all of its models",
            "fid",
            -1,
            "configurations of PyTorch-StudioGAN",
            "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
            about={"kind": "orthogonal"},
        ),
        Claim(
            "a D kept orthonormal by a penalty, not only started so, reaches FID 29.0 on CIFAR-10 (BatchNorm: 56.3)",
            "fid",
            0,
            "Miyato et al. 2018, table 2: another trick, easily mistaken for this one",
            "https://arxiv.org/abs/1802.05957",
        ),
    ]
    stage = "weights"
    interacts = {
        "batch_norm": "N(0, 0.02) lets the signal vanish where BatchNorm is removed; kaiming does not",
        "spectral_norm": "it takes out the scale of D's weights",
    }

    kind: str = choice(
        "orthogonal", among=("xavier", "kaiming", "orthogonal"), doc="distribution of the weights"
    )

    def d_layers(self, layers: tuple) -> tuple:
        return self._started(layers)

    def g_layers(self, layers: tuple) -> tuple:
        return self._started(layers)

    def _started(self, layers: tuple) -> tuple:
        return tuple(replace(layer, init=self.kind) if hasattr(layer, "init") else layer for layer in layers)
