"""Train the small classifier whose features measure distances.

`python -m bench.train_classifier digits fashion-mnist` made the weights in bench/weights/. Made again on
another machine they differ in the last bits: another protocol, with which nothing checked in compares.
"""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.data import SETS, Images, Log, load, silent
from bench.extractors import MIRRORED, SHIPPED, extract, open_extractor, scaled

# image size: channels of the convolutions, units of the hidden layer
WIDTHS = {16: (32, 64), 28: (32, 64, 64), 32: (32, 64, 64), 64: (32, 64, 128, 128)}
HIDDEN = {16: 64, 28: 128, 32: 128, 64: 128}
BATCH = 128
NOISE = 0.6  # without it, the faint noise of a young generator hides its digits from the classifier


def train(
    images: Images, mirror: bool, steps: int | None = None, log: Log = silent, seed: int = 0
) -> tuple[dict[str, Tensor], float]:
    """Return the weights of a classifier of `images`, BatchNorm folded in, and its hold-out accuracy.

    mirror: whether an image may be shown mirrored. All are shifted, by up to a fourteenth of their side,
    and half of them get Gaussian noise with a standard deviation of 0 to 0.6, pixels being in [-1, 1].
    steps: of 128 images; by default 6 000, or 1 500 for a set of fewer than 10 000 images.
    Draws come from their own generator; the global one is restored.
    """
    steps = steps or (6_000 if len(images.train) >= 10_000 else 1_500)
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _network(images.train.shape[1], images.train.shape[-1], len(images.class_names))
    net = net.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    began = time.monotonic()
    for step in range(steps):
        chosen = torch.randint(len(images.train), (BATCH,), generator=draw)
        batch = _moved(scaled(images.train[chosen]), mirror, draw)
        strength = NOISE * (2 * torch.rand(BATCH, 1, 1, 1, generator=draw) - 1).clamp(min=0)
        batch += strength * torch.randn(batch.shape, generator=draw)
        batch = batch.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(net(batch), images.train_labels[chosen], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 500 == 499:
            seconds = time.monotonic() - began
            log(f"classifier: step {step + 1} of {steps}, loss {loss.item():.3f}, {seconds:.0f} s")
    net.eval()
    with torch.inference_mode():
        parts = [net(scaled(part)).argmax(1) for part in images.held_out.split(250)]
    accuracy = (torch.cat(parts) == images.held_out_labels).float().mean().item()
    return _folded(net), accuracy


def _network(channels: int, size: int, classes: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for width in WIDTHS[size]:
        parts += [
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    side = -(-size // 2 ** len(WIDTHS[size]))
    parts += [
        nn.Flatten(),
        nn.Linear(channels * side * side, HIDDEN[size], bias=False),
        nn.BatchNorm1d(HIDDEN[size]),
    ]
    return nn.Sequential(*parts, nn.ReLU(), nn.Linear(HIDDEN[size], classes))


def _moved(batch: Tensor, mirror: bool, draw: torch.Generator) -> Tensor:
    """Shift each image of a batch (and mirror half of them) at random, filling with its own border."""
    n, _, size, _ = batch.shape
    reach = size // 14
    padded = F.pad(batch, (reach,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * reach + 1, (2, n, 1), generator=draw)
    rows, columns = down + torch.arange(size), right + torch.arange(size)
    if mirror:
        flip = torch.rand(n, 1, generator=draw) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def _folded(net: nn.Sequential) -> dict[str, Tensor]:
    """Return the weights as bench.extractors reads them, each BatchNorm folded into the layer before it."""
    weights, modules, convs = {}, list(net), 0
    for layer, norm in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            name = "hidden" if isinstance(layer, nn.Linear) else f"conv{convs}"
            convs += 1
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weights[f"{name}.weight"] = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
            weights[f"{name}.bias"] = norm.bias - norm.running_mean * scale
    weights |= {"logits.weight": modules[-1].weight, "logits.bias": modules[-1].bias}
    return {name: value.detach().contiguous() for name, value in weights.items()}


def main(names: list[str], folder: Path = SHIPPED) -> None:
    """Train and keep the classifiers of the named data sets at their default size."""
    from bench.spec import DataSpec

    torch.set_num_threads(1)
    for name in names:
        spec = DataSpec(set=name, size=SETS[name].default_size)
        images = load(spec, log=print)
        weights, accuracy = train(images, mirror=name in MIRRORED, log=print)
        path = folder / f"{name}-{spec.size}.safetensors"
        save_file(weights, path)
        path.chmod(0o644)  # safetensors writes files that only their owner may read
        _, logits = extract(open_extractor("classifier", path), images.held_out)
        kept = (logits.argmax(1) == images.held_out_labels).float().mean().item()
        print(f"{path}: right on {accuracy:.2%} of the hold-out, {kept:.2%} as read back")


if __name__ == "__main__":
    main(sys.argv[1:])
