"""Layers that normalise maps or weights, look at the batch or are told a label, for all runs of an array at once.

Written as bench/networks.py's are: maps (B, R*C, H, W), a run's channels together. Statistics are computed in float32
at least, whatever the maps are held in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import Refused
from bench.layers import Dense, UpConv
from bench.networks import BatchNorm, Conv, ConvTranspose, Layer, Normal, _expect
from bench.streams import LATENT_WIDTH, stream


def replaced(layers: tuple[Layer, ...], norm: Callable[[BatchNorm], Layer | None]) -> tuple[Layer, ...]:
    """Return the table with `norm` of each BatchNorm in its place.

    Where that is None, the layer that BatchNorm's shift used to serve, the last one with weights, gets a bias instead.
    """
    kept: list[Layer] = []
    for layer in layers:
        new = norm(layer) if isinstance(layer, BatchNorm) else layer
        if new is not None:
            kept.append(new)
            continue
        last = max(i for i, before in enumerate(kept) if hasattr(before, "bias"))
        kept[last] = replace(kept[last], bias=True)
    return tuple(kept)


def last_weights(layers: tuple[Layer, ...]) -> int:
    """Return where the last convolution of a table is: D's logit."""
    return max(i for i, layer in enumerate(layers) if isinstance(layer, Conv))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return maps times scale plus shift, both (R*C,) or (B, R*C), in the maps' own dtype."""
    return (x * scale[..., None, None] + shift[..., None, None]).to(x.dtype)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalisation of one image's maps over pixels and the channels of a group (Wu & He 2018), no batch in it.

    One group is layer normalisation, as many groups as channels instance normalisation. Scale and shift are for each
    channel and start as BatchNorm's do.
    """

    channels: int
    groups: int = 1
    eps: float = 1e-5

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return scale ~ N(1, std) and shift = 0."""
        return {"weight": Normal((self.channels,), 1.0, std), "bias": Normal((self.channels,), 0.0, 0.0)}

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return `shape`; a group of one number is refused: it would become 0."""
        _expect(self, shape[0], self.channels)
        if self.channels // self.groups * shape[1] * shape[2] == 1:
            raise Refused(f"layer {self.name}: {self.groups} groups of one number each have no variance")
        return shape

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Normalise each group of each run's channels: a group never has channels of two runs."""
        return _scaled(F.group_norm(x, runs * self.groups, eps=self.eps), p["weight"], p["bias"])


class _Spectral:
    """Divides a convolution's weight by its largest singular value, as torch.nn.utils.parametrizations.spectral_norm.

    u and v are kept from pass to pass; a pass in training takes one power iteration with W detached, then
    sigma = u^T W v, differentiable in W. At the start u and v are random but the same for every run.
    """

    for_sampling = False

    def buffers(self) -> dict[str, Tensor]:
        """Return u (outputs,) and v (inputs * kernel * kernel,) of norm 1, as they start."""
        first, second, *kernel = self.weight_shape()
        out, others = (second, first) if isinstance(self, ConvTranspose) else (first, second)
        u, v = _spectral_start(self.name, out, others * math.prod(kernel))
        return {"u": u, "v": v}

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Convolve each run's maps with its weights over their largest singular value."""
        given = p["weight"].unflatten(0, (runs, -1))
        # (R, out, in * k * k) for a convolution and a transposed one alike
        matrix = _wide((given.transpose(1, 2) if isinstance(self, ConvTranspose) else given).flatten(2))
        kept = b if "u" in b else {key: t.to(matrix).repeat(runs) for key, t in self.buffers().items()}
        u, v = (F.normalize(kept[key].view(runs, -1), dim=1) for key in "uv")
        # Where nothing is kept (a network computed on its own), the iteration starts anew and is taken far enough.
        for _ in range(0 if "u" in b and not train else 1 if "u" in b else 30):
            with torch.no_grad():
                u = F.normalize(_times(matrix, v), dim=1)
                v = F.normalize(_times(matrix.transpose(1, 2), u), dim=1)
        if train and "u" in b:
            b["u"], b["v"] = u.flatten(), v.flatten()
        sigma = (u * _times(matrix, v)).sum(1)
        weight = (given / sigma[:, None, None, None, None]).to(given.dtype).flatten(0, 1)
        return super().forward(x, p | {"weight": weight}, b, runs, train)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


