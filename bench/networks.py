"""The DCGAN core: two tables of layers, computed for all runs of an array at once.

Images and maps are (B, R*C, H, W) with R runs; every convolution has `groups=R`, BatchNorm sees R*C channels,
so a run meets its own weights only. An array of one run is the ordinary network.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.convolve import conv2d, conv_transpose2d
from bench.errors import Refused
from bench.recipe import Recipe


class Normal(NamedTuple):
    """How a parameter starts: its shape for one run, the normal distribution it is drawn from, and what `then` makes
    of the draws (a function of a module, so that equal ones are equal)."""

    shape: tuple[int, ...]
    mean: float
    std: float
    then: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Layer:
    """A row of a network's table: what it holds, what it makes of a shape, and its computation."""

    name: str

    hidden: ClassVar[bool] = False  # an activation between layers: `d_maps` and `g_maps` follow it
    mixes_batch: ClassVar[bool] = False  # its output for an image depends on the others of the batch
    labelled: ClassVar[bool] = False  # its forward finds the labels (B, R) as b["labels"]
    for_sampling: ClassVar[bool] = False  # its buffers matter in sampling only, so D keeps none

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return the parameters of one run by name; `std` is the recipe's initial standard deviation."""
        return {}

    def buffers(self) -> dict[str, Tensor]:
        """Return the running statistics of one run by name, as they start; the first axis is repeated for R runs."""
        return {}

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the (C, H, W) that this layer makes of `shape`."""
        return shape

    def multiply_adds(self, shape: tuple[int, int, int]) -> int:
        """Return the multiplications with a weight for one image of `shape`."""
        return 0

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Return the output for x (B, R*C, H, W); in training, buffers in `b` are replaced by their next
        values.

        A run's channels lie together: x.unflatten(1, (runs, -1)) is (B, R, C, H, W); p["weight"] (R*out, ...) likewise.
        """
        raise TypeError(f"{type(self).__name__} has no forward")


def _orthogonal(draws: Tensor) -> Tensor:
    """Return orthonormal rows or columns, as torch.nn.init.orthogonal_ makes them of the same draws."""
    flat = draws.flatten(1)
    wide = len(flat) < flat.shape[1]
    q, r = torch.linalg.qr(flat.T if wide else flat)
    q = q * r.diagonal().sign()
    return (q.T if wide else q).reshape(draws.shape)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan-in and fan-out of a weight as torch.nn.init counts them, transposed or not."""
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


INITS: dict[str, Callable[[tuple[int, ...], float], Normal]] = {
    "normal": lambda shape, std: Normal(shape, 0.0, std),
    "xavier": lambda shape, std: Normal(shape, 0.0, math.sqrt(2 / sum(_fans(shape)))),
    "kaiming": lambda shape, std: Normal(shape, 0.0, math.sqrt(2 / _fans(shape)[0])),
    "orthogonal": lambda shape, std: Normal(shape, 0.0, 1.0, _orthogonal),
}


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution without bias (BatchNorm follows it in most places, as in the public example)."""

    inputs: int
    outputs: int
    kernel: int = 4
    stride: int = 2
    padding: int = 1
    bias: bool = False
    init: str = "normal"  # or a key of INITS

    def weight_shape(self) -> tuple[int, int, int, int]:
        """Return the weight's shape for one run."""
        return (self.outputs, self.inputs, self.kernel, self.kernel)

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return the weight, and the bias (which starts at 0) where there is one."""
        own = {"weight": INITS[self.init](self.weight_shape(), std)}
        return own | {"bias": Normal((self.outputs,), 0.0, 0.0)} if self.bias else own

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (outputs, H, W) after the convolution."""
        _expect(self, shape[0], self.inputs)
        h, w = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape[1:])
        return (self.outputs, h, w)

    def multiply_adds(self, shape: tuple[int, int, int]) -> int:
        """Return kernel area x inputs x outputs x output pixels."""
        _, h, w = self.output(shape)
        return self.kernel**2 * self.inputs * self.outputs * h * w

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Convolve each run's maps with its own weights."""
        return conv2d(x, p["weight"], p.get("bias"), self.stride, self.padding, runs)


