"""What images are scored by: networks that turn uint8 images into features, as torch-fidelity extractors."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from bench.data import SETS, Log, load, silent
from bench.errors import Refused, nearest
from bench.inception import FastInception

INCEPTION, CLASSIFIER = "inception-v3-compat", "classifier"
EXTRACTORS = (CLASSIFIER, INCEPTION)
# What a core is fastest at (Inception: its activations stay in the cache); scores do not depend on it.
BATCH = {CLASSIFIER: 500, INCEPTION: 16}
GPU_BATCH = {CLASSIFIER: 4_000, INCEPTION: 256}
MIRRORED = {"fashion-mnist", "cifar10"}  # a mirrored shoe is a shoe, a mirrored digit is not a digit
SHIPPED = Path(__file__).parent / "weights"


class ClassifierFeatures(FeatureExtractorBase):
    """A small convolutional classifier of real images: features before its logits for FD, logits for IS.

    Convolutions with stride 2 and ReLU until the picture is small, one hidden layer, one logit a class;
    BatchNorm of training is folded into the weights. The weights file alone fixes the sizes. Input: uint8
    (n, C, H, W); grey images may come as three equal channels, as torch-fidelity reads PNG files.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **unused):
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError("the classifier needs feature_extractor_weights_path, a safetensors file")
        weights = load_file(feature_extractor_weights_path)
        last = {"hidden", "logits"}
        convs = sorted({key.split(".")[0] for key in weights} - last)
        self.convs = nn.ModuleList()
        for conv in convs:
            out, inp, kernel, _ = weights[f"{conv}.weight"].shape
            self.convs.append(nn.Conv2d(inp, out, kernel, stride=2, padding=kernel // 2))
        self.hidden = nn.Linear(*weights["hidden.weight"].shape[::-1])
        self.logits = nn.Linear(*weights["logits.weight"].shape[::-1])
        self.load_state_dict({key.replace("conv", "convs."): value for key, value in weights.items()})
        self.to(memory_format=torch.channels_last).requires_grad_(False).eval()
        # A core is faster by a third where maps stay in oneDNN's own layout from layer to layer.
        self._packed = []
        if torch.backends.mkldnn.is_available():
            for layer in (*self.convs, self.hidden):
                self._packed.append((layer.weight.contiguous().to_mkldnn(), layer.bias))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(f"expected uint8 images (n, C, H, W), got {images.dtype} {tuple(images.shape)}")
        if images.shape[1] == 3 and self.convs[0].in_channels == 1:
            if not torch.equal(images, images[:, :1].expand_as(images)):
                raise ValueError("colour images were given to a classifier of grey images")
            images = images[:, :1]
        if self._packed and images.device.type == "cpu":
            x = scaled(images).to_mkldnn()
            for weight, bias in self._packed[:-1]:
                x = F.conv2d(x, weight, bias, 2, weight.shape[2] // 2).relu_()
            features = F.linear(x.reshape(len(x), -1), *self._packed[-1]).to_dense().relu_()
        else:
            x = scaled(images).contiguous(memory_format=torch.channels_last)
            for conv in self.convs:
                x = conv(x).relu_()
            features = self.hidden(x.flatten(1)).relu_()
        found = {"hidden": features, "logits": self.logits(features)}
        return tuple(found[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "hidden", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "hidden"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 1, 16, 16, dtype=torch.uint8)


if CLASSIFIER not in FEATURE_EXTRACTORS_REGISTRY:  # registering twice is an error, importing twice is not
    register_feature_extractor(CLASSIFIER, ClassifierFeatures)


def scaled(images: Tensor) -> Tensor:
    """Map uint8 images 0..255 to floats in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def layers(extractor: str) -> tuple[str, str]:
    """Return the names of the layers that FD, KID, precision and recall use, and that IS uses."""
    kind = FEATURE_EXTRACTORS_REGISTRY[extractor]
    return tuple(kind.get_default_feature_layer_for_metric(metric) for metric in ("fid", "isc"))


def open_extractor(extractor: str, weights: Path, device: str = "cpu") -> FeatureExtractorBase:
    """Build an extractor from its weights file; refuses a file that does not hold such weights."""
    try:
        if extractor == INCEPTION:
            # torch-fidelity's own load would run any code that the file holds
            torch.load(weights, weights_only=True, map_location="cpu")
        kind = FEATURE_EXTRACTORS_REGISTRY[extractor]
        net = kind(extractor, list(layers(extractor)), feature_extractor_weights_path=str(weights))
        net = FastInception(net) if extractor == INCEPTION else net
    except (
        OSError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        EOFError,
        SafetensorError,
        UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split()).split(". ")[0][:120]  # torch goes on with advice
        raise Refused(f"score: {weights} does not hold weights of {extractor} ({reason})") from None
    return net.to(device, memory_format=torch.channels_last)


@torch.inference_mode()
def extract(net: FeatureExtractorBase, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 features (n, D) and logits (n, K) on the CPU of uint8 images (n, C, H, W)."""
    device = next(net.parameters()).device
    count = (BATCH if device.type == "cpu" else GPU_BATCH)[net.get_name()]
    parts = [[part.cpu() for part in net(batch.to(device))] for batch in images.split(count)]
    features, logits = (torch.cat(part) for part in zip(*parts, strict=True))
    return features, logits


def find_weights(
    extractor: str, spec, cache: Path, given: Path | None, root: Path | None, log: Log = silent
) -> Path:
    """Return the weights file of an extractor for a data set; one that can be had is downloaded or trained.

    A classifier's weights come with the package for digits at 16 and Fashion-MNIST at 28 pixels; for other
    labelled sets it is trained once, on all classes, and kept in `cache`. Raises Refused where nothing helps.
    """
    if extractor not in EXTRACTORS:
        raise Refused(
            f'score: unknown extractor "{extractor}"{nearest(extractor, EXTRACTORS)}; '
            f"there are {', '.join(EXTRACTORS)}"
        )
    if given is not None:
        if not given.is_file():
            raise Refused(f"score: the weights file {given} does not exist")
        return given
    return _inception(log) if extractor == INCEPTION else _classifier(spec, cache, root, log)


def _classifier(spec, cache: Path, root: Path | None, log: Log) -> Path:
    name = f"{spec.set}-{spec.size}.safetensors"
    if (SHIPPED / name).is_file():
        return SHIPPED / name
    kept = cache / f"classifier-{name}"
    if not kept.is_file():
        if not SETS[spec.set].class_names:
            raise Refused(
                f"score: {spec.set} has no labels to train a classifier on; use extractor: {INCEPTION}"
            )
        from bench.train_classifier import train

        images = load(replace(spec, classes=()), root, log)
        log(f"score: no classifier comes with {spec.set} at {spec.size} pixels; training one, once ({kept})")
        weights, accuracy = train(images, mirror=spec.set in MIRRORED, log=log)
        fresh = cache / f"{kept.name}.{os.getpid()}"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            save_file(weights, fresh)
            os.replace(fresh, kept)
        except (OSError, SafetensorError) as error:
            raise Refused(f"score: the classifier cannot be kept in {kept} ({error})") from None
        log(f"score: the classifier is right on {accuracy:.1%} of the hold-out")
    return kept


def _inception(log: Log) -> Path:
    """Return the published weights: BENCH_INCEPTION, else the torch hub's cache, else downloaded to there."""
    if named := os.environ.get("BENCH_INCEPTION"):
        if not Path(named).is_file():
            raise Refused(f"score: BENCH_INCEPTION names {named}, which does not exist")
        return Path(named)
    name = URL_INCEPTION_V3.rsplit("/", 1)[1]
    kept = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not kept.is_file():
        log(f"score: downloading {name} (96 MB) to {kept.parent}")
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(30)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                URL_INCEPTION_V3, str(kept), hash_prefix=name[-12:-4], progress=False
            )
        except (OSError, RuntimeError) as error:
            raise Refused(
                f"score: {INCEPTION} needs {name}, and its download failed ({error}); put the file from "
                f"{URL_INCEPTION_V3} into {kept.parent}, or set BENCH_INCEPTION to it"
            ) from None
        finally:
            socket.setdefaulttimeout(before)
    return kept
