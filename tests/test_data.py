"""Every data set becomes one uint8 tensor, read from files of its published format that the tests write."""

import gzip
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bench import data
from bench.data import SETS, check, data_root, load
from bench.errors import Refused
from bench.spec import DataSpec


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Let every download fail at once, as offline, and hide what is installed on this machine."""

    def offline(*args, **kwargs):
        raise URLError("no network in tests")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", offline)
    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", offline)
    monkeypatch.setattr(torchvision.datasets.celeba, "download_file_from_google_drive", offline)
    monkeypatch.setattr(data, "_DEBIAN_FASHION", tmp_path / "not installed")


def write_idx(
    folder: Path, train: int = 30, test: int = 12, pack=gzip.compress, end: str = ".gz"
) -> np.ndarray:
    """Write a set of the MNIST format with labels 0, 1, ..., 9, 0, ...; return the training pictures."""
    rng = np.random.RandomState(0)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, count in (("train", train), ("t10k", test)):
        pictures[name] = rng.randint(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, values in (("images-idx3", pictures[name]), ("labels-idx1", labels)):
            head = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (folder / f"{name}-{kind}-ubyte{end}").write_bytes(pack(head + values.tobytes()))
    return pictures["train"]


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (40, 30)) -> None:
    rng = np.random.RandomState(1)
    for i in range(count):
        place = folder / f"part {i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (*size, 3), dtype=np.uint8)).save(place / f"{i:03}.png")


def test_the_table_of_sets_is_read_without_importing_torch():
    code = "import sys, bench.data as d; assert len(d.SETS) == 6; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_are_embedded_and_a_fixed_tenth_is_held_out():
    images = load(DataSpec("digits", 16))
    assert images.train.shape == (1618, 1, 16, 16)
    assert images.held_out.shape == (179, 1, 16, 16)
    assert images.train.dtype == images.held_out.dtype == torch.uint8
    assert images.train.min() == 0
    assert images.train.max() == 255
    assert images.train_labels.bincount().min() > 150
    assert images.held_out_labels.bincount().min() > 5
    everything = torch.cat([images.train, images.held_out]).flatten(1)
    assert (
        len(everything.unique(dim=0)) > 1750
    )  # the parts do not overlap; a few digits occur twice in the set
    # shipped weights and checked-in results rest on these very bytes
    assert images.checksum == "070796a5b1258d0e"


@pytest.mark.parametrize("size", [28, 32, 64])
def test_a_larger_size_shows_the_same_digits(size):
    small, large = load(DataSpec("digits", 16)), load(DataSpec("digits", size))
    assert large.train.shape == (1618, 1, size, size)
    assert torch.equal(small.train_labels, large.train_labels)
    brightness = [images.train.float().mean((1, 2, 3)) for images in (small, large)]
    assert torch.corrcoef(torch.stack(brightness))[0, 1] > 0.99
    assert small.checksum != large.checksum


def test_kept_classes_are_numbered_anew_and_their_order_does_not_matter():
    images = load(DataSpec("digits", 16, classes=("7", "2")))
    assert images.class_names == ("2", "7")
    assert images.train_labels.unique().tolist() == [0, 1]
    everything = load(DataSpec("digits", 16))
    assert torch.equal(images.train[images.train_labels == 1], everything.train[everything.train_labels == 7])
    assert torch.equal(
        images.held_out[images.held_out_labels == 0], everything.held_out[everything.held_out_labels == 2]
    )
    assert load(DataSpec("digits", 16, classes=("2", "7"))).checksum == images.checksum


def test_a_class_is_named_in_any_case_or_numbered():
    assert check(DataSpec("fashion-mnist", 28, classes=("ankle boot", "0", "Bag"))) == (0, 8, 9)
    assert check(DataSpec("cifar10", 32)) == tuple(range(10))
    assert check(DataSpec("celeba", 64)) == ()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (DataSpec("digit", 16), ['"digit"', 'did you mean "digits"', "celeba"]),
        (DataSpec("digits", 20), ["20", "16, 28, 32, 64"]),
        (DataSpec("cifar10", 32, classes=("hors",)), ['"hors"', 'did you mean "horse"']),
        (DataSpec("digits", 16, classes=("10",)), ['"10"', "0 to 9"]),
        (DataSpec("celeba", 64, classes=("smiling",)), ["celeba has no labels"]),
        (DataSpec("folder", 64, classes=("a",), path="x"), ["folder has no labels"]),
        (DataSpec("folder", 64), ["folder needs the path"]),
        (DataSpec("digits", 16, path="x"), ["digits takes no path"]),
    ],
)
def test_a_spec_that_no_data_fits_is_refused_in_one_line(spec, words):
    with pytest.raises(Refused) as refusal:
        load(spec)
    line = str(refusal.value)
    assert all(word in line for word in words), line
    assert "\n" not in line


@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, ".gz"), (bytes, "")])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_gzipped_or_not(tmp_path, name, folder, pack, end):
    pictures = write_idx(tmp_path / folder / "raw", pack=pack, end=end)
    images = load(DataSpec(name, 28), tmp_path)
    assert torch.equal(images.train, torch.from_numpy(pictures).unsqueeze(1))
    assert images.held_out.shape == (12, 1, 28, 28)
    assert images.train_labels.tolist() == [i % 10 for i in range(30)]
    assert images.class_names == SETS[name].class_names
    assert load(DataSpec(name, 32), tmp_path).train.shape == (30, 1, 32, 32)


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch):
    write_idx(tmp_path / "share")
    monkeypatch.setattr(data, "_DEBIAN_FASHION", tmp_path / "share")
    assert len(load(DataSpec("fashion-mnist", 28), tmp_path / "empty").train) == 30


def test_the_root_is_the_argument_else_the_environment_else_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    assert data_root().parts[-3:] == (".cache", "dcgan-bench", "data")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "other") == tmp_path / "other"
    write_idx(tmp_path / "MNIST" / "raw")
    assert len(load(DataSpec("mnist", 28)).train) == 30


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", "train-images-idx3-ubyte"),
        ("fashion-mnist", "dataset-fashion-mnist"),
        ("cifar10", "cifar-10-batches-py"),
        ("celeba", "img_align_celeba"),
    ],
)
def test_missing_data_says_which_where_and_what_to_do(tmp_path, capfd, name, wanted):
    heard = []
    with pytest.raises(Refused) as refusal:
        load(DataSpec(name, SETS[name].default_size), tmp_path, heard.append)
    line = str(refusal.value)
    for word in (f'"{name}"', str(tmp_path), "no network in tests", wanted, "BENCH_DATA"):
        assert word in line
    assert "\n" not in line
    assert "downloading" in heard[0]
    assert capfd.readouterr() == ("", "")


def test_a_set_that_is_missing_is_downloaded_once(tmp_path, monkeypatch):
    def download(url, download_root, filename, md5):
        if "train-images" in filename:  # the first of four files brings them all
            write_idx(Path(download_root), pack=bytes, end="")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", download)
    assert len(load(DataSpec("mnist", 28), tmp_path).train) == 30
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", None)
    assert len(load(DataSpec("mnist", 28), tmp_path).train) == 30


@pytest.mark.parametrize("harm", [lambda b: b[:-100], lambda b: b"", lambda b: b"\x1f\x8b" + b"0" * 50])
def test_a_damaged_file_is_named(tmp_path, harm):
    write_idx(tmp_path / "MNIST" / "raw")
    victim = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    victim.write_bytes(harm(victim.read_bytes()))
    with pytest.raises(Refused, match=r"t10k-images-idx3-ubyte.gz is damaged"):
        load(DataSpec("mnist", 28), tmp_path)


def test_images_without_their_labels_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw)
    write_idx(tmp_path / "other", train=29)
    (tmp_path / "other" / "train-labels-idx1-ubyte.gz").rename(raw / "train-labels-idx1-ubyte.gz")
    with pytest.raises(Refused, match="30 images but 29 labels"):
        load(DataSpec("mnist", 28), tmp_path)


def test_cifar10_is_read_from_torchvisions_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.RandomState(0)
    first = rng.randint(0, 256, (10, 3072), dtype=np.uint8)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = first if name == "data_batch_1" else rng.randint(0, 256, (10, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(SETS["cifar10"].class_names)}))
    images = load(DataSpec("cifar10", 32), tmp_path)
    assert images.train.shape == (50, 3, 32, 32)
    assert images.held_out.shape == (10, 3, 32, 32)
    assert torch.equal(images.train[:10], torch.from_numpy(first).view(10, 3, 32, 32))
    horses = load(DataSpec("cifar10", 16, classes=("horse",)), tmp_path)
    assert horses.train.shape == (5, 3, 16, 16)
    assert horses.class_names == ("horse",)


def test_celeba_is_cut_square_by_its_own_splits_and_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    pictures = tmp_path / "celeba" / "img_align_celeba"
    pictures.mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 13)]
    for i, name in enumerate(names):
        tall = np.zeros(
            (218, 178, 3), np.uint8
        )  # red bars above and below: they are what the centre square leaves out
        tall[:20], tall[-20:], tall[20:-20] = (255, 0, 0), (255, 0, 0), 20 * i
        Image.fromarray(tall).save(pictures / name, quality=95)
    lists = tmp_path / "celeba"
    (lists / "list_eval_partition.txt").write_text("".join(f"{n} {i // 4}\n" for i, n in enumerate(names)))
    (lists / "identity_CelebA.txt").write_text("".join(f"{n} 1\n" for n in names))
    for name in ("list_bbox_celeba.txt", "list_landmarks_align_celeba.txt", "list_attr_celeba.txt"):
        (lists / name).write_text("12\na b\n" + "".join(f"{n} 1 -1\n" for n in names))
    images = load(DataSpec("celeba", 64), tmp_path)
    assert images.train.shape == images.held_out.shape == (4, 3, 64, 64)
    assert images.train_labels is None
    centre = images.held_out[:, :, 8:-8].float()
    assert (centre.mean((1, 2, 3)) - torch.tensor([160.0, 180.0, 200.0, 220.0])).abs().max() < 3
    for file in pictures.iterdir():
        file.unlink()
    assert load(DataSpec("celeba", 64), tmp_path).checksum == images.checksum
    kept = lists / "decoded-64.safetensors"
    for spoilt in (kept.read_bytes()[:1000], b""):
        kept.write_bytes(spoilt)
        with pytest.raises(
            Refused, match=r"celeba/decoded-64.safetensors is damaged .*; delete it and run again"
        ):
            load(DataSpec("celeba", 64), tmp_path)


def test_the_home_of_nobody_is_refused_by_name(monkeypatch):
    with pytest.raises(Refused, match=r"data: ~nobody-of-that-name/pictures: "):
        load(DataSpec("folder", 16, path="~nobody-of-that-name/pictures"))
    monkeypatch.setenv("BENCH_DATA", "~nobody-of-that-name/data")
    with pytest.raises(Refused, match=r"data: ~nobody-of-that-name/data: "):
        load(DataSpec("cifar10", 32))


def test_a_folder_of_pictures_is_read_below_and_in_order(tmp_path):
    write_pictures(tmp_path / "p", 20)
    images = load(DataSpec("folder", 16, path=str(tmp_path / "p")))
    assert images.train.shape == (18, 3, 16, 16)
    assert images.held_out.shape == (2, 3, 16, 16)
    assert images.train_labels is images.held_out_labels is None
    assert images.class_names == images.skipped == ()
    assert load(DataSpec("folder", 16, path=str(tmp_path / "p"))).checksum == images.checksum


def test_unreadable_files_are_left_out_by_name_with_the_reason(tmp_path):
    folder = tmp_path / "p"
    write_pictures(folder, 18)
    whole = (folder / "part 0" / "000.png").read_bytes()
    (folder / "part 0" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden").write_text("not looked at")
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(folder / "deep.png")
    images = load(DataSpec("folder", 16, path=str(folder)))
    assert len(images.train) + len(images.held_out) == 18
    names = [line.split(":")[0] for line in images.skipped]
    assert names == ["deep.png", "empty.jpg", "notes.txt", "part 0/cut.png"]
    assert "8 bits" in images.skipped[0]
    assert all(len(line.split(": ", 1)[1]) > 3 and "\n" not in line for line in images.skipped)


def huge_png(side: int) -> bytes:
    """A picture of one hundred bytes that says it has side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_small_file_that_claims_a_huge_size_is_left_out(side, tmp_path):
    write_pictures(tmp_path, 18)
    (tmp_path / "bomb.png").write_bytes(huge_png(side))
    [line] = load(DataSpec("folder", 16, path=str(tmp_path))).skipped
    assert line.startswith("bomb.png: ")
    assert "decompression bomb" in line


