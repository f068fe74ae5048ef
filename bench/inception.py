"""Torch-fidelity's Inception made faster: the same features to rounding, at twice the speed or more."""

from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

SIDE = FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE


class FastInception(FeatureExtractorBase):
    """An equal of a torch-fidelity Inception, which it copies.

    BatchNorm is folded into the convolutions (in float64), the resize is two matrix products, and channels
    come last in memory. Input: uint8 (n, 3, H, W), or (n, 1, H, W) for grey as three equal channels.
    Returns float32 features (n, 2048) and logits without bias (n, 1008), in the order of `features_list`.
    """

    def __init__(self, net: FeatureExtractorInceptionV3):
        super().__init__(net.get_name(), net.get_requested_features_list())
        *trunk, fc = deepcopy(net).children()  # torch-fidelity lists them in the order of its forward
        self.trunk = nn.Sequential(*map(_folded, trunk))
        self.fc = fc
        self.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"expected uint8 images (n, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        x = resized((images.float() - 128) / 128).expand(-1, 3, -1, -1)
        x = self.trunk(x.contiguous(memory_format=torch.channels_last)).flatten(1)
        found = {"2048": x, "logits_unbiased": x @ self.fc.weight.T}
        return tuple(found[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "2048", "logits_unbiased"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return FeatureExtractorInceptionV3.get_default_feature_layer_for_metric(metric)

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def resized(x: Tensor) -> Tensor:
    """Resize float32 images (n, C, H, W) to 299 x 299 as TensorFlow 1 does, bilinear without aligned corners."""
    rows, columns = (matrix(side).to(x.device) for side in x.shape[2:])
    return rows @ (x @ columns.T)


@cache
def matrix(side: int) -> Tensor:
    """Return the matrix (299, side) that resizes `side` pixels to 299: two weights a row, which sum to 1."""
    place = torch.arange(SIDE, dtype=torch.float32) * torch.tensor(side / SIDE, dtype=torch.float32)
    low = place.long()
    share = place - low
    found = torch.zeros(SIDE, side)
    found.scatter_add_(1, low[:, None], 1 - share[:, None])
    found.scatter_add_(1, (low[:, None] + 1).clamp(max=side - 1), share[:, None])
    return found


def _folded(module: nn.Module) -> nn.Module:
    """Return the module with every convolution, BatchNorm and ReLU in it as a convolution with bias and ReLU."""
    if isinstance(module, BasicConv2d):
        conv = fuse_conv_bn_eval(module.conv.double(), module.bn.double()).float()
        return nn.Sequential(conv, nn.ReLU(inplace=True))
    for name, child in module.named_children():
        setattr(module, name, _folded(child))
    return module
