"""Convolutions of an array's runs on a GPU: three Triton kernels, each a matrix product a run that reads maps in place.

cuDNN takes grouped convolutions one group after another, or by kernels that use a hundredth of the card. Here a run is
an axis of the launch, so R runs are one launch, and what a run computes does not depend on how many share it. Maps are
(B, H, W, runs*C) in memory, that is (B, runs*C, H, W) with channels last; a weight is between a small map and a large
one, (runs*small, large, k, k), as in F.conv2d and F.conv_transpose2d. Sums are float32; products of float32 are TF32
where torch's convolutions may use it (torch.backends.cudnn.allow_tf32), and so it is without this module.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 2**31 - 1  # numbers in a map: places in it are counted in 32 bits
LONGEST = 65_535  # programs along the second and third axis of a launch
PIXELS = 128  # that a program of `_gather` or `_scatter` computes
# What no kernel is compiled anew for; channels are: their divisors decide how much is fetched at once.
MAP = ["batch", "in_h", "in_w", "out_h", "out_w", "runs", "k", "stride", "padding"]
PAIR = ["batch", "small_h", "small_w", "large_h", "large_w", "runs", "k", "stride", "padding", "parts"]
PART = 1024  # pixels that a program of `_weigh` adds up; by a layer's shape alone, so a run's sums are too


@triton.jit(do_not_specialize=MAP)
def _gather(
    x, w, y, batch, in_h, in_w, out_h, out_w, runs, inputs, outputs, k, stride, padding,
    ALIGNED: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A convolution: rows are pixels of y, columns its channels, summed over taps and channels of x."""
    r = tl.program_id(0)
    pixel = tl.program_id(2) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    there = pixel < batch * out_h * out_w
    image = pixel // (out_h * out_w)
    top = (pixel // out_w) % out_h * stride - padding
    left = pixel % out_w * stride - padding
    depth = k * k * inputs
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, depth, BK):
        line = start + tl.arange(0, BK)
        if ALIGNED:  # a block of lines is of one tap
            tap = start // inputs
            channel = tl.multiple_of(start % inputs, BK) + tl.arange(0, BK)
            h, v = top + tap // k, left + tap % k
            inside = there & (h >= 0) & (h < in_h) & (v >= 0) & (v < in_w)
            at = ((image * in_h + h) * in_w + v) * (runs * inputs) + r * inputs
            a = tl.load(x + at[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
            known = (column < outputs)[:, None]
        else:
            tap, channel = line // inputs, line % inputs
            h, v = top[:, None] + (tap // k)[None, :], left[:, None] + (tap % k)[None, :]
            inside = there[:, None] & (line < depth)[None, :] & (h >= 0) & (h < in_h) & (v >= 0) & (v < in_w)
            at = ((image[:, None] * in_h + h) * in_w + v) * (runs * inputs) + r * inputs
            a = tl.load(x + at + channel[None, :], mask=inside, other=0.0)
            known = (column < outputs)[:, None] & (line < depth)[None, :]
        b = tl.load(w + (r * outputs + column)[:, None] * depth + line[None, :], mask=known, other=0.0)
        total = tl.dot(a, tl.trans(b), total, input_precision=PRECISION)
    at = (pixel * runs + r) * outputs
    tl.store(y + at[:, None] + column[None, :], total, mask=there[:, None] & (column < outputs)[None, :])


@triton.jit(do_not_specialize=MAP)
def _scatter(
    x, w, y, batch, in_h, in_w, out_h, out_w, runs, inputs, outputs, k, stride, padding,
    ALIGNED: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A transposed convolution, gathered: of the pixels of y, those alike modulo the stride meet the same taps."""
    r, phase = tl.program_id(0) % runs, tl.program_id(0) // runs
    rows, columns = (out_h + stride - 1) // stride, (out_w + stride - 1) // stride
    place = tl.program_id(2) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    image = place // (rows * columns)
    out_row = (place // columns) % rows * stride + phase // stride
    out_column = place % columns * stride + phase % stride
    there = (image < batch) & (out_row < out_h) & (out_column < out_w)
    first, second = (phase // stride + padding) % stride, (phase % stride + padding) % stride
    top, left = (out_row + padding - first) // stride, (out_column + padding - second) // stride
    taps = (k + stride - 1) // stride
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, taps * taps * inputs, BK):
        if ALIGNED:
            tap = start // inputs
            channel = tl.multiple_of(start % inputs, BK) + tl.arange(0, BK)
            i, j = first + stride * (tap // taps), second + stride * (tap % taps)
            h, v = top - tap // taps, left - tap % taps
            real = (channel * 0 + i < k) & (channel * 0 + j < k)  # vectors: Triton's interpreter wants them
            inside = there & (h * 0 + i < k) & (v * 0 + j < k) & (h >= 0) & (h < in_h) & (v >= 0) & (v < in_w)
            at = ((image * in_h + h) * in_w + v) * (runs * inputs) + r * inputs
            a = tl.load(x + at[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
            known = (column < outputs)[:, None] & real[None, :]
        else:
            line = start + tl.arange(0, BK)
            tap, channel = line // inputs, line % inputs
            i, j = first + stride * (tap // taps), second + stride * (tap % taps)
            h, v = top[:, None] - (tap // taps)[None, :], left[:, None] - (tap % taps)[None, :]
            real = (i < k) & (j < k) & (line < taps * taps * inputs)
            inside = there[:, None] & real[None, :] & (h >= 0) & (h < in_h) & (v >= 0) & (v < in_w)
            at = ((image[:, None] * in_h + h) * in_w + v) * (runs * inputs) + r * inputs
            a = tl.load(x + at + channel[None, :], mask=inside, other=0.0)
            known = (column < outputs)[:, None] & real[None, :]
        line = (i * k + j) * inputs + channel
        b = tl.load(
            w + (r * outputs + column)[:, None] * (k * k * inputs) + line[None, :], mask=known, other=0.0
        )
        total = tl.dot(a, tl.trans(b), total, input_precision=PRECISION)
    at = (((image * out_h + out_row) * out_w + out_column) * runs + r) * outputs
    tl.store(y + at[:, None] + column[None, :], total, mask=there[:, None] & (column < outputs)[None, :])


@triton.jit(do_not_specialize=PAIR)
def _weigh(
    small, large, dw, batch, small_h, small_w, large_h, large_w, runs, inputs, outputs, k, stride, padding, parts,
    ALIGNED: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The gradient of a weight: rows are channels of the small map, columns taps and channels of the large one, summed
    over the small map's pixels; `parts` programs share the pixels, and their sums are added afterwards."""
    r, part = tl.program_id(0) % runs, tl.program_id(0) // runs
    m = tl.program_id(2) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    tap, channel = n // outputs, n % outputs
    if ALIGNED:  # sixteen columns and more are of one tap
        channel = tl.max_contiguous(tl.multiple_of(channel, 16), 16)
        tap = tl.max_constancy(tap, 16)
    i, j = tap // k, tap % k
    pixels = batch * small_h * small_w
    each = ((pixels + parts - 1) // parts + BK - 1) // BK * BK
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(part * each, tl.minimum((part + 1) * each, pixels), BK):
        p = start + tl.arange(0, BK)
        there = p < pixels
        at = (p * runs + r) * inputs
        a = tl.load(small + at[:, None] + m[None, :], mask=there[:, None] & (m < inputs)[None, :], other=0.0)
        h = ((p // small_w) % small_h * stride - padding)[:, None] + i[None, :]
        v = (p % small_w * stride - padding)[:, None] + j[None, :]
        inside = there[:, None] & (tap < k * k)[None, :] & (h >= 0) & (h < large_h) & (v >= 0) & (v < large_w)
        at = (((p // (small_h * small_w))[:, None] * large_h + h) * large_w + v) * (
            runs * outputs
        ) + r * outputs
        b = tl.load(large + at + channel[None, :], mask=inside, other=0.0)
        # TF32 wants pixels last in shared memory. By way of registers, or the large map is fetched number by number, as
        # the small one still is.
        if b.dtype == tl.float32:
            b = b + 0.0
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    at = ((part * runs + r) * inputs + m) * (k * k * outputs)
    tl.store(dw + at[:, None] + n[None, :], total, mask=(m < inputs)[:, None] & (tap < k * k)[None, :])


def gather(x: Tensor, weight: Tensor, stride: int, padding: int, runs: int) -> Tensor:
    """Return F.conv2d(x, weight, None, stride, padding, groups=runs), channels last."""
    batch, _, height, width = x.shape
    outputs, inputs, k = weight.shape[0] // runs, weight.shape[1], weight.shape[2]
    out_h, out_w = ((n + 2 * padding - k) // stride + 1 for n in (height, width))
    y = x.new_empty(batch, out_h, out_w, runs * outputs)
    taps = weight.view(runs, outputs, inputs, k * k).transpose(2, 3).contiguous()  # (runs, out, k*k, C)
    bm, bn, bk, warps = _tile(outputs, inputs)
    grid = runs, triton.cdiv(outputs, bn), triton.cdiv(batch * out_h * out_w, bm)
    _gather[grid](
        _pixels(x), taps, y, batch, height, width, out_h, out_w, runs, inputs, outputs, k, stride, padding,
        inputs % bk == 0, _precision(), bm, bn, bk, num_warps=warps,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def scatter(x: Tensor, weight: Tensor, stride: int, padding: int, extra: int, runs: int) -> Tensor:
    """Return F.conv_transpose2d(x, weight, None, stride, padding, extra, groups=runs), channels last."""
    batch, _, height, width = x.shape
    inputs, outputs, k = weight.shape[0] // runs, weight.shape[1], weight.shape[2]
    out_h, out_w = ((n - 1) * stride - 2 * padding + k + extra for n in (height, width))
    y = x.new_empty(batch, out_h, out_w, runs * outputs)
    taps = weight.view(runs, inputs, outputs, k * k).permute(0, 2, 3, 1).contiguous()  # (runs, out, k*k, C)
    places = batch * triton.cdiv(out_h, stride) * triton.cdiv(out_w, stride)
    bm, bn, bk, warps = _tile(outputs, inputs)
    grid = runs * stride**2, triton.cdiv(outputs, bn), triton.cdiv(places, bm)
    _scatter[grid](
        _pixels(x), taps, y, batch, height, width, out_h, out_w, runs, inputs, outputs, k, stride, padding,
        inputs % bk == 0, _precision(), bm, bn, bk, num_warps=warps,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def weight_gradient(small: Tensor, large: Tensor, k: int, stride: int, padding: int, runs: int) -> Tensor:
    """Return the gradient (runs*small, large, k, k) of the weight between two maps, of which one has a gradient."""
    batch, inputs, height, width = small.shape
    inputs, outputs = inputs // runs, large.shape[1] // runs
    pixels = batch * height * width
    parts = max(1, pixels // PART)
    made = small.new_empty(parts, runs * inputs, k, k, outputs, dtype=torch.float32)
    bm, bn, bk, warps = _tile_of_weight(inputs, k * k * outputs)
    grid = runs * parts, triton.cdiv(k * k * outputs, bn), triton.cdiv(inputs, bm)
    _weigh[grid](
        _pixels(small), _pixels(large), made, batch, height, width, *large.shape[2:], runs, inputs, outputs, k,
        stride, padding, parts, outputs % 16 == 0, _precision(), bm, bn, bk, num_warps=warps,
    )  # fmt: skip
    return (made.sum(0) if parts > 1 else made[0]).to(small.dtype).permute(0, 3, 1, 2)


def fits(x: Tensor, weight: Tensor, grow: int, runs: int) -> bool:
    """Return whether the maps of a convolution, whose output is at most `grow` times as high and wide as x, are small
    enough to be counted in 32 bits, and by an axis of a launch."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3] * grow**2
    return (
        pixels <= PIXELS * LONGEST
        and pixels * max(x.shape[1], weight.shape[0], runs * weight.shape[1]) <= LARGEST
    )


def _pixels(x: Tensor) -> Tensor:
    """Return maps (B, runs*C, H, W) as (B, H, W, runs*C), which costs nothing where channels are last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _tile(columns: int, inputs: int) -> tuple[int, int, int, int]:
    """Return how many pixels, channels and summands a program takes at once, and how many warps it has."""
    bn = _power(columns)
    return PIXELS, bn, 32 if inputs >= 32 else 16, 8 if bn >= 64 else 4


def _tile_of_weight(inputs: int, columns: int) -> tuple[int, int, int, int]:
    """Return how many channels, taps and channels, and pixels a program takes at once, and how many warps it has."""
    bm, bn = min(64, _power(inputs)), 256 if columns >= 256 else _power(columns)
    return bm, bn, 32, 8 if bn > 64 else 4


def _power(number: int) -> int:
    """Return the power of two from 16 to 128 next to a number."""
    return min(128, max(16, triton.next_power_of_2(number)))


def _precision() -> str:
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