def test_a_packed_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_LARGEST_IDX", 2**16)
    (tmp_path / "x.gz").write_bytes(gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 2**24) + bytes(2**24)))
    with pytest.raises(Refused, match=r"x.gz is damaged .65528 bytes"):
        data._read_idx(tmp_path, "x")


def test_file_names_neither_leave_the_folder_nor_command_the_terminal(tmp_path):
    folder = tmp_path / "p"
    write_pictures(folder, 18)
    (folder / "away.png").symlink_to(tmp_path / "secret.png")
    Image.new("L", (30, 30)).save(tmp_path / "secret.png")
    (folder / "\x1b[2J\n.png").write_text("no picture")
    away, clear = sorted(load(DataSpec("folder", 16, path=str(folder))).skipped, reverse=True)
    assert away == "away.png: leads out of the folder"
    assert clear.startswith("\\x1b[2J\\n.png: ")


class Command:
    def __reduce__(self):
        return (os.system, ("exit 1",))


def test_a_kept_data_set_reads_back_and_runs_no_code(tmp_path):
    images = load(DataSpec("digits", 16))
    torch.save(images, tmp_path / "images.pt")
    again = data.open_kept(tmp_path / "images.pt")
    assert torch.equal(again.train, images.train)
    assert (again.class_names, again.checksum) == (images.class_names, images.checksum)
    torch.save(Command(), tmp_path / "images.pt")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        data.open_kept(tmp_path / "images.pt")


