"""The kernels for a GPU against PyTorch's convolutions, on the CPU by Triton's interpreter; test_gpu.py runs them on
a GPU."""

import importlib
import importlib.util

import pytest
import torch
from test_convolve import gradient, layers, tensors, theirs

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="no Triton: torch brings it on Linux"
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="test_gpu.py runs the kernels themselves"),
]
SMALL = [layer for layer in layers() if layer[-1] <= 8 and max(layer[1:3]) <= 32]


@pytest.fixture
def kernels(monkeypatch):
    """The module, with products in full float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return importlib.import_module("bench.kernels")


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_a_convolution_and_its_gradients_are_those_of_pytorch(layer, runs, kernels):
    up, _, _, k, stride, padding, extra, _ = layer
    x, weight, _ = (t.detach().float().requires_grad_() for t in tensors(layer, runs, torch.float64, 2))
    wanted = theirs(layer, x, weight, None, runs)
    slope = gradient(wanted)
    small, large = (x, slope) if up else (slope, x)
    back = (x.shape[2] + 2 * padding - k) % stride
    with torch.no_grad():
        if up:
            made = kernels.scatter(x, weight, stride, padding, extra, runs)
            along = kernels.gather(slope, weight, stride, padding, runs)
        else:
            made = kernels.gather(x, weight, stride, padding, runs)
            along = kernels.scatter(slope, weight, stride, padding, back, runs)
        of_weight = kernels.weight_gradient(small, large, k, stride, padding, runs)
    for got, want in zip(
        (made, along, of_weight),
        (wanted.detach(), *torch.autograd.grad(wanted, (x, weight), slope)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


def test_a_run_computes_the_same_bits_whoever_shares_its_array(kernels):
    layer = next(layer for layer in SMALL if not layer[0] and layer[1] >= 16)
    x, weight, _ = (t.detach().float() for t in tensors(layer, 3, torch.float64, 2))
    stride, padding = layer[4:6]
    together = kernels.gather(x, weight, stride, padding, 3).chunk(3, 1)
    alone = [
        kernels.gather(a, w, stride, padding, 1) for a, w in zip(x.chunk(3, 1), weight.chunk(3), strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_maps_too_large_to_count_stay_with_cudnn(kernels):
    x, weight = torch.empty(64, 4096, 32, 32, device="meta"), torch.empty(8192, 64, 4, 4, device="meta")
    assert kernels.fits(x[:, :2048], weight[:4096], 1, 32)
    assert not kernels.fits(x, weight, 2, 64)
    assert not kernels.fits(
        torch.empty(4096, 3, 64, 64, device="meta"), weight[:64, :3], 1, 1
    )  # too many tiles
