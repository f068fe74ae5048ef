"""What scoring costs: torch-fidelity as it comes, called once per run on PNG files, against what `bench run` does."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torch import nn

from bench.extractors import CLASSIFIER, INCEPTION, SHIPPED, extract, open_extractor
from bench.score import frechet, moments_root

SIDE = 28  # pixels of the images that are scored
WIDTH = 2048  # features of Inception
NOTE = "random weights in the published format"


def measure(device: str, quick: bool, rounds: int) -> list[dict]:
    """Return rows of what, unit, median, low, high, ratio (to the stock row before) and note, interleaved.

    Rates are images per second, of one process with all threads; the Fréchet step is in seconds.
    """
    rounds = min(rounds, 3) if quick else rounds
    count = 16 if quick else 64
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=draw)
    with tempfile.TemporaryDirectory() as folder:
        weights = random_inception(Path(folder) / "random.pth")
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for i, picture in enumerate(images):
            Image.fromarray(picture[0].numpy()).save(pictures / f"{i}.png")
        fast = open_extractor(INCEPTION, weights, device)
        small = open_extractor(CLASSIFIER, SHIPPED / "fashion-mnist-28.safetensors", device)
        many = images.repeat(2_000 // count, 1, 1, 1)
        rates = _interleaved(
            rounds,
            {
                "stock": (count, lambda: _stock(pictures, weights, device)),
                "ours": (count, lambda: extract(fast, images)),
                "classifier": (len(many), lambda: extract(small, many)),
            },
        )
    rows = [
        _row("torch-fidelity stock, Inception, PNG files", rates["stock"], None, NOTE),
        _row("Inception, folded and resized by products", rates["ours"], rates["stock"], NOTE),
        _row(
            "classifier of Fashion-MNIST", rates["classifier"], rates["stock"], "another extractor: not FID"
        ),
    ]
    for fakes in (500,) if quick else (500, 1_000, 4_000):
        rows += _frechet_rows(fakes, rounds, draw)
    return rows


def random_inception(path: Path) -> Path:
    """Write random Inception weights in the published format: He initialisation, BatchNorm measured in one pass."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Stock

    place = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with mock.patch(place, return_value={}), mock.patch.object(Stock, "load_state_dict"):
        net = Stock(INCEPTION, ["2048"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        net.train()(pictures)
    torch.save(net.state_dict(), path)
    return path


def _stock(pictures: Path, weights: Path, device: str) -> None:
    """Extract features as torch-fidelity's calculate_metrics does for a folder of pictures, loading its network."""
    from torch_fidelity import calculate_metrics

    calculate_metrics(
        input1=str(pictures), isc=True, isc_splits=2, feature_extractor=INCEPTION,
        feature_extractor_weights_path=str(weights), cuda=device != "cpu", cache=False, verbose=False,
        save_cpu_ram=True,
    )  # fmt: skip


def _frechet_rows(fakes: int, rounds: int, draw: torch.Generator) -> list[dict]:
    """Compare the Fréchet step from features (fakes, 2048), real statistics given."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real = torch.randn(2 * WIDTH, WIDTH, generator=draw)
    fake = torch.randn(fakes, WIDTH, generator=draw) * 1.1 + 0.1
    wide = real.double()
    mean, root = moments_root(wide.sum(0), wide.T @ wide, len(wide))
    there = fid_features_to_statistics(real)
    seconds = _interleaved(
        rounds,
        {
            "stock": (1, lambda: fid_statistics_to_metric(fid_features_to_statistics(fake), there, False)),
            "ours": (1, lambda: frechet(mean, root, fake)),
        },
    )
    took = {name: [1 / rate for rate in rates] for name, rates in seconds.items()}
    stock = _row(f"torch-fidelity Fréchet step, {fakes:,} fakes", took["stock"], None, "", "s")
    ours = _row(f"Fréchet step by a symmetric root, {fakes:,} fakes", took["ours"], None, "", "s")
    return [stock, ours | {"ratio": stock["median"] / ours["median"]}]


def _interleaved(rounds: int, work: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, list[float]]:
    """Return the rates of each piece of work, done in turns after one untimed round."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, (amount, do) in work.items():
            start = time.perf_counter()
            do()
            if number:
                rates[name].append(amount / (time.perf_counter() - start))
    return rates


def _row(what: str, values: list[float], base: list[float] | None, note: str, unit: str = "images/s") -> dict:
    median = statistics.median(values)
    ratio = median / statistics.median(base) if base else None
    spread = {"median": median, "low": min(values), "high": max(values)}
    return {"what": what, "unit": unit, **spread, "ratio": ratio, "note": note}