def test_grey_transparent_and_wide_pictures_become_square_colour(tmp_path):
    write_pictures(tmp_path, 16)
    Image.new("L", (90, 30), 100).save(tmp_path / "grey.png")
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    Image.new("P", (30, 30), 0).save(tmp_path / "palette.gif", transparency=0)
    grey, glass, palette = (
        data._read_picture(tmp_path / n, 16) for n in ("grey.png", "glass.png", "palette.gif")
    )
    assert grey.shape == (16, 16, 3)
    assert (grey == 100).all()
    assert (glass == 255).all()
    assert (palette == 255).all()


def test_a_folder_without_enough_pictures_is_refused(tmp_path):
    with pytest.raises(Refused, match="is not a folder"):
        load(DataSpec("folder", 16, path=str(tmp_path / "none")))
    with pytest.raises(Refused, match="0 readable pictures"):
        load(DataSpec("folder", 16, path=str(tmp_path)))
    write_pictures(tmp_path, 15)
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(Refused, match=r"15 readable pictures, at least 16 are needed; 1 files .* a\.png"):
        load(DataSpec("folder", 16, path=str(tmp_path)))


def test_the_checksum_sees_every_pixel(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    before = load(DataSpec("mnist", 28), tmp_path).checksum
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[-1] ^= 1
    file.write_bytes(gzip.compress(content))
    assert load(DataSpec("mnist", 28), tmp_path).checksum != before
