"""Real images: every data set becomes one uint8 tensor in memory, cut into a training and a hold-out part."""

import gzip
import hashlib
import io
import math
import os
import socket
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.errors import Refused, nearest, printable

if TYPE_CHECKING:  # torch takes seconds to import, and this table is read by commands that never train
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from bench.spec import DataSpec


@dataclass(frozen=True)
class SetInfo:
    """What is known about a data set before a byte of it is read.

    channels: 1 grey, 3 colour. default_size: pixels of the square image. class_names: empty without labels.
    """

    name: str
    channels: int
    default_size: int
    default_extractor: str
    class_names: tuple[str, ...]


_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SETS = {
    info.name: info
    for info in (
        SetInfo("digits", 1, 16, "classifier", _DIGITS),
        SetInfo("mnist", 1, 28, "classifier", _DIGITS),
        SetInfo("fashion-mnist", 1, 28, "classifier", _CLOTHES),
        SetInfo("cifar10", 3, 32, "inception-v3-compat", _THINGS),
        SetInfo("celeba", 3, 64, "inception-v3-compat", ()),
        SetInfo("folder", 3, 64, "inception-v3-compat", ()),
    )
}
SIZES = (16, 28, 32, 64)
RESIZE = "pillow bicubic, centre square"  # part of every score's protocol
FEWEST_PICTURES = 16  # a folder with fewer readable pictures is a mistake, not a data set
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
_PICTURES = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Pillow would hand EPS to another program


@dataclass(frozen=True)
class Images:
    """One data set in memory.

    train (N, C, H, W) and held_out (M, C, H, W): uint8, 0..255. Labels: int64 into class_names, or None.
    checksum: first 16 hex digits of the SHA-256 of the shapes and bytes of both parts.
    skipped: one line for each file that could not be read, with the reason.
    """

    train: "Tensor"
    held_out: "Tensor"
    train_labels: "Tensor | None"
    held_out_labels: "Tensor | None"
    class_names: tuple[str, ...]
    checksum: str
    skipped: tuple[str, ...] = ()


class Log(Protocol):
    """Whoever wants to hear one line about something slow."""

    def __call__(self, line: str, /) -> object: ...


def silent(line: str) -> None:
    """Hear nothing."""


def data_root(root: Path | None = None) -> Path:
    """Return where data sets are kept: the argument, else BENCH_DATA, else a folder in the user's cache."""
    return _at_home(root or os.environ.get("BENCH_DATA") or "~/.cache/dcgan-bench/data")


def _at_home(path: Path | str) -> Path:
    """Return a path whose ~ is somebody's home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise Refused(f"data: {path}: {error}") from None


def check(spec: "DataSpec") -> tuple[int, ...]:
    """Return the numbers of the classes that `spec` keeps, sorted; refuse what no data set could satisfy.

    Reads nothing from disk, so that a grid can be checked before anything is loaded.
    """
    if spec.set not in SETS:
        allowed = ", ".join(SETS)
        raise Refused(f'data: unknown set "{spec.set}"{nearest(spec.set, SETS)}; the sets are {allowed}')
    if spec.size not in SIZES:
        allowed = ", ".join(map(str, SIZES))
        raise Refused(f"data: size {spec.size} is not one of {allowed} (pixels, images are square)")
    if (spec.set == "folder") != bool(spec.path):
        needs = "needs the path of a folder of pictures" if spec.set == "folder" else "takes no path"
        raise Refused(f"data: {spec.set} {needs}")
    names = SETS[spec.set].class_names
    if spec.classes and not names:
        raise Refused(f"data: {spec.set} has no labels, so classes {list(spec.classes)} cannot be kept")
    return tuple(sorted({_class_number(word, names, spec.set) for word in spec.classes} or range(len(names))))


def load(spec: "DataSpec", root: Path | None = None, log: Log = silent) -> Images:
    """Read a data set, downloading it where torchvision can and it is missing.

    The hold-out is the official test split; where there is none, a fixed tenth.
    Raises Refused where the data is missing, damaged or does not fit the spec.
    """
    kept = check(spec)
    place = data_root(root)
    train, held_out, skipped = _READERS[spec.set](spec, place, log)
    (train, train_labels), (held_out, held_out_labels) = _keep(*train, kept), _keep(*held_out, kept)
    digest = hashlib.sha256()
    for part in (train, held_out):
        digest.update(repr(tuple(part.shape)).encode())
        digest.update(part.numpy())
    names = tuple(SETS[spec.set].class_names[i] for i in kept)
    checksum = digest.hexdigest()[:16]
    return Images(train, held_out, train_labels, held_out_labels, names, checksum, tuple(skipped))


def open_kept(file: Path) -> Images:
    """Return a data set that was kept as one tensor file, its tensors on disk until used; runs no code of the file."""
    import torch

    with torch.serialization.safe_globals([Images]):
        return torch.load(file, weights_only=True, mmap=True)


def _class_number(word: object, names: tuple[str, ...], where: str) -> int:
    """Find a class by its name, whatever its case, or by its number."""
    text = str(word).strip().lower()
    lower = [name.lower() for name in names]
    if text in lower:
        return lower.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise Refused(
        f'data: {where} has no class "{word}"{nearest(word, names)}; '
        f"its classes are {', '.join(names)}, or their numbers 0 to {len(names) - 1}"
    )


def _keep(images: "Tensor", labels: "Tensor | None", kept: tuple[int, ...]) -> "tuple[Tensor, Tensor | None]":
    """Keep the images of some classes and number these classes anew from 0."""
    import torch

    if labels is None:
        return images.contiguous(), None
    new = torch.full((max(*kept, int(labels.max())) + 1,), -1)
    new[list(kept)] = torch.arange(len(kept))
    chosen = new[labels] >= 0
    return images[chosen].contiguous(), new[labels[chosen]]


def _tenth(images, labels):
    """Cut off every tenth image of a fixed permutation for hold-out; each part stays in file order."""
    import numpy as np
    import torch

    order = torch.from_numpy(
        np.random.RandomState(0).permutation(len(images))
    )  # this stream is frozen by NumPy
    out = torch.zeros(len(images), dtype=torch.bool)
    out[order[9::10]] = True
    return [(images[mask], None if labels is None else labels[mask]) for mask in (~out, out)]


def _fit(picture: "Image", size: int) -> "np.ndarray":
    """Cut out a picture's centre square and resize it, by integer arithmetic: uint8 (H, W) or (H, W, 3)."""
    import numpy as np
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC))


