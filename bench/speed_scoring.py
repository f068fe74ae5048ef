"""How fast scoring is, against torch-fidelity as it comes: both measured in turn, on the same images."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch_fidelity
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

from bench.extractors import CLASSIFIER, INCEPTION, SHIPPED, extract, layers, open_extractor
from bench.inception import FastInception
from bench.score import IS_SPLITS, RNG_SEED, frechet, moments_root

Deed = Callable[[], object]
SIDE = 32  # pixels of the images that Inception is measured on


class _Untrained(FeatureExtractorInceptionV3):
    def load_state_dict(self, state, *unused, **named):
        """Keep the weights of the initialisation, whatever the file holds."""


def measure(device: str, quick: bool, rounds: int) -> list[dict]:
    """Return what scoring takes on `device`, ours and torch-fidelity's, from `rounds` rounds of all in turn.

    Each dict: what, unit, median, low, high over the rounds; ratio: how many times as fast as torch-fidelity,
    median over the rounds (None for torch-fidelity itself and where it has no counterpart); note. quick: few
    images, so that a call's fixed costs weigh more than in a run.
    """
    count = 16 if quick else 128
    width = 512 if quick else 2048  # features
    draw = torch.Generator().manual_seed(0)
    fakes, reals = (torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=draw).byte() for _ in range(2))
    reals = reals[: count // 8]
    small = torch.randint(0, 256, (500 if quick else 5_000, 1, 28, 28), generator=draw).byte()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_weights(folder / "random.pth")
        net = open_extractor(INCEPTION, folder / "random.pth", device)
        classifier = open_extractor(CLASSIFIER, SHIPPED / "fashion-mnist-28.safetensors", device)
        random = "random weights in the published format"
        note = f"{random}; calls with {count} images of {SIDE} pixels, FID and IS"
        calls = _stock_call(fakes, reals, folder, device), _our_call(fakes, reals, net)
        # what, how many images (None: seconds are told), a note, torch-fidelity's deed, ours
        deeds: list[tuple[str, int | None, str, Deed | None, Deed]] = [
            ("scoring by Inception", count, note, *calls)
        ]
        if not quick:
            stock = _stock_net(folder / "random.pth").to(device)
            few = fakes[:64]  # torch-fidelity's own batch; smaller ones suit it better, too
            alone = (lambda: [part.cpu() for part in stock(few.to(device))]), (lambda: extract(net, few))
            note = f"{random}; {len(few)} images of {SIDE} pixels, without Fréchet distance and files"
            deeds.append(("Inception alone", len(few), note, *alone))
        for n in (250,) if quick else (500, 1_000, 3_000):
            note = f"{width} features; statistics of real images are kept"
            deeds.append((f"Fréchet distance of {n} images", None, note, *_distances(n, width, draw)))
        note = f"{len(small)} grey images of 28 pixels"
        deeds.append(("classifier", len(small), note, None, lambda: extract(classifier, small)))
        extract(net, fakes[:16])
        extract(classifier, small[:250])
        took = [[(_seconds(theirs), _seconds(ours)) for *_, theirs, ours in deeds] for _ in range(rounds)]
    rows = []
    for (what, images, note, theirs, _), pairs in zip(deeds, zip(*took, strict=True), strict=True):
        stock_took, our_took = zip(*pairs, strict=True)
        if theirs is not None:
            rows.append(_row(f"{what}, torch-fidelity", images, note, stock_took))
        rows.append(_row(f"{what}, ours", images, note, our_took, stock_took if theirs else None))
    return rows


def random_weights(path: Path) -> None:
    """Write random Inception weights in the published format: He initialisation, BatchNorm measured in one pass.

    Its bias is 1: with 0 such a network amplifies rounding a hundredfold, which a trained one does not.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        torch.save({}, path)
        net = _Untrained(INCEPTION, list(layers(INCEPTION)), feature_extractor_weights_path=str(path))
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.ones_(module.bias)
        net.train()(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8))
    torch.save(net.state_dict(), path)


def _stock_net(weights: Path) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3(
        INCEPTION, list(layers(INCEPTION)), feature_extractor_weights_path=str(weights)
    )


def _our_call(fakes: Tensor, reals: Tensor, net: FastInception) -> Deed:
    """Return what a scorer does for one run, the real images' statistics at hand."""
    real = extract(net, reals)[0].double()
    mean = real.mean(0)
    # what moments_root would find for these few images, without its seconds
    _, spreads, axes = torch.linalg.svd((real - mean) / (len(real) - 1) ** 0.5, full_matrices=False)
    root = (axes.T * spreads) @ axes

    def call() -> None:
        features, logits = extract(net, fakes)
        frechet(mean, root, features)
        isc_features_to_metric(logits, IS_SPLITS, True, RNG_SEED)

    return call


def _stock_call(fakes: Tensor, reals: Tensor, folder: Path, device: str) -> Deed:
    """Return torch-fidelity's call for one run: the fakes from files, the real images from its cache."""
    for name, images in (("fakes", fakes), ("reals", reals)):
        (folder / name).mkdir()
        for i, picture in enumerate(images):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name / f"{i:05}.png")
    cuda = device.startswith("cuda")
    asked = {
        "input2": str(folder / "reals"), "input2_cache_name": "reals", "cache_root": str(folder / "kept"),
        "feature_extractor": INCEPTION, "feature_extractor_weights_path": str(folder / "random.pth"),
        "isc": True, "cuda": cuda, "verbose": False,
        "save_cpu_ram": not cuda,  # its loader processes cost more than they bring where they share the cores
    }  # fmt: skip
    # IS and KID of the real images make it keep the features that FID and IS will ask for, all of them at once
    first = {"input1": asked["input2"], "input1_cache_name": "reals", "isc_splits": 1}
    torch_fidelity.calculate_metrics(**asked, **first, kid=True, kid_subsets=1, kid_subset_size=2)
    fakes_at = str(folder / "fakes")
    return lambda: torch_fidelity.calculate_metrics(**asked, input1=fakes_at, fid=True, isc_splits=IS_SPLITS)


def _distances(n: int, width: int, draw: torch.Generator) -> tuple[Deed, Deed]:
    """Return the Fréchet step from n features (n, width) to the distance: torch-fidelity's, and ours."""
    mix = torch.randn(width, width, generator=draw) * torch.logspace(0, -3, width) / width**0.5
    real = (torch.randn(3 * width, width, generator=draw) @ mix + 0.4).relu()
    fake = (torch.randn(n, width, generator=draw) @ mix * 1.1 + 0.45).relu()
    wide = real.double()
    mean, root = moments_root(wide.sum(0), wide.T @ wide, len(wide))
    kept = fid_features_to_statistics(real)
    return (
        lambda: fid_statistics_to_metric(fid_features_to_statistics(fake), kept, False),
        lambda: frechet(mean, root, fake),
    )


def _seconds(deed: Deed | None) -> float:
    start = time.perf_counter()
    if deed is not None:
        deed()  # its results are on the CPU: nothing is left to wait for
    return time.perf_counter() - start


def _row(
    what: str, images: int | None, note: str, own: Sequence[float], stock: Sequence[float] | None = None
) -> dict:
    values = [images / value for value in own] if images else own
    ratio = None
    if stock is not None:
        ratios = [theirs / mine for theirs, mine in zip(stock, own, strict=True)]
        ratio = statistics.median(ratios)
        note = f"{min(ratios):.2f} to {max(ratios):.2f} times as fast; {note}"
    return {
        "what": what,
        "unit": "images/s" if images else "s",
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "ratio": ratio,
        "note": note,
    }
