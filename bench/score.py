"""Scores of generated images by torch-fidelity, against statistics of the real ones computed once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch_fidelity import FeatureExtractorBase
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from bench.data import RESIZE, Images, Log, silent
from bench.detect import USUAL, Curve, Limits, detect, slack
from bench.extractors import CLASSIFIER, INCEPTION, extract, find_weights, layers, open_extractor
from bench.looks import Looks, figures, halves, look, nearest_pairs, to_nearest
from bench.products import packed, product
from bench.spec import IS_SPLITS, canonical, file_hash, protocol_id

# 12 ms at 64 features; torch-fidelity's 100 of 1000 would take half a second at every point of every run
KID_SUBSETS, KID_SUBSET_SIZE = 10, 500
NEIGHBOURS = 3
GROUP = 20  # distances of which only the least is looked at first
MEMORISED = 10_000  # training images, at most, where it is asked whether G only repeats them
RNG_SEED = 2020  # torch-fidelity's own: it shuffles for IS and draws KID's subsets


@dataclass(frozen=True)
class Real:
    """The real images as the metrics need them.

    mean (D,) and root (D, D), float64: mean of the features and square root of their covariance, all images;
    features (m, D): of images evenly spaced through the set, for KID, precision and recall; known (N, D): of all of
    them, none where they are more than MEMORISED; apart: how far a held-out image lies from these.
    """

    mean: Tensor
    root: Tensor
    features: Tensor
    looks: Looks
    known: Tensor
    apart: float

    @cached_property
    def radii(self) -> Tensor:
        """How far each of `features` is from its third neighbour among them, squared (m,): once, not for every run."""
        return radii(self.features)

    @cached_property
    def variance(self) -> float:
        """The sum of the features' variances."""
        return self.root.square().sum().item()


@dataclass(frozen=True)
class Scorer:
    """Scores sets of images under one protocol.

    protocol: all that fixes what a score means. protocol_id: first 12 hex digits of the SHA-256 of its JSON.
    """

    protocol: dict[str, str | int]
    net: FeatureExtractorBase = field(repr=False)
    real: Real = field(repr=False)
    _last: dict = field(
        default_factory=dict, repr=False
    )  # so that detect() after score() extracts nothing again

    @property
    def protocol_id(self) -> str:
        return protocol_id(self.protocol)

    def score(self, fakes: Tensor, metrics: Sequence[str]) -> dict[str, float]:
        """Return the scores of uint8 fakes (samples, C, H, W).

        metrics: among fid, is, kid, precision, recall; "fid" asks for the Fréchet distance in this
        extractor's features, whose key is fd; coverage comes with recall. Raises ValueError where fakes are not what
        the protocol says.
        """
        features, logits = self._features(fakes)
        scores: dict[str, float] = {}
        if "fid" in metrics:
            scores["fd"] = frechet(self.real.mean, self.real.root, features)
        if "is" in metrics:
            scores["is"] = isc_features_to_metric(logits, IS_SPLITS, True, RNG_SEED)[KEY_METRIC_ISC_MEAN]
        if "kid" in metrics:
            scores["kid"] = kernel_distance(features, self._subsets)
        if "precision" in metrics or "recall" in metrics:
            found = precision_recall(features, self.real.features, self.real.radii)
            scores |= {name: value for name, value in found.items() if name in metrics}
            if "recall" in metrics:
                scores["coverage"] = found["coverage"]
        return scores

    def figures(self, fakes: Tensor, labels: Tensor | None = None, symptoms: bool = True) -> dict[str, float]:
        """Return what the detectors judge samples by, beside their scores: see bench.looks.

        labels (samples,): the classes that G was asked for, if it was. symptoms: also what tells of a symptom alone,
        the dearer part.
        """
        features, logits = self._features(fakes)
        own, real = look(fakes, _classes(self.protocol, logits), labels), self.real
        if not symptoms:
            return figures(own, replace(real.looks, nearest=0.0), features, variance=real.variance)
        known = real.known if len(real.known) else None
        found = figures(own, real.looks, features, known, real.apart, real.variance)
        return found | {"fd_spread": frechet_spread(real.mean, real.root, features)}

    def detect(
        self,
        found: Mapping[str, float],
        curves: Mapping[str, Curve],
        cap: float | None,
        limits: Limits = USUAL,
    ) -> tuple[str, str, tuple[str, ...]]:
        """Return status, reason and the codes that fired, from scores and figures: see bench.detect."""
        return detect(found, curves, cap, slack(str(self.protocol["extractor"]), cap), limits)

    @cached_property
    def _subsets(self) -> "list[Subset]":
        keys = ("samples", "kid_subsets", "kid_subset_size", "rng_seed")
        return subsets(self.real.features, *(int(self.protocol[key]) for key in keys))

    def _features(self, fakes: Tensor) -> tuple[Tensor, Tensor]:
        if fakes.dtype != torch.uint8 or len(fakes) != self.protocol["samples"]:
            wanted = f"{self.protocol['samples']} uint8 images"
            raise ValueError(f"this protocol scores {wanted}, not {len(fakes)} of {fakes.dtype}")
        if fakes.is_inference():  # such a tensor does not say whether it was changed
            return extract(self.net, fakes)
        mark = (fakes.data_ptr(), fakes.shape, fakes.stride(), fakes._version)
        if self._last.get("mark") != mark:  # while `of` is held, nothing else can lie at its address
            self._last.update(mark=mark, of=fakes, features=extract(self.net, fakes))
        return self._last["features"]