def _tensor(pictures, size: int) -> "Tensor":
    """Stack uint8 pictures (H, W) or (H, W, 3) of any one size to (N, C, size, size)."""
    import numpy as np
    import torch
    from PIL import Image

    if pictures[0].shape[:2] != (size, size):
        pictures = [_fit(Image.fromarray(picture), size) for picture in pictures]
    stacked = torch.from_numpy(np.array(pictures))
    return stacked.unsqueeze(1) if stacked.dim() == 3 else stacked.permute(0, 3, 1, 2).contiguous()


def _read_digits(spec, root, log):
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = (digits.images * (255 / 16)).round().astype("uint8")
    return *_tenth(_tensor(pictures, spec.size), torch.from_numpy(digits.target).long()), ()


_IDX = [(f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]
_LARGEST_IDX = 2**27  # bytes: MNIST's largest file has 47 million; more is a bomb, and no file of these sets
_IDX_CLASS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # torchvision's class names its folder


def _read_idx_set(spec, root, log):
    """Read MNIST or Fashion-MNIST, plain or gzipped, from torchvision's folder or Debian's."""
    import torch

    raw = root / _IDX_CLASS[spec.set] / "raw"
    folders = [raw] + [_DEBIAN_FASHION] * (spec.set == "fashion-mnist")
    files = [name for pair in _IDX for name in pair]
    found = [folder for folder in folders if all(_idx_file(folder, name) for name in files)]
    if not found:
        wanted = f"the four files {files[0]}.gz, ... (gzipped or not) of {spec.set} into {raw}"
        debian = ", or install Debian's package dataset-fashion-mnist" * (spec.set == "fashion-mnist")
        _download(spec.set, _IDX_CLASS[spec.set], root, folders, wanted + debian, log)
        found = [raw]
    parts = []
    for images, labels in _IDX:
        pictures, numbers = _read_idx(found[0], images), _read_idx(found[0], labels)
        if len(pictures) != len(numbers) or not len(pictures):
            raise Refused(
                f"{spec.set}: {found[0] / images} has {len(pictures)} images but {len(numbers)} labels"
            )
        parts.append((_tensor(pictures, spec.size), torch.from_numpy(numbers.copy()).long()))
    return *parts, ()


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_idx(folder: Path, name: str) -> "np.ndarray":
    """Read an IDX file: two zeros, type 8 (uint8), number of dimensions, big-endian sizes, then the bytes."""
    import numpy as np

    path = _idx_file(folder, name)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_LARGEST_IDX)
        shape = struct.unpack_from(f">{data[3]}I", data, 4)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape))
        if data[:3] != b"\0\0\x08" or len(values) != math.prod(shape):
            raise ValueError(f"{len(values)} bytes where its header announces {shape}")
    except (OSError, EOFError, zlib.error, struct.error, IndexError, ValueError) as error:
        raise Refused(f"{path} is damaged ({error}); delete it and run again") from None
    return values.reshape(shape)


def _read_cifar10(spec, root, log):
    import torch

    def part(train: bool):
        read = _torchvision("CIFAR10", root, train=train)
        return _tensor(read.data, spec.size), torch.tensor(read.targets)

    try:
        return part(True), part(False), ()
    except RuntimeError:  # torchvision's word for "not found or corrupted"
        wanted = f"the unpacked folder cifar-10-batches-py of cifar-10-python.tar.gz into {root}"
        _download(spec.set, "CIFAR10", root, [root / "cifar-10-batches-py"], wanted, log)
        return part(True), part(False), ()


