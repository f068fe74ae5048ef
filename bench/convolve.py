"""Convolutions of an array's runs: PyTorch's own where they are fast, other ways to the same sums elsewhere.

On a GPU, by the kernels of bench.kernels: cuDNN's grouped convolutions made 8 or 32 runs in an array slower than one
alone (an NVIDIA H200, cuDNN 9.19). On a CPU, measured in float32 with one thread (an AMD EPYC with AVX-512, PyTorch
2.15 with oneDNN), batch 64, against F.conv2d and F.conv_transpose2d with groups=runs; the least time is that of a
matrix product of the same size:

* convolution and gradient of a weight: 1 to 2 times the least time for maps with channels last, so they are kept;
* what scatters a pixel over many (a transposed convolution, the gradient of a convolution's input) to the 1 to 3
  channels of an image: 7 to 50 times the least time, 4 to 12 times by `_scatter_rows`; from 16 or 32 channels to the
  one of a grey image, kernel 4: 0.5 to 1 of that by `_scatter_squares`;
* the same from 16 or 32 channels to at most 16, kernel 4: 2.5 to 4 times, 1.3 to 2.5 by `_scatter_blocks`; from 24
  channels on at most 2 times, so it is kept;
* the gradient of a weight in bfloat16, maps of 4x4: 1.5 to 2 times, 1.1 by `_weight_product`; larger maps are kept;
* a kernel as large as its whole input or output (`logit`, `project`): 3 to 100 times, fewer by `_reduce`, `_expand`.
"""

import importlib.util
import math
import os
import shutil
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 4  # the most channels that `_scatter_rows` writes
BLOCK = 16  # channels in a vector register: the most that `_scatter_blocks` writes, and what it reads at once
CACHE = 400_000  # numbers in flight at once: 1.6 MB, about a core's own cache; at 8 MB the gain is lost
SMALL = 4  # the largest map whose weights' gradient is made by `_weight_product`


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, runs: int) -> Tensor:
    """Return F.conv2d with groups=runs, for x (B, runs*C, H, W) and weight (runs*out, C, k, k)."""
    bias = None if bias is None else bias.to(x.dtype)
    if _fast(x, weight, runs, 1):
        if x.shape[2:] == weight.shape[2:] and not padding:
            return _add(_reduce(x, weight, runs), bias)
        if x.is_cuda or _other_ways(weight, stride, runs, x.shape[2] // stride):
            return _add(_Gather.apply(_last(x), weight, stride, padding, runs), bias)
    return F.conv2d(x, weight, bias, stride, padding, groups=runs)


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, extra: int, runs: int
) -> Tensor:
    """Return F.conv_transpose2d with groups=runs, for x (B, runs*C, H, W) and weight (runs*C, out, k, k).

    `extra` is its output_padding.
    """
    bias = None if bias is None else bias.to(x.dtype)
    if _fast(x, weight, runs, stride):
        if x.shape[2:] == (1, 1) and not padding and not extra:
            return _add(_expand(x, weight, runs), bias)
        if x.is_cuda or _other_ways(weight, stride, runs, x.shape[2]):
            return _add(_Scatter.apply(_last(x), weight, stride, padding, extra, runs), bias)
    return F.conv_transpose2d(x, weight, bias, stride, padding, extra, groups=runs)


def _fast(x: Tensor, weight: Tensor, runs: int, grow: int) -> bool:
    """Return whether other ways may be taken: float64 stays bit for bit what the plain loop computes.

    `grow` is how many times as high and wide as x the output may be.
    """
    if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    if x.is_cuda and kernels():
        from bench.kernels import fits

        return fits(x, weight, grow, runs)
    return x.device.type == "cpu"


@cache
def kernels() -> bool:
    """Return whether this Python has Triton, which the kernels for a GPU are written in (torch brings it on Linux), and
    a C compiler to start them by."""
    return importlib.util.find_spec("triton") is not None and compiler() is not None


