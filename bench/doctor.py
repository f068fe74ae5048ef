"""`bench doctor`: what is wrong with this installation, in words, and what to do about it."""

import hashlib
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from bench.checks import Check
from bench.data import SETS, data_root, load
from bench.errors import Refused
from bench.spec import Budget, DataSpec

OLDEST_PYTHON = (3, 11)
LEAST_MB, FEW_MB = 200, 2_000  # of disk: less stops a grid, less than that soon will
MB = 10**6
# What torchvision keeps of a set, in the data root; the first file stands for the others.
FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "celeba": "celeba/list_eval_partition.txt",
}
DEBIAN = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte")}
# Known answers of the scorer on the digits, classifier features: training split against itself, hold-out, noise.
KNOWN = {"real": ("is", 7.434624), "held-out": ("fd", 1.059180), "noise": ("fd", 35.13232)}
CLOSE = 1e-3  # relative; what versions and machines may differ by
CIFAR10_IS = 11.24  # of its training images: torch-fidelity's published value, to the last digit


@dataclass(frozen=True)
class Machine:
    """Where things are looked for; `full` also does what takes an hour on a CPU."""

    results: Path
    cache: Path
    data: Path | None = None
    device: str = "auto"
    full: bool = False


def examine(machine: Machine) -> Iterator[Check]:
    """Yield what every check found; a check that breaks is itself wrong, and the others go on."""
    for check in CHECKS:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            yield from check(machine)
        except Refused as refused:
            yield Check(name, "wrong", str(refused))
        except Exception as error:  # whatever is broken here is what the user wants to hear of
            yield Check(name, "wrong", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


# --- software


def _python(machine: Machine) -> Iterator[Check]:
    """Python is new enough."""
    here = tuple(map(int, platform.python_version_tuple()[:2]))
    if here < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield Check(
            "python", "wrong", f"{platform.python_version()} is too old: install Python {wanted} or newer"
        )
    else:
        yield Check("python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")


def _packages(machine: Machine) -> Iterator[Check]:
    """Every package that is needed is there and new enough."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(line) for line in requires("dcgan-bench") or ()]
    except PackageNotFoundError:
        yield Check(
            "packages", "note", "bench runs from a folder and is not installed: versions are not checked"
        )
        return
    problems, count = [], 0
    for one in needed:
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            there = version(one.name)
        except PackageNotFoundError:
            problems.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(there, prereleases=True):
            problems.append(f"{one.name} is {there}, needed is {one.specifier}")
    if problems:
        told = "; ".join(problems)
        yield Check(
            "packages", "wrong", f"{told}; pip install -c constraints.txt . in the checkout puts it right"
        )
    else:
        told = f"{count} are there, torch {version('torch')}, torch-fidelity {version('torch-fidelity')}"
        yield Check("packages", "ok", told)


def _tricks(machine: Machine) -> Iterator[Check]:
    """Every file of the folder tricks/ can be read."""
    from bench.trick import registry

    yield Check("tricks", "ok", f"{len(registry())} can be switched on")


def _cuda(machine: Machine) -> Iterator[Check]:
    """A graphics card that is there can be used."""
    import torch

    there = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if not torch.cuda.is_available():
        if machine.device.startswith("cuda"):
            yield Check(
                "cuda", "wrong", f"--device {machine.device}: torch finds no CUDA device; take --device cpu"
            )
        elif there:
            built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
            told = (
                f"there is an NVIDIA driver, but torch ({torch.__version__}, built {built}) cannot use a card"
            )
            yield Check(
                "cuda", "note", f"{told}: nvidia-smi shows whether one is there and the driver's version"
            )
        else:
            yield Check("cuda", "note", "no CUDA device: training is on the CPU")
        return
    built = torch.cuda.get_arch_list()
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        name, free = torch.cuda.get_device_name(i), torch.cuda.mem_get_info(i)[0] // MB
        # code for a card runs on newer ones of the same generation
        fits = any(
            a.startswith(f"sm_{major}") and int(a.split("_")[1].rstrip("af")) <= 10 * major + minor
            for a in built
        )
        if (fits or any(a.startswith("compute_") for a in built)) and _compiles():
            yield Check("cuda", "ok", f"cuda:{i} {name}, {free:,} MB free, CUDA {torch.version.cuda}")
        elif fits:
            told = f"cuda:{i} {name}: no C compiler, which Triton starts its kernels by"
            yield Check("cuda", "wrong", f"{told}: install gcc, or name one in CC")
        else:
            told = f"cuda:{i} {name} is sm_{major}{minor}, torch was built for {', '.join(built)}"
            yield Check("cuda", "wrong", f"{told}: install a torch for this card, or take --device cpu")


def _compiles() -> bool:
    """Return whether Triton, where it is there, finds the C compiler that it needs."""
    from bench.convolve import compiler

    return importlib.util.find_spec("triton") is None or shutil.which(compiler() or "") is not None


def _onednn(machine: Machine) -> Iterator[Check]:
    """Torch has the library that convolutions on a CPU are fast with."""
    import torch

    if torch.backends.mkldnn.is_available():
        yield Check("oneDNN", "ok", "convolutions on the CPU are fast")
    else:
        told = "this torch has none: convolutions on the CPU are slow, and bfloat16 slower still"
        yield Check("oneDNN", "note", f"{told}; take a torch from PyPI")


# --- data and weights


def _data(machine: Machine) -> Iterator[Check]:
    """Which data sets are there, and whether what is there is whole."""
    root = data_root(machine.data)
    for name, info in SETS.items():
        if name == "folder":
            continue
        places = [root / FILES[name]] if name in FILES else []
        places += [DEBIAN[name]] if name in DEBIAN else []
        found = next((p for p in places if p.exists() or p.with_name(f"{p.name}.gz").exists()), None)
        if places and found is None:
            told = f"not in {root}; bench run downloads it where it can, or set BENCH_DATA to where it is"
            yield Check(f"data {name}", "note", told)
        elif name == "celeba":
            yield Check(f"data {name}", "ok", f"in {found.parent} (200,000 pictures: not read here)")
        elif missing := _incomplete(found):
            yield Check(f"data {name}", "wrong", f"{found.parent} has no {missing}; unpack the set again")
        else:
            try:
                if name == "cifar10":  # load() would download what torchvision finds damaged
                    from torchvision.datasets import CIFAR10

                    CIFAR10(root, train=False)
                images = load(DataSpec(name, info.default_size), machine.data)
            except RuntimeError:
                yield Check(f"data {name}", "wrong", f"{found.parent} is damaged; unpack the set again")
                continue
            except Refused as refused:
                yield Check(f"data {name}", "wrong", str(refused))
                continue
            place = f"in {found.parent}" if found else "comes with scikit-learn"
            counts = f"{len(images.train):,} + {len(images.held_out):,} images"
            yield Check(f"data {name}", "ok", f"{counts}, checksum {images.checksum}, {place}")


def _incomplete(found: Path | None) -> str:
    """Return the first file that a set lacks beside the one that was found, so that nothing is downloaded here."""
    if found is None:
        return ""
    if found.name == "data_batch_1":
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    else:
        names = [f"{p}-{w}" for p in ("train", "t10k") for w in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    have = {p.name.removesuffix(".gz") for p in found.parent.iterdir()}
    return next((name for name in names if name not in have), "")


def _weights(machine: Machine) -> Iterator[Check]:
    """The extractors' weights can be opened and are the published ones."""
    import torch

    from bench.extractors import CLASSIFIER, SHIPPED, URL_INCEPTION_V3, open_extractor
    from bench.spec import file_hash

    for path in sorted(SHIPPED.glob("*.safetensors")):
        open_extractor(CLASSIFIER, path)
        yield Check("weights", "ok", f"classifier of {path.stem}: hash {file_hash(path)}")
    name = URL_INCEPTION_V3.rsplit("/", 1)[1]
    named = os.environ.get("BENCH_INCEPTION")
    path = Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints" / name
    wanted = name[-12:-4]
    if not path.is_file():
        if named:
            told = f"BENCH_INCEPTION names {path}, which does not exist: correct it, or unset it"
            yield Check("weights", "wrong", told)
        else:
            told = f"no Inception in {path.parent}: bench run downloads {name}, or set BENCH_INCEPTION to it"
            yield Check("weights", "note", told)
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found.startswith(wanted):
        yield Check("weights", "ok", f"Inception: {path}, hash {found[:16]}")
    else:
        told = f"{path} has hash {found[:16]}, the published file's begins with {wanted}: download it again"
        yield Check("weights", "wrong", told)


# --- machine


def _writing(machine: Machine) -> Iterator[Check]:
    """Results and caches can be written."""
    for name, place in (
        ("results", machine.results),
        ("cache", machine.cache),
        ("data", data_root(machine.data)),
    ):
        above = _existing(place)
        try:
            with tempfile.NamedTemporaryFile(dir=above, prefix=".doctor-") as file:
                file.write(b"x")
                file.flush()
        except OSError as error:
            # sets may be on a disk that is only read, but not below a file
            level = "note" if name == "data" and above.is_dir() else "wrong"
            yield Check(
                "writing",
                level,
                f"{name}: {above} cannot be written: {error.strerror}; choose another folder",
            )
        else:
            yield Check("writing", "ok", f"{name}: {place}")


def _disk(machine: Machine) -> Iterator[Check]:
    """There is room for results and caches."""
    for name, place in (("results", machine.results), ("cache", machine.cache)):
        free = shutil.disk_usage(_existing(place)).free / MB
        level = "wrong" if free < LEAST_MB else "note" if free < FEW_MB else "ok"
        hint = "" if level == "ok" else f": make room, {FEW_MB:,} MB are enough for most grids"
        yield Check("disk", level, f"{name}: {free:,.0f} MB free{hint}")


def _existing(place: Path) -> Path:
    """Return the place, or the nearest one above it that is there."""
    place = place.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _memory(machine: Machine) -> Iterator[Check]:
    """An array of the usual sizes fits into memory."""
    import torch

    from bench.memory import available_mb, predict_mb, resident_mb
    from bench.plan import suggested
    from bench.program import Run
    from bench.recipe import Recipe

    device = machine.device
    if not torch.cuda.is_available():  # `_cuda` says what is wrong where one was asked for
        device = "cpu"
    elif device == "auto":
        device = "cuda"
    free, base = available_mb(device), resident_mb()
    for name, size, channels in (("digits", 16, 16), ("fashion-mnist", 28, 32), ("cifar10", 64, 64)):
        recipe = Recipe(channels=channels)
        run = Run("", DataSpec(name, size), recipe, (), Budget("steps", 1), 0, "float32", (1.0,))
        runs = suggested(run.program, device)
        need = predict_mb(run.program, runs, 2_000, base)
        told = f"{size} pixels, {channels} channels: {runs} runs take about {need:,.0f} MB of {free:,.0f} MB free"
        if need <= free:
            yield Check("memory", "ok", told)
        else:
            yield Check("memory", "note", f"{told}: take --runs-per-array 1, or free some")


def _clock(machine: Machine) -> Iterator[Check]:
    """The clock is right enough to name results by, and runs evenly enough to time them."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    if time.time() < newest - 86_400:
        told = f"it says {time.strftime('%Y-%m-%d')}, but this program's files are newer: set the clock"
        yield Check("clock", "wrong", told)
        return
    wall, even = time.time(), time.perf_counter()
    time.sleep(0.1)
    drift = (time.time() - wall) - (time.perf_counter() - even)
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(machine.results), prefix=".doctor-") as file:
            apart = Path(file.name).stat().st_mtime - time.time()
    except OSError:
        apart = 0.0  # told by _writing
    if abs(drift) > 0.05:
        yield Check("clock", "note", f"it jumped by {drift:+.2f} s while it was watched: seconds may be off")
    elif abs(apart) > 5:
        told = f"the disk of {machine.results} is {apart:+.0f} s apart from it (a shared folder of another machine?)"
        yield Check("clock", "note", told)
    else:
        yield Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %z"))


# --- the scorer


def _scorer(machine: Machine) -> Iterator[Check]:
    """The scorer gives known answers: real images against real ones, and noise."""
    import torch

    from bench.extractors import CLASSIFIER
    from bench.score import make_scorer, to_uint8

    spec = DataSpec("digits", 16)
    images = load(spec)
    noise = torch.randint(
        0, 256, images.held_out.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    wrong = []
    with tempfile.TemporaryDirectory() as cache:
        for name, shown in (("real", images.train), ("held-out", images.held_out), ("noise", noise)):
            scorer = make_scorer(images, spec, CLASSIFIER, len(shown), Path(cache))
            found = scorer.score(shown, ["fid", "is"])
            metric, known = KNOWN[name]
            if abs(found[metric] / known - 1) > CLOSE:
                wrong.append(f"{metric} of {name} digits is {found[metric]:.6g}, known is {known:.6g}")
            if name == "real" and abs(found["fd"]) > 1e-6:
                wrong.append(f"fd of real digits against themselves is {found['fd']:.2g}, known is 0")
    try:
        to_uint8(torch.tensor([float("nan")]))
        wrong.append("pixels that are not finite are not refused")
    except ValueError:
        pass
    if wrong:
        told = "; ".join(wrong)
        yield Check(
            "scorer", "wrong", f"{told}: scores of this installation cannot be compared with those of others"
        )
    else:
        floor, far = KNOWN["held-out"][1], KNOWN["noise"][1]
        yield Check(
            "scorer",
            "ok",
            f"known answers on digits: FD 0 of real, {floor:.3g} of held-out, {far:.3g} of noise",
        )


def _inception_score(machine: Machine) -> Iterator[Check]:
    """The Inception score of CIFAR-10's training images is the published one, where it can be computed."""
    import torch

    from bench.extractors import INCEPTION, URL_INCEPTION_V3, extract, open_extractor

    name = URL_INCEPTION_V3.rsplit("/", 1)[1]
    named = os.environ.get("BENCH_INCEPTION")
    path = Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints" / name
    found = data_root(machine.data) / FILES["cifar10"]
    lacks = [
        what for what, there in (("weights", path.is_file()), ("CIFAR-10", found.is_file())) if not there
    ]
    if lacks:
        yield Check("inception", "note", f"skipped: no {' and no '.join(lacks)} here")
        return
    cuda = torch.cuda.is_available() and machine.device != "cpu"
    if not cuda and not machine.full:
        yield Check("inception", "note", "skipped: takes hours on a CPU; bench doctor --full does it")
        return
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    from bench.score import RNG_SEED
    from bench.spec import IS_SPLITS

    images = load(DataSpec("cifar10", 32), machine.data).train
    net = open_extractor(INCEPTION, path, "cuda" if cuda else "cpu")
    logits = torch.cat([extract(net, part)[1] for part in images.split(5_000)])
    score = isc_features_to_metric(logits, IS_SPLITS, True, RNG_SEED)[KEY_METRIC_ISC_MEAN]
    if abs(score - CIFAR10_IS) < 0.02:
        yield Check(
            "inception", "ok", f"Inception score of CIFAR-10's training images is {score:.2f}, as published"
        )
    else:
        told = f"Inception score of CIFAR-10's training images is {score:.2f}, published is {CIFAR10_IS}"
        yield Check("inception", "wrong", f"{told}: do not compare its FID with others")


CHECKS: tuple[Callable[[Machine], Iterator[Check]], ...] = (
    _python, _packages, _tricks, _cuda, _onednn, _data, _weights, _writing, _disk, _memory, _clock, _scorer,
    _inception_score,
)  # fmt: skip
