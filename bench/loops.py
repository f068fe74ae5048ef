"""The plain DCGAN loop as people write it: what `bench speed` compares this engine with.

After examples/dcgan of PyTorch's public examples, at the data's own size: its networks (sigmoid and BCELoss), its
initial weights, a DataLoader with two workers, two Adams, separate passes for real images and fakes, five `.item()`
calls and a line printed at every step. Its picture file every hundredth step is left out. Shares no code with the
engine.
"""

import itertools
from collections.abc import Iterator
from typing import Protocol, TextIO

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LENGTH = 100  # numbers in a latent vector
EPOCH = (
    60_000  # pictures in an epoch, as in MNIST: workers start anew with each, so a small set would cost more
)


class Batches(Protocol):
    """An epoch of batches: (images (B, C, size, size) in [-1, 1], labels) one after another."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch."""

    def __len__(self) -> int:
        """Return how many there are."""


def networks(size: int, colours: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Return D and G for images (colours, size, size); `channels` is the width of the layer next to the image."""
    base = 7 if size == 28 else 4
    widths = [channels]
    while base * 2 ** len(widths) < size:
        widths.append(widths[-1] * 2)
    d: list[nn.Module] = [
        nn.Conv2d(colours, widths[0], 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for a, b in itertools.pairwise(widths):
        d += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2, inplace=True)]
    d += [nn.Conv2d(widths[-1], 1, base, 1, 0, bias=False), nn.Sigmoid()]
    widths.reverse()
    g: list[nn.Module] = [
        nn.ConvTranspose2d(LENGTH, widths[0], base, 1, 0, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(True),
    ]
    for a, b in itertools.pairwise(widths):
        g += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
    g += [nn.ConvTranspose2d(widths[-1], colours, 4, 2, 1, bias=False), nn.Tanh()]
    nets = nn.Sequential(*d), nn.Sequential(*g)
    for net in nets:
        net.apply(_start)
    return nets


def _start(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)


class Pictures(Dataset):
    """uint8 pictures (N, H, W) or (N, H, W, 3) as a torchvision data set gives them: PIL images, transformed."""

    def __init__(self, pictures: np.ndarray, size: int) -> None:
        middle = (0.5,) * (3 if pictures.ndim == 4 else 1)
        self.pictures = pictures
        self.transform = T.Compose([T.Resize(size), T.ToTensor(), T.Normalize(middle, middle)])

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.pictures[number % len(self.pictures)])
        return self.transform(picture), 0


def loaded(pictures: np.ndarray, size: int, batch: int) -> DataLoader:
    """Return (a)'s batches: two workers that transform picture by picture."""
    return DataLoader(Pictures(pictures, size), batch_size=batch, shuffle=True, num_workers=2)


class Resident:
    """(b)'s batches: rows of one float tensor on the device, drawn with replacement."""

    def __init__(self, pictures: np.ndarray, batch: int, device: str) -> None:
        images = torch.from_numpy(pictures).float().div(127.5).sub(1)
        images = images.unsqueeze(1) if pictures.ndim == 3 else images.permute(0, 3, 1, 2)
        self.images, self.batch = images.contiguous().to(device), batch

    def __len__(self) -> int:
        return EPOCH // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(len(self)):
            chosen = torch.randint(0, len(self.images), (self.batch,), device=self.images.device)
            yield self.images[chosen], chosen


def train(d: nn.Module, g: nn.Module, batches: Batches, device: str, out: TextIO) -> Iterator[float]:
    """Train in place, epoch after epoch without end; print to `out`; yield D's loss plus G's after every step."""
    criterion = nn.BCELoss()
    adam_d = torch.optim.Adam(d.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_g = torch.optim.Adam(g.parameters(), lr=2e-4, betas=(0.5, 0.999))
    for epoch in itertools.count():
        for i, data in enumerate(batches, 0):
            d.zero_grad()
            real = data[0].to(device)
            label = torch.full((real.size(0),), 1.0, dtype=real.dtype, device=device)
            output = d(real).view(-1, 1).squeeze(1)
            loss_real = criterion(output, label)
            loss_real.backward()
            d_x = output.mean().item()

            noise = torch.randn(real.size(0), LENGTH, 1, 1, device=device)
            fake = g(noise)
            label.fill_(0.0)
            output = d(fake.detach()).view(-1, 1).squeeze(1)
            loss_fake = criterion(output, label)
            loss_fake.backward()
            d_g_z1 = output.mean().item()
            loss_d = loss_real + loss_fake
            adam_d.step()

            g.zero_grad()
            label.fill_(1.0)
            output = d(fake).view(-1, 1).squeeze(1)
            loss_g = criterion(output, label)
            loss_g.backward()
            d_g_z2 = output.mean().item()
            adam_g.step()

            both = loss_d.item(), loss_g.item()
            print(
                f"[{epoch}][{i}/{len(batches)}] Loss_D: {both[0]:.4f} Loss_G: {both[1]:.4f} "
                f"D(x): {d_x:.4f} D(G(z)): {d_g_z1:.4f} / {d_g_z2:.4f}",
                file=out,
            )
            yield sum(both)