def compiler() -> str | None:
    """Return the C compiler that Triton would take, None where it finds none."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def _other_ways(weight: Tensor, stride: int, runs: int, side: int) -> bool:
    """Return whether one of the products below is faster than PyTorch; `side` is that of the smaller map."""
    return _rows(stride, weight, runs) or _blocks(stride, weight, runs) or _product(weight, side)


def _rows(stride: int, weight: Tensor, runs: int) -> bool:
    return stride > 1 and weight.shape[1] <= FEW and weight.shape[0] // runs >= BLOCK


def _blocks(stride: int, weight: Tensor, runs: int) -> bool:
    known = stride == 2 and weight.shape[2] == 4 and weight.dtype != torch.bfloat16
    return known and weight.shape[1] <= BLOCK and weight.shape[0] // runs in (BLOCK, 2 * BLOCK)


def _squares(x: Tensor, weight: Tensor, stride: int, padding: int, extra: int, runs: int) -> bool:
    known = (stride, padding, extra, weight.shape[2]) == (2, 1, 0, 4) and weight.dtype != torch.bfloat16
    even = not (x.shape[2] % 2 or x.shape[3] % 2)
    return known and even and weight.shape[1] == 1 and weight.shape[0] // runs in (BLOCK, 2 * BLOCK)


def _product(weight: Tensor, side: int) -> bool:
    return weight.dtype == torch.bfloat16 and side <= SMALL and weight.shape[1] >= BLOCK


def _last(x: Tensor) -> Tensor:
    """Return x with channels last, also where x has one channel and PyTorch cannot tell (and would guess "first")."""
    b, c, h, w = x.shape
    if c > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).contiguous().view(-1).view(b, h, w, c).permute(0, 3, 1, 2)


def _add(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias[:, None, None]


def _reduce(x: Tensor, weight: Tensor, runs: int) -> Tensor:
    """Return the convolution of maps with kernels of their own size: (B, runs*out, 1, 1), one product a run.

    Where several runs make one number each, numbers are multiplied where they lie and added up: a product would first
    copy the maps run by run (the sum and its gradients: 1.3 to 4 times as fast at 5 runs of 4x4x32 or 7x7x64).
    """
    if runs > 1 and weight.shape[0] == runs:
        kernels = weight.permute(
            2, 3, 0, 1
        ).contiguous()  # its order in memory becomes that of the maps' gradient
        pixels = x.permute(0, 2, 3, 1).unflatten(3, (runs, -1)) * kernels  # (B, H, W, runs, C)
        return pixels.sum((1, 2, 4))[:, :, None, None]
    rows = x.permute(0, 2, 3, 1).unflatten(3, (runs, -1)).permute(3, 0, 1, 2, 4).flatten(2)  # (runs, B, HWC)
    columns = weight.unflatten(0, (runs, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)  # (runs, HWC, out)
    return torch.bmm(rows, columns).transpose(0, 1).flatten(1)[:, :, None, None]


def _expand(x: Tensor, weight: Tensor, runs: int) -> Tensor:
    """Return the transposed convolution of single pixels: (B, runs*out, k, k), channels last, one product a run."""
    k = weight.shape[2]
    rows = x.flatten(1).unflatten(1, (runs, -1)).transpose(0, 1)  # (runs, B, C)
    made = torch.bmm(rows, weight.unflatten(0, (runs, -1)).flatten(2))  # (runs, B, out*k*k)
    made = made.unflatten(2, (-1, k, k)).transpose(0, 1).flatten(1, 2)
    return made.contiguous(memory_format=torch.channels_last)


class _Gather(torch.autograd.Function):
    """F.conv2d with another gradient of its input."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int, runs: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding, runs
        if x.is_cuda:
            from bench.kernels import gather

            return gather(x, weight, stride, padding, runs)
        return F.conv2d(x, weight, None, stride, padding, groups=runs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x, weight), (stride, padding, runs) = ctx.saved_tensors, ctx.settings
        dx = dw = None
        if ctx.needs_input_grad[0]:
            extra = (x.shape[2] + 2 * padding - weight.shape[2]) % stride
            dx = _Scatter.apply(_last(grad), weight, stride, padding, extra, runs)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(grad, x, weight, stride, padding, runs)
        return dx, dw, None, None, None