def _read_celeba(spec, root, log):
    """Read CelebA's own training and test splits; decoding 200 000 pictures takes minutes, so it is kept."""
    import torch
    from PIL import UnidentifiedImageError
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    kept = root / "celeba" / f"decoded-{spec.size}.safetensors"
    if not kept.is_file():
        try:
            _torchvision("CelebA", root, split="train")
        except (RuntimeError, OSError):
            wanted = (
                "img_align_celeba (unpacked) and the five lists (list_attr_celeba.txt, identity_CelebA.txt, "
                "list_bbox_celeba.txt, list_landmarks_align_celeba.txt, list_eval_partition.txt) "
                f"into {root / 'celeba'}"
            )
            _download(spec.set, "CelebA", root, [root / "celeba"], wanted, log)
        parts = {}
        for name, split in (("train", "train"), ("held_out", "test")):
            read = _torchvision(
                "CelebA", root, split=split, target_type=[], transform=lambda p: _fit(p, spec.size)
            )
            parts[name] = torch.empty((len(read), 3, spec.size, spec.size), dtype=torch.uint8)
            for i in range(len(read)):
                try:
                    parts[name][i] = torch.from_numpy(read[i][0].copy()).permute(2, 0, 1)
                except (OSError, UnidentifiedImageError) as error:
                    raise Refused(
                        f"celeba: {read.filename[i]} cannot be read ({error}); unpack the set again"
                    ) from None
                if i % 20_000 == 0:
                    log(f"celeba: decoding {split} picture {i} of {len(read)} (once; kept in {kept})")
        fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
        try:
            save_file(parts, fresh)
            os.replace(fresh, kept)
        except (OSError, SafetensorError) as error:
            log(f"celeba: the decoded pictures cannot be kept in {kept} ({error})")
        return (parts["train"], None), (parts["held_out"], None), ()
    try:
        parts = load_file(kept)
        return (parts["train"], None), (parts["held_out"], None), ()
    except (OSError, SafetensorError, KeyError) as error:
        raise Refused(f"{kept} is damaged ({error}); delete it and run again") from None


def _read_folder(spec, root, log):
    """Read every picture below a folder, in the order of their paths; hidden files are not looked at."""
    folder = _at_home(spec.path)
    if not folder.is_dir():
        raise Refused(f"data: {folder} is not a folder (looked for in {Path.cwd()})")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    pictures, skipped = [], []
    for path in paths:
        try:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError("leads out of the folder")
            pictures.append(_read_picture(path, spec.size))
        except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
            reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
            skipped.append(printable(f"{path.relative_to(folder)}: {reason}"))
    if len(pictures) < FEWEST_PICTURES:
        first = f"; {len(skipped)} files could not be read, the first is {skipped[0]}" if skipped else ""
        raise Refused(
            f"data: {folder} has {len(pictures)} readable pictures, "
            f"at least {FEWEST_PICTURES} are needed{first}"
        )
    return *_tenth(_tensor(pictures, spec.size), None), skipped


def _read_picture(path: Path, size: int) -> "np.ndarray":
    from PIL import Image, ImageOps

    with (
        warnings.catch_warnings()
    ):  # a small file that claims a huge size: refused before a pixel is unpacked
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(path, formats=_PICTURES)
    with picture:
        if picture.mode[0] in "IF":
            raise ValueError(f"pixels of mode {picture.mode} have more than 8 bits")
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")  # what hides below transparent pixels is no picture: show white
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return _fit(picture.convert("RGB"), size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchvision's bars and warnings off the screen, and do not wait for ever for a dead network."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _torchvision(name: str, root: Path, **options):
    with _quiet():
        from torchvision import datasets

        return getattr(datasets, name)(root, **options)


def _download(
    name: str, torchvision_class: str, root: Path, looked: list[Path], wanted: str, log: Log
) -> None:
    """Let torchvision download a set, or say in one line what is missing and what to do."""
    log(f"{name}: not found in {' or '.join(map(str, looked))}, downloading it to {root}")
    try:
        _torchvision(torchvision_class, root, download=True)
    except Exception as error:  # offline, no permission, a full disk, a broken archive, a moved page
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise Refused(
            f'data set "{name}" is missing: looked in {" and ".join(map(str, looked))}, and the download '
            f"failed ({reason}); put {wanted}, or set BENCH_DATA to the folder that has it"
        ) from None


# A reader returns train, held-out, skipped; a part is (images uint8 (N, C, H, W), labels int64 (N,) or None).
_READERS: dict[str, Callable] = {
    "digits": _read_digits,
    "mnist": _read_idx_set,
    "fashion-mnist": _read_idx_set,
    "cifar10": _read_cifar10,
    "celeba": _read_celeba,
    "folder": _read_folder,
}