def make_scorer(
    images: Images,
    spec,
    extractor: str,
    samples: int,
    cache: Path,
    weights: Path | None = None,
    *,
    root: Path | None = None,
    device: str = "cpu",
    log: Log = silent,
) -> Scorer:
    """Return the scorer of one protocol; the reference is the training split.

    The statistics of the real images are read from the folder `cache`, or computed and kept there.
    weights: a file to use in place of the extractor's own. root: where data sets are, for a classifier that
    has to be trained. Raises Refused where the extractor's weights cannot be had.
    """
    path = find_weights(extractor, spec, cache, weights, root, log)
    subset = min(len(images.train), samples)
    protocol: dict[str, str | int] = {
        "set": spec.set,
        "size": spec.size,
        "classes": ",".join(images.class_names),
        "checksum": images.checksum,
        "split": "train",
        "resize": RESIZE,
        "real": len(images.train),
        "samples": samples,
        "extractor": extractor,
        "weights": file_hash(path),
        "layer_fd": layers(extractor)[0],
        "layer_is": layers(extractor)[1],
        "is_splits": IS_SPLITS,
        "kid_kernel": "poly",
        "kid_subsets": KID_SUBSETS,
        "kid_subset_size": min(KID_SUBSET_SIZE, subset),
        "prc_neighborhood": NEIGHBOURS,
        "kid_prc_real": subset,
        "rng_seed": RNG_SEED,
        "torch_fidelity": version("torch-fidelity"),
    }
    net = open_extractor(extractor, path, device)
    kept = cache / f"real-{protocol_id(protocol)}.safetensors"
    real = _read_real(kept, protocol)
    if real is None:
        if extractor == INCEPTION:
            log(f"score: features of {len(images.train)} real images, once (kept in {kept})")
        real = _measure(images, net, subset, protocol)
        try:
            _keep_real(kept, protocol, real)
        except (OSError, SafetensorError) as error:
            log(f"score: statistics of real images cannot be kept in {kept} ({error}): made at each start")
    return Scorer(protocol, net, real)


def to_uint8(x: Tensor) -> Tensor:
    """Round images in [-1, 1] to 0..255; raises ValueError where a pixel is not finite.

    Cast as it is, a NaN would become an ordinary grey, and torch-fidelity would score it well.
    """
    if not torch.isfinite(x).all():
        raise ValueError("samples are not finite")
    return rounded(x)


