"""The convolutions of an array against PyTorch's own, on every shape of layer of 16, 28, 32 and 64 pixel nets."""

import pytest
import torch
import torch.nn.functional as F

from bench import convolve, networks
from bench.recipe import Recipe


def layers() -> list:
    """Every shape of layer once: (transposed, inputs, outputs, kernel, stride, padding, extra, height)."""
    found = {}
    for size, colours in ((16, 1), (28, 1), (32, 3), (64, 3)):
        for kernel in (3, 4, 5):
            for channels in (8, 16) if kernel == 4 else (16,):
                recipe = Recipe(kernel=kernel, channels=channels, noise_length=10)
                tables = {
                    networks.generator(recipe, size, colours): (recipe.noise_length, 1, 1),
                    networks.discriminator(recipe, size, colours): (colours, size, size),
                }
                for table, shape in tables.items():
                    for layer in table:
                        if isinstance(layer, networks.Conv):
                            up = isinstance(layer, networks.ConvTranspose)
                            extra = layer.extra if up else 0
                            place = (layer.kernel, layer.stride, layer.padding, extra, shape[1])
                            found[up, layer.inputs, layer.outputs, *place] = None
                        shape = layer.output(shape)
    return list(found)


def tensors(layer, runs: int, dtype: torch.dtype, batch: int = 3):
    up, inputs, outputs, kernel, *_, height = layer
    draw = torch.Generator().manual_seed(5)
    first, second = (inputs, outputs) if up else (outputs, inputs)
    x = torch.randn(batch, runs * inputs, height, height, generator=draw, dtype=dtype)
    weight = torch.randn(runs * first, second, kernel, kernel, generator=draw, dtype=dtype)
    bias = torch.randn(runs * outputs, generator=draw, dtype=dtype)
    return [t.requires_grad_() for t in (x.contiguous(memory_format=torch.channels_last), weight, bias)]


def ours(layer, x, weight, bias, runs):
    up, _, _, _, stride, padding, extra, _ = layer
    if up:
        return convolve.conv_transpose2d(x, weight, bias, stride, padding, extra, runs)
    return convolve.conv2d(x, weight, bias, stride, padding, runs)


def theirs(layer, x, weight, bias, runs):
    up, _, _, _, stride, padding, extra, _ = layer
    if up:
        return F.conv_transpose2d(x, weight, bias, stride, padding, extra, groups=runs)
    return F.conv2d(x, weight, bias, stride, padding, groups=runs)


def everything(function, layer, runs, given):
    """Return the output and the gradients of x, weight and bias for one gradient of the output."""
    out = function(layer, *given, runs)
    return [out.detach(), *torch.autograd.grad(out, given, gradient(out))]


def gradient(out):
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(out)


def always(monkeypatch):
    monkeypatch.setattr(convolve, "_fast", lambda *given: True)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("layer", layers(), ids=str)
def test_a_layer_and_its_gradients_are_those_of_pytorch(layer, runs, monkeypatch):
    given = tensors(layer, runs, torch.float64)
    wanted = everything(theirs, layer, runs, given)
    for dtype, digits in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        rough = everything(ours, layer, runs, [t.detach().to(dtype).requires_grad_() for t in given])
        bias = dtype == torch.float32  # a sum that may cancel says nothing about rounded summands
        for got, want in zip(rough if bias else rough[:-1], wanted if bias else wanted[:-1], strict=True):
            torch.testing.assert_close(got.double(), want, rtol=0, atol=digits * float(want.abs().max()))
    always(monkeypatch)
    for got, want in zip(everything(ours, layer, runs, given), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12 * float(want.abs().max()))


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("layer", layers(), ids=str)
def test_the_product_that_makes_a_weights_gradient_is_the_gradient(layer, runs):
    up, _, _, kernel, stride, padding, *_ = layer
    given = [t.detach() for t in tensors(layer, runs, torch.float64)]
    out = theirs(layer, *given, runs)
    draw = torch.randn(out.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    small, large = (given[0], draw) if up else (draw, given[0])
    wanted = convolve._gradients(small, large, given[1], stride, padding, runs, [False, True, False])[1]
    got = convolve._weight_product(small, large, kernel, stride, padding, runs)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


SMALL = [
    (False, 1, 16, 4, 2, 1, 0, 8),  # rows
    (True, 16, 3, 5, 2, 2, 1, 4),  # rows, odd kernel
    (False, 8, 32, 4, 2, 1, 0, 8),  # blocks
    (True, 32, 16, 4, 2, 1, 0, 4),  # blocks
    (False, 8, 1, 4, 1, 0, 0, 4),  # logit
    (True, 10, 8, 4, 1, 0, 0, 1),  # project
    (False, 32, 64, 4, 2, 1, 0, 8),  # PyTorch's own
]


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_a_run_never_meets_its_neighbours_not_even_their_nan(layer):
    given = tensors(layer, 3, torch.float32)
    before = everything(ours, layer, 3, given)
    spoilt = [t.detach().clone() for t in given]
    spoilt[0].unflatten(1, (3, -1))[:, 1] = torch.nan
    spoilt[1].unflatten(0, (3, -1))[2] = torch.nan
    after = everything(ours, layer, 3, [t.requires_grad_() for t in spoilt])
    for axis, (a, b) in zip((1, 1, 0, 0), zip(after, before, strict=True), strict=True):
        a, b = (t.unflatten(axis, (3, -1)).select(axis, 0) for t in (a, b))
        assert torch.equal(a, b)
    assert after[0].unflatten(1, (3, -1))[:, 1:].isnan().all()


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_a_batch_in_parts_that_fit_a_cache_is_computed_as_in_one(layer, monkeypatch):
    given = tensors(layer, 2, torch.float32)
    before = everything(ours, layer, 2, given)
    monkeypatch.setattr(convolve, "CACHE", 1)
    for a, b in zip(everything(ours, layer, 2, given), before, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_the_same_input_gives_the_same_bits(layer):
    given = tensors(layer, 2, torch.float32)
    for a, b in zip(everything(ours, layer, 2, given), everything(ours, layer, 2, given), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_float64_is_pytorchs_own_to_the_last_bit(layer):
    given = tensors(layer, 2, torch.float64)
    for a, b in zip(everything(ours, layer, 2, given), everything(theirs, layer, 2, given), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_gradients_that_nobody_asked_for_are_not_computed(layer):
    x, weight, bias = tensors(layer, 2, torch.float32)
    for wanted in (x, weight):
        given = [t if t is wanted else t.detach() for t in (x, weight, bias)]
        full = everything(ours, layer, 2, [x, weight, bias])[1 if wanted is x else 2]
        out = ours(layer, *given, 2)
        assert torch.equal(torch.autograd.grad(out, wanted, gradient(out))[0], full)


@pytest.mark.parametrize(
    "layer",
    [(False, 1, 16, 4, 2, 1, 0, 4), (True, 16, 1, 3, 2, 1, 1, 2), (True, 16, 5, 4, 2, 1, 0, 2)],
    ids=str,
)
def test_first_and_second_gradients_are_those_of_finite_differences(layer, monkeypatch):
    always(monkeypatch)
    given = tensors(layer, 2, torch.float64, batch=1)

    def own(*inputs):
        return ours(layer, *inputs, 2)

    assert torch.autograd.gradcheck(own, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(own, given, fast_mode=True)
