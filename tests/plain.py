"""The plain PyTorch DCGAN loop, as people write it: the reference that the array engine is compared with.

One run, nn.Sequential, two torch.optim.Adam, separate backward passes, after the public PyTorch DCGAN example
at the data's own size. It is given initial weights and batches; it shares no code with bench/.
"""

import itertools

import torch
from torch import nn


def networks(size: int, colours: int, channels: int, length: int) -> tuple[nn.Module, nn.Module]:
    """Return D and G for 16, 28, 32 or 64 pixels."""
    base = 7 if size == 28 else 4
    widths = [channels]
    while base * 2 ** len(widths) < size:
        widths.append(widths[-1] * 2)
    d = [nn.Conv2d(colours, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for a, b in itertools.pairwise(widths):
        d += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2, inplace=True)]
    d += [nn.Conv2d(widths[-1], 1, base, 1, 0, bias=False)]
    widths = widths[::-1]
    g = [
        nn.ConvTranspose2d(length, widths[0], base, 1, 0, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(True),
    ]
    for a, b in itertools.pairwise(widths):
        g += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
    g += [nn.ConvTranspose2d(widths[-1], colours, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*d), nn.Sequential(*g)


def load(net: nn.Module, flat: torch.Tensor) -> None:
    """Put a flat row of parameters into a network, in the order of its layers."""
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(flat[: p.numel()].view_as(p))
            flat = flat[p.numel() :]
    assert len(flat) == 0


def train(
    d, g, batches, lr_d=2e-4, lr_g=2e-4, betas=(0.5, 0.999), real_label=1.0, prelude=()
) -> list[tuple[float, float]]:
    """Train in place on (real, latents) pairs; D alone first on those of `prelude`.

    Return both losses per step.
    """
    bce = nn.BCEWithLogitsLoss()
    adam_d = torch.optim.Adam(d.parameters(), lr=lr_d, betas=betas)
    adam_g = torch.optim.Adam(g.parameters(), lr=lr_g, betas=betas)
    losses = []
    for number, (real, z) in enumerate([*prelude, *batches]):
        ones = torch.ones(len(real), dtype=real.dtype)
        d.zero_grad()
        loss_real = bce(d(real).flatten(), real_label * ones)
        loss_real.backward()
        if number < len(prelude):  # G is not trained yet: its running statistics stay as they are
            kept = [b.clone() for b in g.buffers()]
            fake = g(z[:, :, None, None]).detach()
            for buffer, before in zip(g.buffers(), kept, strict=True):
                buffer.copy_(before)
        else:
            fake = g(z[:, :, None, None])
        loss_fake = bce(d(fake.detach()).flatten(), 0 * ones)
        loss_fake.backward()
        adam_d.step()
        if number < len(prelude):
            continue
        g.zero_grad()
        loss_g = bce(d(fake).flatten(), ones)
        loss_g.backward()
        adam_g.step()
        losses.append((loss_real.item() + loss_fake.item(), loss_g.item()))
    return losses