@cache
def _spectral_start(name: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    draws = stream(0, "power_iteration", name)
    return tuple(F.normalize(torch.randn(n, generator=draws), dim=0) for n in (outputs, inputs))


@dataclass(frozen=True)
class SpectralConv(_Spectral, Conv):
    """A convolution with its weight divided by its largest singular value."""


@dataclass(frozen=True)
class SpectralConvTranspose(_Spectral, ConvTranspose):
    """A transposed convolution with its weight, as (out, in * k * k), divided by its largest singular value."""


@dataclass(frozen=True)
class SpectralDense(_Spectral, Dense):
    """A fully connected layer with its weight divided by its largest singular value."""


@dataclass(frozen=True)
class SpectralUpConv(_Spectral, UpConv):
    """A convolution that doubles its maps, with its weight divided by its largest singular value."""


def spectral(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the table with every convolution's weight divided by its largest singular value."""
    made = {
        Conv: SpectralConv,
        ConvTranspose: SpectralConvTranspose,
        Dense: SpectralDense,
        UpConv: SpectralUpConv,
    }
    for layer in layers:
        if isinstance(layer, Conv) and type(layer) not in {*made, *made.values()}:
            raise Refused(f"layer {layer.name}: there is no spectral norm of a {type(layer).__name__}")
    return tuple(made[type(x)](**vars(x)) if type(x) in made else x for x in layers)


@dataclass(frozen=True)
class MinibatchStddev(Layer):
    """One more map: how much the images of a group differ, averaged over channels and pixels (Karras et al. 2018).

    Image i is in group i modulo (B / group), as in the published code; where `group` does not divide the batch, the
    whole batch is the group.
    """

    group: int = 4
    eps: float = 1e-8

    mixes_batch = True

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (C + 1, H, W)."""
        return (shape[0] + 1, *shape[1:])

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Append the map to each run's."""
        own = x.unflatten(1, (runs, -1))  # (B, R, C, H, W)
        group = self.group if len(x) % self.group == 0 else len(x)
        variance = _wide(own).unflatten(0, (group, -1)).var(0, correction=0)  # (B / group, R, C, H, W)
        # sqrt(variance + eps) - sqrt(eps), written so that no variance is 0 exactly and keeps a finite gradient
        spread = variance / ((variance + self.eps).sqrt() + self.eps**0.5)
        spread = spread.mean((2, 3, 4)).repeat(group, 1)  # (B, R)
        extra = spread[..., None, None, None].expand(-1, -1, 1, *x.shape[2:])
        return torch.cat([own, extra.to(x.dtype)], 2).flatten(1, 2)


@dataclass(frozen=True)
class MinibatchDiscrimination(Layer):
    """An image's numbers, then `kernels` measures of how near it is to the others of its batch.

    M_i = f(x_i) T is (kernels, dims); o(x_i)_b = sum over j of exp(-|M_ib - M_jb|_1), with j = i in the sum as in the
    formula of Salimans et al. 2016, section 3.2.
    """

    features: int
    kernels: int = 100
    dims: int = 5

    mixes_batch = True

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return T (features, kernels * dims)."""
        return {"weight": Normal((self.features, self.kernels * self.dims), 0.0, std)}

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (features + kernels, 1, 1)."""
        _expect(self, shape[0] * shape[1] * shape[2], self.features)
        return (self.features + self.kernels, 1, 1)

    def multiply_adds(self, shape: tuple[int, int, int]) -> int:
        """Return those of f(x) T; distances to the others of the batch have no weights."""
        return self.features * self.kernels * self.dims

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Append the measures to each run's numbers."""
        own = x.unflatten(1, (runs, -1)).flatten(2)  # (B, R, features)
        made = own.transpose(0, 1) @ p["weight"].unflatten(0, (runs, -1))  # (R, B, kernels * dims)
        m = _wide(made).unflatten(2, (self.kernels, self.dims))
        near = (m[:, :, None] - m[:, None]).abs().sum(-1).neg().exp().sum(2)  # (R, B, kernels)
        return torch.cat([own, near.transpose(0, 1).to(x.dtype)], 2).flatten(1)[:, :, None, None]


@cache
def _reference_latents(count: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return latents (count, length) that are the same for every run and length, up to where they are cut."""
    draws = torch.randn(count, LATENT_WIDTH, generator=stream(0, "reference_latents"))
    return draws[:, :length].to(device, dtype)


@dataclass(frozen=True)
class AppendReference(Layer):
    """Appends `count` fixed latents to the batch: the layers after it make images of both."""

    count: int

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Return (B + count, R*length, 1, 1)."""
        fixed = _reference_latents(self.count, x.shape[1] // runs, x.dtype, x.device)
        return torch.cat([x, fixed.repeat(1, runs)[:, :, None, None]])


@dataclass(frozen=True)
class DropReference(Layer):
    """Takes the last `count` images off the batch again."""

    count: int

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Return the first B images."""
        return x[: -self.count]


@dataclass(frozen=True)
class VirtualBatchNorm(Layer):
    """Normalisation by mean and variance of the last `count` images of the batch and the image itself.

    Salimans et al. 2016, section 3.5: the image counts for 1 / (count + 1); the reference images are normalised by
    their own statistics. Training and sampling are the same function, so nothing is kept.
    """

    channels: int
    count: int
    eps: float = 1e-5

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return scale ~ N(1, std) and shift = 0."""
        return {"weight": Normal((self.channels,), 1.0, std), "bias": Normal((self.channels,), 0.0, 0.0)}

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return `shape`."""
        _expect(self, shape[0], self.channels)
        return shape

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Normalise each channel of each run, image by image."""
        wide, share = _wide(x), 1 / (self.count + 1)
        live, reference = wide[: -self.count], wide[-self.count :]
        var_r, mean_r = torch.var_mean(reference, (0, 2, 3), correction=0, keepdim=True)
        var_x, mean_x = torch.var_mean(live, (2, 3), correction=0, keepdim=True)
        mean = torch.lerp(mean_r.expand_as(mean_x), mean_x, share)
        between = share * (1 - share) * (mean_x - mean_r).square()
        var = torch.lerp(var_r.expand_as(var_x), var_x, share) + between
        parts = (live - mean) * (var + self.eps).rsqrt(), (reference - mean_r) * (var_r + self.eps).rsqrt()
        return _scaled(torch.cat(parts), p["weight"], p["bias"]).to(x.dtype)


def _of_labels(table: Tensor, labels: Tensor) -> Tensor:
    """Return (B, R, C): of each run's table (R, classes, C) the row of each label (B, R)."""
    chosen = labels[..., None] == torch.arange(table.shape[1], device=labels.device)
    return torch.einsum("brk,rkc->brc", chosen.to(table.dtype), table)


@dataclass(frozen=True)
class ConditionalBatchNorm(BatchNorm):
    """BatchNorm with a scale and a shift for each class (Dumoulin et al. 2017); statistics are over all classes."""

    classes: int = 10

    labelled = True

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return each class's scale ~ N(1, std) and shift = 0, in one row (classes * channels,)."""
        row = (self.classes * self.channels,)
        return {"weight": Normal(row, 1.0, std), "bias": Normal(row, 0.0, 0.0)}

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Normalise each channel of each run, then scale and shift each image as its label says."""
        kept = "mean" in b
        if train and kept:
            b["mean"], b["var"] = b["mean"].clone(), b["var"].clone()
        made = F.batch_norm(
            x, b.get("mean"), b.get("var"), None, None, train or not kept, self.momentum, self.eps
        )
        scale, shift = (
            _of_labels(p[key].view(runs, self.classes, -1), b["labels"]).flatten(1)
            for key in ("weight", "bias")
        )
        return _scaled(made, scale, shift)


@dataclass(frozen=True)
class Projection(Layer):
    """A logit and, on top, the product of the label's embedding with the sum over pixels of the maps.

    Miyato & Koyama 2018: f(x, y) = <embedding of y, phi(x)> + psi(phi(x)); psi is `layer`, the logit of before.
    """

    layer: Conv
    classes: int = 10

    labelled = True

    def parameters(self, std: float) -> dict[str, Normal]:
        """Return those of the logit, and the embedding (classes, inputs) ~ N(0, std)."""
        embedding = Normal((self.classes, self.layer.inputs), 0.0, std)
        return self.layer.parameters(std) | {"embedding": embedding}

    def buffers(self) -> dict[str, Tensor]:
        """Return those of the logit."""
        return self.layer.buffers()

    def output(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the logit's (1, 1, 1)."""
        return self.layer.output(shape)

    def multiply_adds(self, shape: tuple[int, int, int]) -> int:
        """Return those of the logit and one product with the embedding."""
        return self.layer.multiply_adds(shape) + self.layer.inputs

    def forward(
        self, x: Tensor, p: dict[str, Tensor], b: dict[str, Tensor], runs: int, train: bool
    ) -> Tensor:
        """Return each run's logits (B, R, 1, 1) for its images and their labels."""
        logits = self.layer.forward(x, p, b, runs, train)
        pooled = _wide(x).sum((2, 3)).unflatten(1, (runs, -1))  # (B, R, inputs)
        embedded = _of_labels(p["embedding"].unflatten(0, (runs, -1)), b["labels"])
        return logits + (embedded * pooled).sum(2)[..., None, None].to(logits.dtype)