def rounded(x: Tensor) -> Tensor:
    """Round images in [-1, 1] that are known to be finite to 0..255."""
    return (x + 1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def frechet(mean: Tensor, root: Tensor, features: Tensor) -> float:
    """Return the Fréchet distance of features (n, D) to real ones with this mean and root of the covariance.

    torch-fidelity takes the eigenvalues of the product S1 S2; these are the eigenvalues of the symmetric
    S1^(1/2) S2 S1^(1/2), and of an n x n matrix where images are fewer than features. All in float64.
    """
    wide = features.double()
    own = wide.mean(0)
    centred = (wide - own).div_((len(wide) - 1) ** 0.5)
    if len(wide) < 2 * len(root):
        half = centred @ root
        inner = _gram(half if len(half) < len(root) else half.T)
    else:  # fewer multiplications, where images are many
        inner = root @ _gram(centred.T) @ root
    overlap = torch.linalg.eigvalsh(inner).clamp_(min=0).sqrt_().sum()
    spreads = torch.linalg.vector_norm(root) ** 2 + torch.linalg.vector_norm(centred) ** 2
    return ((own - mean).square().sum() + spreads - 2 * overlap).item()


def frechet_spread(mean: Tensor, root: Tensor, features: Tensor) -> float:
    """Return by how much the Fréchet distance of the same G would vary with other latents: its standard deviation over
    its value, so about that of its logarithm.

    By the delta method: the distance moves with one image x of the fakes by 2 (m - mean)(x - m) + |x - m|² - q(x) with
    q(x) = (x - m)' S1^(1/2) (S1^(1/2) S2 S1^(1/2))^(-1/2) S1^(1/2) (x - m); over independent images variances add up.
    Where images are not many more than features it is too small (the bias it does not see is the same for every draw).
    """
    wide = features.double()
    own = wide.mean(0)
    centred = wide - own
    half = centred @ root / (len(wide) - 1) ** 0.5
    if len(half) < len(root):  # the diagonal of (half half')^(1/2)
        values, vectors = torch.linalg.eigh(_gram(half))
        bent = (len(wide) - 1) * (vectors.square() @ values.clamp(min=0).sqrt())
    else:
        values, vectors = torch.linalg.eigh(_gram(half.T))
        kept = values > values[-1] * 1e-12
        bent = (len(wide) - 1) * (half @ vectors[:, kept]).square() @ values[kept].rsqrt()
    pull = 2 * centred @ (own - mean) + centred.square().sum(1) - bent
    distance = frechet(mean, root, features)
    return (pull.std() / len(wide) ** 0.5).item() / distance if distance > 0 else 0.0


def _gram(rows: Tensor) -> Tensor:
    """Return rows @ rows.T (n, n); NumPy sees that it is symmetric and does half the work."""
    own = rows.numpy()
    return torch.from_numpy(own @ own.T)


class Subset(NamedTuple):
    """One of KID's draws: rows of the fakes (m,), real features (m, D), `packed`, and the sum of kernels among the
    latter."""

    fakes: Tensor
    real: Tensor
    among_real: Tensor


def subsets(real: Tensor, samples: int, count: int, size: int, seed: int) -> list[Subset]:
    """Return torch-fidelity's draws for `samples` fakes and real features (n, D): the same for every run."""
    draws, found = np.random.RandomState(seed), []
    for _ in range(count):
        rows, of = (torch.from_numpy(draws.choice(n, size, replace=False)) for n in (samples, len(real)))
        found.append(Subset(rows, packed(real[of]), _kernels(real[of], real[of], others=True)))
    return found


def kernel_distance(features: Tensor, drawn: Sequence[Subset]) -> float:
    """Return the kernel distance (KID) of features (n, D): the mean over subsets of the unbiased squared MMD.

    torch-fidelity's numbers with its kernel (x·y / D + 1)³ (Bińkowski et al. 2018, section 4), without the real images'
    kernels, which are the same for every run, and rows summed in float64.
    """
    distances = []
    for rows, real, among_real in drawn:
        own, m = features[rows], len(rows)
        among = _kernels(own, own, others=True) + among_real
        distances.append(among / (m * (m - 1)) - 2 * _kernels(own, real) / m**2)
    return torch.stack(distances).mean().item()


def _kernels(x: Tensor, y: Tensor, others: bool = False) -> Tensor:
    """Return the sum of the kernel over all pairs of rows, with `others` without a row's own.

    The sums of its rows are added up in float64; to convert every number would take a fifth of the time.
    """
    kernels = product(x / x.shape[1], packed(y), x.new_ones(len(y))).pow_(3)
    return kernels.sum(1).sum(dtype=torch.float64) - (
        kernels.diagonal().sum(dtype=torch.float64) if others else 0
    )


def radii(features: Tensor, block: int = 500) -> Tensor:
    """Return each row's squared distance to its third neighbour (n,), as torch-fidelity has it (Kynkäänniemi et al.
    2019); of distances only the order counts, and the root of some millions takes a tenth of the time."""
    near, far = halves(features)
    far, found = packed(far), []
    for part in near.split(block):
        found.append(_smallest(product(part, far), NEIGHBOURS))  # itself is the nearest of all
    return torch.cat(found)


def _smallest(numbers: Tensor, k: int) -> Tensor:
    """Return the number of each row of (n, m) that k of its numbers come before (n,).

    With m in groups of 20 it is among the k + 1 groups with the smallest minima, and a minimum is found many times
    faster than an order: 3 ms in place of 22 for 2000 x 2000. NumPy's partition is faster than torch's topk.
    """
    groups = numbers.shape[1] // GROUP
    if groups > 2 * (k + 1):
        grouped = numbers[:, : GROUP * groups].unflatten(1, (GROUP, groups))
        nearest = np.argpartition(grouped.amin(1).numpy(), k, axis=1)[:, None, : k + 1]
        inside = grouped.gather(2, torch.from_numpy(nearest).expand(-1, GROUP, -1)).flatten(1)
        numbers = torch.cat([inside, numbers[:, GROUP * groups :]], 1)
    return torch.from_numpy(np.partition(numbers.numpy(), k, axis=1)[:, k].copy())


def precision_recall(fake: Tensor, real: Tensor, real_radii: Tensor, block: int = 500) -> dict[str, float]:
    """Return how many fakes lie near a real image, and how many real ones near a fake: torch-fidelity's numbers; and
    coverage, how many real ones have a fake near them (Naeem et al. 2020, section 3.2, with these neighbours).

    A minimum of distances less radii is found seven times faster than whether any distance is below its radius.
    """
    near, far = halves(fake)[0], packed(halves(real)[1])
    precise, recalled, covered = [], torch.full((len(real),), torch.inf), torch.full((len(real),), torch.inf)
    for part, own in zip(near.split(block), radii(fake).split(block), strict=True):
        apart = product(part, far)
        covered = torch.minimum(covered, apart.amin(0))
        precise.append((apart - real_radii).amin(1) <= 0)
        recalled = torch.minimum(recalled, apart.sub_(own[:, None]).amin(0))
    return {
        "precision": torch.cat(precise).float().mean().item(),
        "recall": (recalled <= 0).float().mean().item(),
        "coverage": (covered <= real_radii).float().mean().item(),
    }


def moments_root(total: Tensor, outer: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return mean and square root of the covariance, float64, from sums of x (D,) and of x xᵀ (D, D)."""
    mean = total / count
    values, vectors = torch.linalg.eigh((outer - count * mean.outer(mean)) / (count - 1))
    return mean, (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _measure(of: Images, net: FeatureExtractorBase, subset: int, protocol) -> Real:
    """Extract the real images' features once, block by block, keeping only what the metrics need."""
    images, few = of.train, len(of.train) <= MEMORISED
    chosen = torch.linspace(0, len(images) - 1, subset, dtype=torch.float64).round().long()
    total = outer = 0.0
    counts, kept, all_of_them = None, [], []
    for start in range(0, len(images), 5_000):
        features, logits = extract(net, images[start : start + 5_000])
        total, outer = total + features.double().sum(0), outer + features.double().T @ features.double()
        here = _classes(protocol, logits)
        counts = here if counts is None else counts + here
        kept.append(features[chosen[(chosen >= start) & (chosen < start + 5_000)] - start])
        all_of_them.append(features if few else features[:0])
    mean, root = moments_root(total, outer, len(images))
    features = torch.cat(kept)
    nearest = nearest_pairs(
        features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]
    )
    labels = None if of.train_labels is None else of.train_labels[chosen]
    looks = replace(look(images[chosen], counts, labels), nearest=nearest.min().item())
    known, apart = torch.cat(all_of_them), 0.0
    if few and len(of.held_out):
        apart = to_nearest(extract(net, of.held_out)[0], known)
    return Real(mean, root, features, looks, known, apart)


def _classes(protocol, logits: Tensor) -> Tensor | None:
    """Count predicted classes; Inception's thousand classes say nothing about the data's own."""
    return (
        logits.argmax(1).bincount(minlength=logits.shape[1]) if protocol["extractor"] == CLASSIFIER else None
    )


def _keep_real(path: Path, protocol, real: Real) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    own = real.looks
    numbers = [own.flat, own.saturated, own.spread, own.nearest, own.within, real.apart]
    tensors = {
        "mean": real.mean,
        "root": real.root,
        "features": real.features,
        "known": real.known,
        "looks": torch.tensor(numbers, dtype=torch.float64),
        "shares": own.shares,
    }
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        fresh,
        {"protocol": canonical(protocol)},
    )
    os.replace(fresh, path)


def _read_real(path: Path, protocol) -> Real | None:
    """Read kept statistics; None where there are none, or the file is of another protocol or cut short."""
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() != {"protocol": canonical(protocol)}:
                return None
            mean, root, features, known, looks, shares = map(
                file.get_tensor, ("mean", "root", "features", "known", "looks", "shares")
            )
    except (OSError, SafetensorError):  # among them a file of a version that measured less
        return None
    flat, saturated, spread, nearest, within, apart = looks.tolist()
    return Real(mean, root, features, Looks(flat, saturated, spread, shares, nearest, within), known, apart)