class _Scatter(torch.autograd.Function):
    """F.conv_transpose2d: the gradient of `_Gather`, which in turn is its own gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int, extra: int, runs: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding, runs
        if x.is_cuda:
            from bench.kernels import scatter

            return scatter(x, weight, stride, padding, extra, runs)
        if _squares(x, weight, stride, padding, extra, runs):
            return _scatter_squares(x, weight, runs)
        if _rows(stride, weight, runs):
            parts = _in_flight(x, runs * weight[0].numel())
            return torch.cat([_scatter_rows(part, weight, stride, padding, extra, runs) for part in parts])
        if _blocks(stride, weight, runs):
            return _scatter_blocks(x, weight, stride, padding, extra, runs)
        return F.conv_transpose2d(x, weight, None, stride, padding, extra, groups=runs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x, weight), (stride, padding, runs) = ctx.saved_tensors, ctx.settings
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = _Gather.apply(_last(grad), weight, stride, padding, runs)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(x, _last(grad), weight, stride, padding, runs)
        return dx, dw, None, None, None, None


def _weight_gradient(
    small: Tensor, large: Tensor, weight: Tensor, stride: int, padding: int, runs: int
) -> Tensor:
    """Return the gradient of a weight between a small map and a large one; it is the same both ways."""
    if small.is_cuda:
        from bench.kernels import weight_gradient

        return weight_gradient(small, large, weight.shape[2], stride, padding, runs)
    if _product(weight, small.shape[2]):
        return _weight_product(small, large, weight.shape[2], stride, padding, runs)
    return _gradients(small, large, weight, stride, padding, runs, [False, True, False])[1]


def _weight_product(small: Tensor, large: Tensor, k: int, stride: int, padding: int, runs: int) -> Tensor:
    """Return that gradient as one product a run, of the small map's pixels and the windows each of them sees."""
    padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    windows = padded.unfold(1, k, stride).unfold(2, k, stride)  # (B, h, w, runs*C, k, k)
    windows = windows.unflatten(3, (runs, -1)).permute(3, 0, 1, 2, 5, 6, 4).flatten(4).flatten(1, 3)
    pixels = small.permute(0, 2, 3, 1).unflatten(3, (runs, -1)).permute(3, 4, 0, 1, 2).flatten(2)
    made = torch.bmm(pixels, windows)  # (runs, channels of the small map, k*k*C)
    return made.unflatten(2, (k, k, -1)).permute(0, 1, 4, 2, 3).flatten(0, 1)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, groups: int, wanted: list[bool]
):
    """Return those `wanted` of the gradients of a convolution's input x (whose values it needs not) and weight."""
    places = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *places, groups, wanted)


def _sides(x: Tensor, k: int, stride: int, padding: int, extra: int) -> tuple[int, int]:
    """Return height and width of a transposed convolution's output."""
    height, width = ((n - 1) * stride - 2 * padding + k + extra for n in x.shape[2:])
    return height, width


def _scatter_blocks(x: Tensor, weight: Tensor, stride: int, padding: int, extra: int, runs: int) -> Tensor:
    """Return F.conv_transpose2d as a sum over blocks of 16 input channels, each a group of its own.

    With 16 channels on both sides of a group oneDNN takes its direct kernel; with more it takes one that, writing so
    few channels, is three times slower.
    """
    batch, (inputs, out, k, _) = x.shape[0], weight.shape
    height, width = _sides(x, k, stride, padding, extra)
    groups = inputs // BLOCK
    made = x.new_empty(batch, height, width, runs, out)
    parts = _in_flight(
        x, groups * out * stride**2 / 4
    )  # four times as many: the sum passes over them only once
    for part, of in zip(parts, made.tensor_split(len(parts)), strict=True):
        like = x.new_empty(len(part), height, width, groups * out).permute(0, 3, 1, 2)
        blocks = _gradients(part, like, weight, stride, padding, groups, [True, False, False])[0]
        first, *others = blocks.permute(0, 2, 3, 1).unflatten(3, (runs, -1, out)).unbind(4)
        torch.add(first, others[0], out=of) if others else of.copy_(first)
    return made.flatten(3).permute(0, 3, 1, 2)