@dataclass(frozen=True)
class ConvTranspose(Conv):
    """A transposed convolution without bias; `extra` pixels make up for an odd kernel."""

    extra: int = 0

    def weight_shape(self) -> tuple[int, int, int, int]:
        """Return the weight's shape for one run: inputs come first."""
        return (self.inputs, self.outputs, self.kernel, self.kernel)

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (outputs, H, W) after the transposed convolution."""
        _expect(self, shape[0], self.inputs)
        h, w = ((n - 1) * self.stride - 2 * self.padding + self.kernel + self.extra for n in shape[1:])
        return (self.outputs, h, w)

    def multiply_adds(self, shape: tuple[int, int, int]) -> int:
        """Return kernel area x inputs x outputs x input pixels."""
        _expect(self, shape[0], self.inputs)
        return self.kernel**2 * self.inputs * self.outputs * shape[1] * shape[2]

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Apply each run's transposed convolution to its own maps."""
        return conv_transpose2d(x, p["weight"], p.get("bias"), self.stride, self.padding, self.extra, runs)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """BatchNorm: batch statistics in training; running statistics, where they are kept, in sampling."""

    channels: int
    momentum: float = 0.1
    eps: float = 1e-5

    mixes_batch = True
    for_sampling = True

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return scale ~ N(1, std) and shift = 0, as in the public example."""
        return {"weight": Normal((self.channels,), 1.0, std), "bias": Normal((self.channels,), 0.0, 0.0)}

    def buffers(self) -> dict[str, Tensor]:
        """Return running mean 0 and running variance 1."""
        return {"mean": torch.zeros(self.channels), "var": torch.ones(self.channels)}

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return `shape`."""
        _expect(self, shape[0], self.channels)
        return shape

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Normalise each channel of each run."""
        if not train and b and x.dtype == torch.float32:  # one pass, in less than half of F.batch_norm's time
            scale = p["weight"] * (b["var"] + self.eps).rsqrt()
            shift = p["bias"] - b["mean"] * scale
            return torch.addcmul(shift[:, None, None], x, scale[:, None, None])
        if train and b:
            b["mean"], b["var"] = b["mean"].clone(), b["var"].clone()
        return F.batch_norm(
            x, b.get("mean"), b.get("var"), p["weight"], p["bias"], train or not b, self.momentum, self.eps
        )


@dataclass(frozen=True)
class Pool(Layer):
    """Average or max pooling of 2x2 pixels."""

    kind: str = "average"

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (C, H/2, W/2)."""
        return (shape[0], shape[1] // 2, shape[2] // 2)

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Halve the maps."""
        return F.avg_pool2d(x, 2) if self.kind == "average" else F.max_pool2d(x, 2)


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """LeakyReLU; a slope of 0 is ReLU."""

    slope: float = 0.0

    hidden = True

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Apply the activation."""
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


@dataclass(frozen=True)
class Tanh(Layer):
    """Tanh: images come out in [-1, 1]."""

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Apply the activation."""
        if train or x.dtype != torch.float32:
            return torch.tanh(x)
        # The same to rounding; torch.tanh takes a core three times as long.
        return torch.sigmoid(2 * x) * 2 - 1


def _expect(layer: Layer, got: int, wanted: int) -> None:
    if got != wanted:
        raise Refused(f"layer {layer.name}: it is given {got} channels and takes {wanted}")


def _halvings(recipe: Recipe, size: int) -> tuple[int, list[int], dict[str, int], int]:
    """Return the smallest map's side, G's channels from small maps to large, the kernel's padding, and
    `extra`."""
    base = 7 if size == 28 else 4
    doublings = (size // base).bit_length() - 1
    widths = [recipe.channels * 2**i for i in reversed(range(doublings))]
    return base, widths, {"kernel": recipe.kernel, "padding": (recipe.kernel - 1) // 2}, recipe.kernel % 2


def generator(recipe: Recipe, size: int, colours: int) -> tuple[Layer, ...]:
    """Return the table of DCGAN's G: latents (noise_length, 1, 1) to images (colours, size, size) in [-1, 1].

    Transposed convolutions, BatchNorm on all but the output, ReLU, tanh: Radford et al. 2015, section 3.
    """
    base, widths, kernel, extra = _halvings(recipe, size)
    project = ConvTranspose("project", recipe.noise_length, widths[0], base, stride=1, padding=0)
    table: list[Layer] = [project, BatchNorm("project_norm", widths[0]), LeakyReLU("project_relu")]
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
        table += [
            ConvTranspose(f"up{i}", inputs, outputs, **kernel, extra=extra),
            BatchNorm(f"up{i}_norm", outputs),
            LeakyReLU(f"up{i}_relu"),
        ]
    return (*table, ConvTranspose("image", widths[-1], colours, **kernel, extra=extra), Tanh("image_tanh"))


def discriminator(recipe: Recipe, size: int, colours: int) -> tuple[Layer, ...]:
    """Return the table of DCGAN's D: images to one logit, BatchNorm on all but the input and the output.

    Strided convolutions and LeakyReLU: Radford et al. 2015, section 3.
    """
    base, widths, kernel, _ = _halvings(recipe, size)
    widths = widths[::-1]
    table: list[Layer] = [Conv("down1", colours, widths[0], **kernel), LeakyReLU("down1_relu", recipe.slope)]
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 2):
        table += [
            Conv(f"down{i}", inputs, outputs, **kernel),
            BatchNorm(f"down{i}_norm", outputs),
            LeakyReLU(f"down{i}_relu", recipe.slope),
        ]
    return (*table, Conv("logit", widths[-1], 1, base, stride=1, padding=0))


class Entry(NamedTuple):
    """Where a parameter lies in a run's flat row: its layer, name, start, end and how it starts."""

    layer: str
    name: str
    start: int
    end: int
    normal: Normal


@cache
def _entries(network: "Network", std: float) -> tuple[Entry, ...]:
    found: list[Entry] = []
    end = 0
    for layer in network.layers:
        for name, normal in layer.parameters(std).items():
            start, end = end, end + torch.Size(normal.shape).numel()
            found.append(Entry(layer.name, name, start, end, normal))
    return tuple(found)


@dataclass(frozen=True)
class Network:
    """A table of layers with its place in the flat parameter row of a run; hashable, so it is part of a
    program."""

    layers: tuple[Layer, ...]
    shape: tuple[int, int, int]  # (C, H, W) of its input
    compute: str = ""  # the dtype of maps and products, where it is not that of the parameters

    def entries(self, std: float = 0.02) -> tuple[Entry, ...]:
        """Return where each parameter lies in the flat row (P,) of one run."""
        return _entries(self, std)

    def size(self) -> int:
        """Return the number of parameters of one run."""
        return self.entries()[-1].end

    def output(self) -> tuple[int, int, int]:
        """Return the shape of what comes out; raise `Refused` where two layers do not fit."""
        shape = self.shape
        for layer in self.layers:
            shape = layer.output(shape)
        return shape

    def multiply_adds(self) -> int:
        """Return the multiplications with a weight for one image, forward."""
        shape, total = self.shape, 0
        for layer in self.layers:
            total += layer.multiply_adds(shape)
            shape = layer.output(shape)
        return total

    def initial(self, draw: Callable[[str, tuple[int, ...]], Tensor], std: float) -> Tensor:
        """Return one run's parameters (P,), drawn by `draw(purpose, shape)` with a stream for each
        parameter."""
        parts = []
        for entry in self.entries(std):
            mean, spread = entry.normal.mean, entry.normal.std
            values = draw(f"{entry.layer}.{entry.name}", entry.normal.shape) if spread else torch.zeros(1)
            values = (mean + spread * values).expand(entry.normal.shape)
            parts.append((entry.normal.then(values) if entry.normal.then else values).reshape(-1))
        return torch.cat(parts)

    def statistics(self, runs: int, sampling: bool = True) -> dict[str, dict[str, Tensor]]:
        """Return the running statistics by layer, each (R*C, ...); without `sampling`, those that training needs."""
        own = {layer.name: layer.buffers() for layer in self.layers if sampling or not layer.for_sampling}
        return {
            name: {key: t.repeat(runs, *[1] * (t.dim() - 1)) for key, t in b.items()}
            for name, b in own.items()
            if b
        }

    @property
    def labelled(self) -> bool:
        """Whether a layer wants to know the images' labels."""
        return any(layer.labelled for layer in self.layers)

    def hidden(self) -> dict[str, tuple[int, int, int]]:
        """Return the shape (C, H, W) of every hidden activation's output, by layer."""
        shape, found = self.shape, {}
        for layer in self.layers:
            shape = layer.output(shape)
            if layer.hidden:
                found[layer.name] = shape
        return found

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the parameters in `flat` (R, P) as layers take them: the run axis folded into the first
        one."""
        runs = flat.shape[0]
        return [
            flat[:, e.start : e.end].reshape(runs * e.normal.shape[0], *e.normal.shape[1:])
            for e in self.entries()
        ]

    def __call__(
        self,
        parameters: list[Tensor],
        x: Tensor,
        statistics: dict[str, dict[str, Tensor]],
        runs: int,
        train: bool,
        labels: Tensor | None = None,
        between: Callable[[str, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Return the output for x (B, R*C, H, W) and the next running statistics.

        labels: (B, R), for layers that want them; `between(layer, maps)` replaces the maps of a hidden activation.
        With `compute`, weights are rounded where they are used; BatchNorm's numbers and the output are not.
        """
        entries, after, held = self.entries(), {}, x.dtype
        x = x.to(getattr(torch, self.compute)) if self.compute else x
        of: dict[str, dict[str, Tensor]] = {}
        for entry, tensor in zip(entries, parameters, strict=True):
            rounded = tensor.to(x.dtype) if tensor.dim() > 1 else tensor
            of.setdefault(entry.layer, {})[entry.name] = rounded
        for layer in self.layers:
            buffers: dict[str, Any] = dict(statistics.get(layer.name, {}))
            given = buffers | {"labels": labels} if layer.labelled else buffers
            x = layer.forward(x, of.get(layer.name, {}), given, runs, train)
            if buffers:
                after[layer.name] = {key: given[key] for key in buffers}
            if between and layer.hidden:
                x = between(layer.name, x)
        return x.to(held), after
