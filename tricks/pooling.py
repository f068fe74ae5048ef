from dataclasses import replace

from bench.trick import Claim, Trick, choice


class Pooling(Trick):
    """Pooling in D: every halving is a stride-1 convolution and a pooling layer, not a strided convolution.

    The kernel becomes 3 (a stride-1 convolution with an even kernel would change the size of the maps), so
    parameters fall to 9/16 of those layers and multiply-adds rise to 9/4: both are recorded in each row.
    Pooling follows the convolution, before BatchNorm and activation: a maximum commutes with the activation (not with
    BatchNorm, whose scale may be negative), an average does not.
    """

    claims = [
        Claim(
            "strided convolutions train more stably than pooling",
            "fid",
            1,
            "Radford et al. 2015, section 3; ganhacks 5 (avoid sparse gradients: MaxPool)",
            "https://arxiv.org/abs/1511.06434",
        )
    ]
    ganhacks = 5
    cost = "multiply-adds of D's halvings x 9/4; their weights x 9/16"
    interacts = {"kernel_size": "changes G only: these convolutions are always 3x3"}

    kind: str = choice("average", among=("average", "max"), doc="how D halves its maps")

    def d_layers(self, layers: tuple) -> tuple:
        from bench.networks import Conv, Pool

        table = []
        for layer in layers:
            if isinstance(layer, Conv) and layer.stride == 2:
                pool = Pool(f"{layer.name}_pool", self.kind)
                table += [replace(layer, kernel=3, stride=1, padding=1), pool]
            else:
                table.append(layer)
        return tuple(table)