def _in_flight(x: Tensor, numbers: float) -> tuple[Tensor, ...]:
    """Return parts of a batch, for `numbers` made from each pixel no more than a core's cache holds."""
    return x.tensor_split(min(len(x), math.ceil(numbers * x[:, 0].numel() / CACHE)))


def _scatter_squares(x: Tensor, weight: Tensor, runs: int) -> Tensor:
    """Return F.conv_transpose2d, kernel 4 and stride 2, as a convolution that makes squares of 4x4 pixels its channels.

    A square's pixels see 4x4 pixels of x, each with those taps of its kernel that reach it, and zeros: four times the
    products of the sum itself, but oneDNN's fastest, and they fall where they belong.
    """
    padded = F.pad(weight, (3, 3, 3, 3)).view(runs, -1, 100).transpose(1, 2)  # (runs, 10x10 taps, C)
    taps = padded.index_select(1, _square_taps(x.device)).view(runs * 16, 4, 4, -1).permute(0, 3, 1, 2)
    return F.pixel_shuffle(F.conv2d(x, taps, None, 2, 1, groups=runs), 4)


@cache
def _square_taps(device: torch.device) -> Tensor:
    """Return where the taps of a square's 4x4 pixels, each with its 4x4 windows, lie in a kernel padded to 10x10."""
    at = torch.arange(4)
    row = at[:, None] + 2 * (3 - at)  # (pixels, windows): the furthest window comes first
    return (10 * row[:, None, :, None] + row[None, :, None, :]).flatten().to(device)


def _scatter_rows(x: Tensor, weight: Tensor, stride: int, padding: int, extra: int, runs: int) -> Tensor:
    """Return F.conv_transpose2d as one product a run, (taps, C) x (C, pixels), whose rows are added up where they fall.

    Products and sums are float32 also where x is not: sums of bfloat16 are slower and lose what the products kept.
    With few channels a row of pixels is the longest thing that lies in one piece, so pixels come last and an output
    pixel p is kept at [p % stride, p // stride] until the end: every addition then runs over whole rows.
    """
    (batch, _, h, w), (_, out, k, _) = x.shape, weight.shape
    rounded = x.dtype
    if rounded == torch.bfloat16:
        x, weight = x.float(), weight.float()
    pixels = x.permute(0, 2, 3, 1).reshape(batch * h * w, runs, -1).permute(1, 2, 0)
    taps = torch.bmm(weight.reshape(runs, -1, out * k * k).transpose(1, 2), pixels)
    taps = taps.view(runs, out, k, k, batch, h, w)
    reach = (k + extra - 1) // stride  # how many pixels of x further an output pixel may lie
    made = x.new_zeros(runs, out, stride, stride, batch, h + reach, w + reach)
    for i in range(0, k, stride):
        for j in range(0, k, stride):
            part = taps[:, :, i : i + stride, j : j + stride]
            at, left = i // stride, j // stride
            made[:, :, : part.shape[2], : part.shape[3], :, at : at + h, left : left + w] += part
    height, width = _sides(x, k, stride, padding, extra)
    made = made.permute(4, 5, 2, 6, 3, 0, 1).reshape(
        batch, stride * (h + reach), stride * (w + reach), runs * out
    )
    return made[:, padding : padding + height, padding : padding + width].permute(0, 3, 1, 2).to(rounded)
