"""The roofline of a machine: what a training step must compute and move, and how fast that can be done at best.

Counted is the lean step, which leaves out gradients that nobody uses; measured are the largest rates that this
machine shows in a matrix product, a convolution and a copy.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bench.networks import Network
from bench.step import Nets

PASSES = (
    13  # over each convolution's output: written, and read or written by BatchNorm, activation, gradients
)
PER_PARAMETER = (
    36  # bytes that Adam moves: gradient read, parameter and two moments read and written, in float32
)


@dataclass(frozen=True)
class Roofline:
    """The least time of a step: compute and memory in seconds; flops and bytes are what it computes and moves."""

    flops: float
    bytes: float
    compute: float
    memory: float

    @property
    def rate(self) -> float:
        """Run-steps per second at the roof."""
        return 1 / max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        """What the roof is made of."""
        return "compute" if self.compute > self.memory else "memory"

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return asdict(self) | {"rate": self.rate, "bound": self.bound}


def roofline(nets: Nets, batch: int, itemsize: int, peak: float, bandwidth: float) -> Roofline:
    """Return the roofline of a lean step; peak in FLOP/s, bandwidth in bytes read and written per second."""
    work, moved = flops(nets, batch), traffic(nets, batch, itemsize)
    return Roofline(work, moved, work / peak, moved / bandwidth)


def flops(nets: Nets, batch: int) -> float:
    """Return the FLOPs of a lean step of one run, two for each multiply-add of a convolution.

    G forward and back to its weights and between its layers; D forward and back on real images and on fakes; D
    forward and back to its input in G's step. A first layer's input gradient is needed in the last of these alone.
    """
    g, d = nets.g.multiply_adds(), nets.d.multiply_adds()
    return 2.0 * batch * (3 * g - _first(nets.g) + 2 * (3 * d - _first(nets.d)) + 2 * d)


def traffic(nets: Nets, batch: int, itemsize: int) -> float:
    """Return the bytes that a lean step of one run moves: every map some times, and what Adam touches.

    A count, not a measurement: 13 passes over each convolution's output (D's three times a step: real images, fakes,
    G's step) at `itemsize` bytes a number, and 36 bytes a parameter.
    """
    maps = _outputs(nets.g) + 3 * _outputs(nets.d)
    return float(PASSES * maps * batch * itemsize + PER_PARAMETER * (nets.g.size() + nets.d.size()))


def _first(net: Network) -> int:
    return net.layers[0].multiply_adds(net.shape)


def _outputs(net: Network) -> int:
    """Return the numbers that all convolutions put out for one image."""
    shape, total = net.shape, 0
    for layer in net.layers:
        work, shape = layer.multiply_adds(shape), layer.output(shape)
        total += shape[0] * shape[1] * shape[2] if work else 0
    return total


@torch.inference_mode()
def product(dtype: str, device: str, number: int = 0) -> Iterator[float]:
    """Multiply large square matrices without end; yield the FLOPs of each product."""
    n = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    while True:
        a @ b
        yield 2.0 * n**3


@torch.inference_mode()
def convolution(dtype: str, device: str, number: int = 0) -> Iterator[float]:
    """Convolve large maps, channels last, without end; yield the FLOPs of each convolution."""
    batch, channels, side = (256, 256, 32) if device.startswith("cuda") else (16, 128, 16)
    like = {"device": device, "dtype": getattr(torch, dtype)}
    x = torch.randn(batch, channels, side, side, **like).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, **like).contiguous(memory_format=torch.channels_last)
    while True:
        F.conv2d(x, weight, padding=1)
        yield 2.0 * batch * side**2 * channels**2 * 9


@torch.inference_mode()
def copy(device: str, number: int = 0) -> Iterator[float]:
    """Copy more than any cache holds without end; yield the bytes read and written."""
    count = 2**28 if device.startswith("cuda") else 2**24  # float32: 1 GB or 64 MB
    a, b = torch.randn(count, device=device), torch.empty(count, device=device)
    while True:
        b.copy_(a)
        yield 8.0 * count
