"""Layers beyond the published network's, for the tricks that ask for them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.convolve import conv2d
from bench.errors import Refused
from bench.networks import INITS, BatchNorm, Conv, Layer, Normal


@dataclass(frozen=True)
class Dense(Conv):
    """A fully connected layer on maps of one pixel (C, 1, 1), computed as one matrix product a run."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Multiply each run's numbers by its own weights."""
        rows = x.flatten(1).unflatten(1, (runs, -1)).transpose(0, 1)  # (R, B, inputs)
        weight = p["weight"].flatten(1).unflatten(0, (runs, -1))  # (R, outputs, inputs)
        made = torch.bmm(rows, weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        return (made + p["bias"].to(made.dtype) if self.bias else made)[:, :, None, None]


@dataclass(frozen=True)
class Reshape(Layer):
    """The same numbers in another shape (C, H, W)."""

    shape: tuple[int, int, int]

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the new shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise Refused(f"layer {self.name}: {shape} cannot become {self.shape}")
        return self.shape

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Reshape each run's maps."""
        return x.flatten(1).reshape(len(x), runs * self.shape[0], *self.shape[1:])


@dataclass(frozen=True)
class SubPixel:
    """What starts the four convolutions behind one pixel alike (ICNR): every fourth of the draws, four times."""

    then: Callable[[Tensor], Tensor] | None

    def __call__(self, draws: Tensor) -> Tensor:
        """Return the weight (4*out, in, k, k) from as many draws."""
        one = draws[::4]
        return (self.then(one) if self.then else one).repeat_interleave(4, 0)


@dataclass(frozen=True)
class UpConv(Conv):
    """A convolution that doubles its maps without a transposed one.

    nearest, bilinear: the maps are enlarged, then convolved. pixel_shuffle: a convolution makes four numbers for every
    pixel and channel, which become its four pixels (Shi et al. 2016), started as one (ICNR, Aitken et al. 2017).
    """

    kernel: int = 3
    stride: int = 1
    padding: int = 1
    kind: str = "nearest"

    @property
    def made(self) -> int:
        """How many channels the convolution itself makes."""
        return self.outputs * (4 if self.kind == "pixel_shuffle" else 1)

    def weight_shape(self) -> tuple[int, int, int, int]:
        """Return the weight's shape for one run."""
        return (self.made, self.inputs, self.kernel, self.kernel)

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return the weight, and the bias (which starts at 0) where there is one."""
        weight = INITS[self.init]((self.outputs, self.inputs, self.kernel, self.kernel), std)
        if self.kind == "pixel_shuffle":
            weight = weight._replace(shape=self.weight_shape(), then=SubPixel(weight.then))
        return {"weight": weight} | ({"bias": Normal((self.made,), 0.0, 0.0)} if self.bias else {})

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (outputs, 2*H, 2*W)."""
        return super().output((shape[0], 2 * shape[1], 2 * shape[2]))

    def multiply_adds(self, shape: tuple[int, int, int]) -> int:
        """Return kernel area x inputs x outputs x output pixels, which is the same for every kind."""
        _, h, w = self.output(shape)
        return self.kernel**2 * self.inputs * self.outputs * h * w

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Double each run's maps with its own weights."""
        if self.kind == "nearest":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif self.kind == "bilinear":
            x = _between(_between(x.permute(0, 2, 3, 1), 1), 2).permute(0, 3, 1, 2)
        x = conv2d(x, p["weight"], p.get("bias"), self.stride, self.padding, runs)
        return F.pixel_shuffle(x, 2) if self.kind == "pixel_shuffle" else x


def _between(x: Tensor, axis: int) -> Tensor:
    """Return x twice as long by linear interpolation, as F.interpolate(align_corners=False) has it.

    PyTorch's own gradient of it on a GPU adds up in any order, so its last bits would change from run to run.
    """
    n = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
    pair = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
    return torch.stack(pair, axis + 1).flatten(axis, axis + 1)


@dataclass(frozen=True)
class Sigmoid(Layer):
    """Sigmoid: numbers come out in [0, 1]."""

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Apply the activation."""
        return torch.sigmoid(x)


@dataclass(frozen=True)
class Affine(Layer):
    """Another range of numbers: factor x + offset, the same for all channels and never trained."""

    factor: float
    offset: float

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Scale and shift."""
        return self.factor * x + self.offset


@dataclass(frozen=True)
class Latents(Layer):
    """Standard normal latents made into others of the same rank, number by number."""

    kind: str

    CUT: ClassVar[float] = 2.0  # where the truncated normal ends

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Return what has the same cumulative probability in the other distribution."""
        wide = x if x.dtype == torch.float64 else x.float()
        uniform = torch.erf(wide * math.sqrt(0.5))  # 2 Phi(z) - 1, in [-1, 1]
        if self.kind == "uniform_unit":
            uniform = math.sqrt(3) * uniform
        elif self.kind == "truncated":
            inside = math.erf(self.CUT * math.sqrt(0.5))  # the probability of what is kept
            uniform = math.sqrt(2) * torch.erfinv(inside * uniform)
        return uniform.to(x.dtype)


def resized(layers: tuple, width: Callable[[int], int]) -> tuple:
    """Return a chain of layers with width(channels) channels in every hidden map; input and output stay."""
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, Conv))
    table, channels = [], 0  # what the layer before gives; 0 where it is still the input
    for i, layer in enumerate(layers):
        if isinstance(layer, Conv):
            outputs = layer.outputs if i == last else width(layer.outputs)
            layer = replace(layer, inputs=channels or layer.inputs, outputs=outputs)
            channels = outputs
        elif isinstance(layer, BatchNorm):
            layer = replace(layer, channels=channels)
        table.append(layer)
    return tuple(table)
