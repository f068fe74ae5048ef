"""Our scores are torch-fidelity's: the same images as PNG files give the same numbers."""

import dataclasses
import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from safetensors.torch import load_file, save_file
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from bench import extractors, score, speed_scoring, train_classifier
from bench.data import Images, load
from bench.errors import Refused
from bench.extractors import SHIPPED, extract, find_weights, open_extractor
from bench.inception import resized
from bench.products import packed, product
from bench.score import (
    _smallest,
    frechet,
    frechet_spread,
    kernel_distance,
    make_scorer,
    moments_root,
    precision_recall,
    radii,
    subsets,
    to_uint8,
)
from bench.spec import DataSpec, check_samples
from bench.speed_scoring import random_weights

SPEC = DataSpec("digits", 16)
ALL = ("fid", "is", "kid", "precision", "recall")


@pytest.fixture(scope="module")
def images():
    return load(SPEC)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def some(images: torch.Tensor, n: int, seed: int = 0) -> torch.Tensor:
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]].clone()


def noisy(images: torch.Tensor, sd: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)) * sd
    return (images.float() + noise).clamp(0, 255).to(torch.uint8)


def blurred(images: torch.Tensor, width: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(images.float(), (width // 2,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, width, 1).to(torch.uint8)


def as_files(images: torch.Tensor, folder) -> str:
    folder.mkdir()
    for i, picture in enumerate(images):
        pixels = picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(folder / f"{i:05}.png")
    return str(folder)


def by_torch_fidelity(folder, fakes, reals, extractor, weights, protocol) -> dict[str, float]:
    """Score two sets of PNG files by torch_fidelity.calculate_metrics under the settings of a protocol."""
    asked = {
        "input1": as_files(fakes, folder / "fakes"),
        "input2": as_files(reals, folder / "reals"),
        "fid": True, "isc": True, "kid": True, "prc": True,
        "feature_extractor": extractor,
        "feature_extractor_weights_path": str(weights),
        "isc_splits": protocol["is_splits"],
        "kid_subsets": protocol["kid_subsets"],
        "kid_subset_size": protocol["kid_subset_size"],
        "kid_kernel": protocol["kid_kernel"],
        "prc_neighborhood": protocol["prc_neighborhood"],
        "rng_seed": protocol["rng_seed"],
        "cuda": False, "cache": False, "save_cpu_ram": True, "verbose": False,
    }  # fmt: skip
    assert asked.keys() <= DEFAULTS.keys(), "torch-fidelity ignores a misspelt option without a word"
    found = torch_fidelity.calculate_metrics(**asked)
    names = {
        "fd": "frechet_inception_distance",
        "is": "inception_score_mean",
        "kid": "kernel_inception_distance_mean",
        "precision": "precision",
        "recall": "recall",
    }
    return {ours: found[theirs] for ours, theirs in names.items()}


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random Inception weights in the published format."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    random_weights(path)
    return path


def test_classifier_scores_equal_torch_fidelity_on_png_files(images, tmp_path):
    scorer = make_scorer(images, SPEC, "classifier", 300, tmp_path / "cache")
    reals = images.train[torch.linspace(0, 1617, 300).round().long()]
    ours = make_scorer(dataclasses.replace(images, train=reals), SPEC, "classifier", 300, tmp_path / "cache")
    fakes = noisy(some(images.held_out.repeat(2, 1, 1, 1), 300), 60)
    theirs = by_torch_fidelity(
        tmp_path, fakes, reals, "classifier", SHIPPED / "digits-16.safetensors", ours.protocol
    )
    found = ours.score(fakes, ALL)
    assert found == pytest.approx(theirs | {"coverage": found["coverage"]}, rel=1e-5)
    assert 0 < found["recall"] < 1
    assert scorer.score(fakes, ["fid"])["fd"] != pytest.approx(theirs["fd"], rel=1e-2)  # another reference


def test_inception_scores_equal_torch_fidelity_on_png_files(inception_file, tmp_path):
    colour = torch.randint(
        0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    reals, fakes = colour[:20], blurred(colour[20:], 3)
    images = Images(reals, reals[:2], None, None, (), "00", ())
    spec = DataSpec("folder", 16, path="pictures")
    scorer = make_scorer(images, spec, "inception-v3-compat", 20, tmp_path / "cache", inception_file)
    theirs = by_torch_fidelity(tmp_path, fakes, reals, "inception-v3-compat", inception_file, scorer.protocol)
    found = scorer.score(fakes, ALL)
    assert found == pytest.approx(theirs | {"coverage": found["coverage"]}, rel=1e-4)
    assert found["fd"] > 1


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_faster_inception_equals_torch_fidelitys(inception_file, size):
    named, asked = "inception-v3-compat", ["2048", "logits_unbiased"]
    kind = FEATURE_EXTRACTORS_REGISTRY[named]
    stock = kind(named, asked, feature_extractor_weights_path=str(inception_file))
    net = open_extractor(named, inception_file)
    draw = torch.Generator().manual_seed(size)
    colour = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=draw)
    grey = blurred(colour[:, :1], 3)
    for pictures in (colour, grey):
        for ours, theirs in zip(extract(net, pictures), stock(pictures.expand(-1, 3, -1, -1)), strict=True):
            assert ours.dtype == torch.float32
            assert ((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max() < 1e-5
            assert (theirs[0] - theirs[1]).norm() > 1e-2 * theirs[0].norm()  # it does look at the picture


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 32, 64), (1, 3, 299, 299), (1, 3, 400, 350)])
def test_the_resize_by_matrices_is_tensorflows(shape):
    x = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    assert (resized(x) - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 32, 32), torch.zeros(1, 2, 32, 32, dtype=torch.uint8)])
def test_the_faster_inception_takes_uint8_images_only(inception_file, bad):
    with pytest.raises(ValueError, match="expected uint8 images"):
        open_extractor("inception-v3-compat", inception_file)(bad)


@pytest.mark.slow
def test_scoring_is_faster_than_torch_fidelity(capsys):
    rows = speed_scoring.measure("cpu", quick=False, rounds=3)
    with capsys.disabled():
        for row in rows:
            print(
                f"\n{row['what']}: {row['median']:.4g} {row['unit']} ({row['low']:.4g} to {row['high']:.4g})",
                end="",
            )
            if row["ratio"]:
                print(f", {row['ratio']:.2f} times torch-fidelity ({row['note']})", end="")
        print()
    ratios = {row["what"]: row["ratio"] for row in rows if row["ratio"]}
    assert all(ratio > (1.5 if "Inception" in what else 2.5) for what, ratio in ratios.items())


def test_a_quick_measurement_of_scoring_says_what_it_measured():
    rows = speed_scoring.measure("cpu", quick=True, rounds=1)
    assert all(row.keys() == {"what", "unit", "median", "low", "high", "ratio", "note"} for row in rows)
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in rows)
    assert [row["ratio"] is None for row in rows] == [True, False, True, False, True]
    assert "random weights" in rows[0]["note"]


@pytest.mark.parametrize("count", [40, 65, 400])
@pytest.mark.parametrize("width", [64, 300])
def test_the_frechet_step_equals_torch_fidelitys(count, width):
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=draw)
    real = torch.randn(500, width, generator=draw) @ mix
    fake = torch.randn(count, width, generator=draw) @ mix * 1.1 + 0.3
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(fake), fid_features_to_statistics(real), False
    )
    wide = real.double()
    ours = frechet(*moments_root(wide.sum(0), wide.T @ wide, 500), fake)
    assert ours == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-6 if count > width else 1e-4)


@pytest.mark.parametrize(("count", "width"), [(2_000, 16), (400, 64), (100, 120)])
def test_the_frechet_steps_noise_is_that_of_scoring_other_samples_of_the_same_g(count, width):
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=draw)
    real = (torch.randn(5_000, width, generator=draw) @ mix).double()
    at = moments_root(real.sum(0), real.T @ real, len(real))
    found = []
    for _ in range(120):  # features with a long tail, as they come after a ReLU
        fake = (torch.randn(count, width, generator=draw).relu() + 0.2) @ mix * 1.2
        found.append((frechet(*at, fake), frechet_spread(*at, fake)))
    distances, spreads = np.array(found).T
    assert np.std(np.log(distances), ddof=1) == pytest.approx(spreads.mean(), rel=0.25)  # 120 give it to 7 %
    assert spreads.std() < 0.2 * spreads.mean()


@pytest.mark.parametrize("width", [5, 100, 179, 180, 200, 219, 2000])
@pytest.mark.parametrize("levels", [3, 10**9])
def test_the_fourth_smallest_of_a_row_is_that_of_its_order(width, levels):
    """With groups and without, with a rest, and where most numbers are equal."""
    draw = torch.Generator().manual_seed(width)
    numbers = torch.randint(levels, (50, width), generator=draw).float()
    numbers[0, -4:] = -1.0
    numbers[1, :4] = torch.tensor([-1.0, -2.0, -3.0, -torch.inf])
    assert torch.equal(_smallest(numbers, 3), numbers.sort(1).values[:, 3])


def test_coverage_is_the_share_of_real_images_with_a_fake_nearer_than_their_third_neighbour():
    draw = torch.Generator().manual_seed(0)
    real, fake = torch.randn(300, 6, generator=draw), torch.randn(200, 6, generator=draw) * 0.6
    apart, own = torch.cdist(real, fake), torch.cdist(real, real)
    wanted = (apart.min(1).values <= own.sort(1).values[:, 3]).float().mean().item()
    assert 0.1 < wanted < 0.9
    assert precision_recall(fake, real, radii(real))["coverage"] == pytest.approx(wanted, abs=1e-6)
    assert precision_recall(real, real, radii(real))["coverage"] == 1
    assert precision_recall(fake + 100, real, radii(real))["coverage"] == 0


@pytest.mark.parametrize(("fakes", "size"), [(700, 200), (200, 200)])
@pytest.mark.parametrize("width", [64, 300])
def test_the_kernel_distance_equals_torch_fidelitys(fakes, size, width):
    draw = torch.Generator().manual_seed(0)
    real = torch.randn(900, width, generator=draw).relu()
    fake = torch.randn(fakes, width, generator=draw).mul(1.1).add(0.1).relu()
    asked = {"kid_subsets": 5, "kid_subset_size": size, "rng_seed": 3}
    theirs = kid_features_to_metric(fake.double(), real.double(), **asked, verbose=False)
    ours = kernel_distance(fake, subsets(real, fakes, 5, size, 3))
    assert ours == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-4)
    assert (DEFAULTS["kid_kernel_poly_degree"], DEFAULTS["kid_kernel_poly_coef0"]) == (3, 1)
    assert DEFAULTS["kid_kernel_poly_gamma"] is None  # one over the number of features


@pytest.mark.parametrize("images", [40, 90, 300])  # one for each way
def test_the_frechet_distance_is_the_same_by_every_way(images):
    draw = torch.Generator().manual_seed(0)
    reals, fake = torch.randn(500, 60, generator=draw).double(), torch.rand(images, 60, generator=draw)
    mean, root = moments_root(reals.sum(0), reals.T @ reals, len(reals))
    both = root @ fake.double().T.cov() @ root
    apart = (fake.double().mean(0) - mean).square().sum() + root.square().sum() + fake.double().var(0).sum()
    wanted = apart - 2 * torch.linalg.eigvalsh(both).clamp(min=0).sqrt().sum()
    assert frechet(mean, root, fake) == pytest.approx(wanted.item(), rel=1e-6)


def test_products_and_features_are_the_same_without_onednn(images, tmp_path, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    x, rows, bias = (torch.randn(shape, generator=draw) for shape in ((30, 66), (70, 66), (70,)))
    wide = (x.double() @ rows.double().T + bias).float()
    net = open_extractor("classifier", SHIPPED / "digits-16.safetensors")
    features = extract(net, images.train[:300])
    assert torch.allclose(product(x, packed(rows), bias), wide, atol=1e-5)
    assert packed(rows.double()).dtype == torch.float64  # oneDNN holds none
    assert packed(rows[:0]).shape == (0, 66)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not packed(rows).is_mkldnn
    assert torch.allclose(product(x, packed(rows), bias), wide, atol=1e-5)
    other = open_extractor("classifier", SHIPPED / "digits-16.safetensors")
    for ours, theirs in zip(features, extract(other, images.train[:300]), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_distance_of_real_images_to_themselves_is_zero(images, tmp_path):
    scorer = make_scorer(images, SPEC, "classifier", len(images.train), tmp_path)
    assert scorer.score(images.train, ["fid"])["fd"] == pytest.approx(0, abs=1e-4)


def corruptions(reals: torch.Tensor, labels: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Return images of the same number with the strength of one corruption rising, by its name."""
    n = len(reals)
    turn = torch.arange(n)

    def share_of_noise(share):
        spoilt = reals.clone()
        spoilt[: round(share * n)] = noisy(spoilt[: round(share * n)], 10_000)
        return spoilt

    return {
        "noise": [noisy(reals, sd) for sd in (20, 40, 80, 160)],
        "blur": [blurred(reals, width) for width in (3, 5, 7)],
        "blending two images": [
            (reals.float() * (1 - a) + reals.roll(1, 0).float() * a).to(torch.uint8) for a in (0.15, 0.3, 0.5)
        ],
        "contrast": [(reals * c).to(torch.uint8) for c in (0.8, 0.6, 0.4)],
        "a share of noise images": [share_of_noise(share) for share in (0.1, 0.3, 0.6, 1)],
        "dropped classes": [reals[labels < k][turn % int((labels < k).sum())] for k in (8, 5, 2, 1)],
        "few distinct images": [reals[turn % k] for k in (200, 40, 8, 1)],
    }


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_distances_rise_with_every_corruption(name, cache):
    spec = DataSpec(name, 16 if name == "digits" else 28)
    try:
        images = load(spec)
    except Refused:
        pytest.skip(f"{name} is not on this machine")
    cut = images.train[:1_600], images.train_labels[:1_600]
    scorer = make_scorer(
        dataclasses.replace(images, train=images.train[:20_000]), spec, "classifier", 1_600, cache
    )
    clean = scorer.score(cut[0], ["fid", "kid"])
    for kind, ladder in corruptions(*cut).items():
        for metric in ("fd", "kid"):
            values = [clean[metric]] + [scorer.score(step, ["fid", "kid"])[metric] for step in ladder]
            assert all(a < b for a, b in pairwise(values)), (kind, metric, values)


def test_shipped_classifiers_are_right_about_images_they_never_saw():
    for name, size, wanted in (("digits", 16, 0.97), ("fashion-mnist", 28, 0.91)):
        try:
            images = load(DataSpec(name, size))
        except Refused:
            continue
        net = open_extractor("classifier", SHIPPED / f"{name}-{size}.safetensors")
        right = extract(net, images.held_out)[1].argmax(1) == images.held_out_labels
        assert right.float().mean() >= wanted


@pytest.mark.parametrize(("name", "size", "wanted"), [("digits", 16, 0.98), ("fashion-mnist", 28, 0.8)])
def test_shipped_classifiers_see_through_the_noise_of_a_young_generator(name, size, wanted):
    """One trained without noise (right on 0.955 and 0.38) took faint noise for a collapse of the classes."""
    try:
        images = load(DataSpec(name, size))
    except Refused:
        pytest.skip(f"{name} is not on this machine")
    net = open_extractor("classifier", SHIPPED / f"{name}-{size}.safetensors")
    right = extract(net, noisy(images.held_out, 40))[1].argmax(1) == images.held_out_labels
    assert right.float().mean() >= wanted


def test_anything_that_fixes_a_scores_meaning_is_another_protocol(images, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({k: v * 1.01 for k, v in load_file(SHIPPED / "digits-16.safetensors").items()}, other)
    scorers = [
        make_scorer(images, SPEC, "classifier", 100, tmp_path),
        make_scorer(images, SPEC, "classifier", 200, tmp_path),
        make_scorer(images, SPEC, "classifier", 100, tmp_path, other),
        make_scorer(
            load(DataSpec("digits", 16, ("1", "2"))),
            DataSpec("digits", 16, ("1", "2")),
            "classifier",
            100,
            tmp_path,
        ),
    ]
    assert len({scorer.protocol_id for scorer in scorers}) == 4
    assert len(list(tmp_path.glob("real-*"))) == 4
    again = make_scorer(images, SPEC, "classifier", 100, tmp_path)
    assert again.protocol_id == scorers[0].protocol_id


def test_real_statistics_are_computed_once_and_a_spoilt_cache_is_made_again(images, tmp_path, monkeypatch):
    first = make_scorer(images, SPEC, "classifier", 200, tmp_path)
    fakes = noisy(some(images.train, 200), 30)
    kept = next(tmp_path.glob("real-*"))
    content = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(score, "_measure", None)
        assert make_scorer(images, SPEC, "classifier", 200, tmp_path).score(fakes, ALL) == first.score(
            fakes, ALL
        )
    for spoilt in (content[:-1000], b"", content.replace(b"digits", b"digitz")):
        kept.write_bytes(spoilt)
        assert make_scorer(images, SPEC, "classifier", 200, tmp_path).score(fakes, ALL) == first.score(
            fakes, ALL
        )
        assert kept.read_bytes() == content
    assert list(tmp_path.iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_costs_time_but_no_score(images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way of a folder")
    heard = []
    scorer = make_scorer(images, SPEC, "classifier", 200, tmp_path / "file" / "cache", log=heard.append)
    assert scorer.score(images.train[:200], ["fid"])["fd"] < 5
    assert "cannot be kept" in heard[0]
    monkeypatch.setattr(train_classifier, "train", lambda *a, **k: ({"w": torch.zeros(1)}, 0.5))
    with pytest.raises(Refused, match="cannot be kept"):
        find_weights("classifier", DataSpec("digits", 32), tmp_path / "file", None, None)


def test_changed_images_in_the_same_tensor_are_scored_anew(images, tmp_path):
    scorer = make_scorer(images, SPEC, "classifier", 200, tmp_path)
    fakes = some(images.train, 200)
    before = scorer.score(fakes, ["fid"])
    assert scorer.score(fakes, ["fid"]) == before
    fakes[:] = 0
    assert scorer.score(fakes, ["fid"])["fd"] > before["fd"] + 10
    with torch.inference_mode():
        sealed = some(images.train, 200)
        assert scorer.score(sealed, ["fid"]) == before
        sealed[:] = 0
        assert scorer.score(sealed, ["fid"])["fd"] > before["fd"] + 10


def test_features_are_extracted_once_for_scores_and_detectors(images, tmp_path, monkeypatch):
    scorer = make_scorer(images, SPEC, "classifier", 200, tmp_path)
    fakes = torch.stack([images.train[:200], images.train[200:400]])
    found = scorer.score(fakes[1], ["fid"])
    with monkeypatch.context() as patch:
        patch.setattr(score, "extract", None)
        assert scorer.detect(found | scorer.figures(fakes[1]), {}, None)[0] == "ok"
    assert scorer.score(fakes[0], ["fid"]) != found


def test_samples_that_are_not_finite_never_become_images():
    x = torch.tensor([-1.0, -0.5, 0.0, 1.0, 1.5])
    assert to_uint8(x).tolist() == [0, 64, 128, 255, 255]
    assert torch.equal(
        to_uint8(extractors.scaled(torch.arange(256, dtype=torch.uint8))), torch.arange(256).to(torch.uint8)
    )
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            to_uint8(torch.tensor([0.0, bad]))


def test_another_number_of_samples_is_no_score_of_this_protocol(images, tmp_path):
    scorer = make_scorer(images, SPEC, "classifier", 100, tmp_path)
    with pytest.raises(ValueError, match="100 uint8 images"):
        scorer.score(images.train[:99], ["fid"])
    with pytest.raises(ValueError, match="100 uint8 images"):
        scorer.score(images.train[:100].float(), ["fid"])


def test_too_few_samples_and_unknown_metrics_are_refused_when_planning():
    check_samples(ALL, 100, real=100)
    with pytest.raises(Refused, match=r"10 samples are too few for is, which needs 20"):
        check_samples(["is"], 10)
    with pytest.raises(Refused, match=r"5 real images are too few for kid"):
        check_samples(["kid"], 100, real=5)
    with pytest.raises(Refused, match=r'"fdi" \(did you mean "fid"\?\)'):
        check_samples(["fdi"], 100)


def test_settings_we_pass_on_are_names_torch_fidelity_knows():
    names = {
        "kid_subsets",
        "kid_subset_size",
        "kid_kernel",
        "prc_neighborhood",
        "rng_seed",
        "isc_splits",
        "verbose",
    }
    assert names <= DEFAULTS.keys()
    assert DEFAULTS["kid_kernel"] == "poly"
    assert DEFAULTS["rng_seed"] == score.RNG_SEED


def test_a_classifier_is_trained_once_where_none_is_shipped(tmp_path, monkeypatch):
    calls = []

    def train(images, mirror, log):
        calls.append(images.class_names)
        return bench_train(images, mirror, steps=3)

    bench_train = train_classifier.train
    monkeypatch.setattr(train_classifier, "train", train)
    spec = DataSpec("digits", 28, classes=("1", "2"))
    heard = []
    paths = [find_weights("classifier", spec, tmp_path, None, None, heard.append) for _ in range(2)]
    assert calls == [tuple("0123456789")]  # of all classes, so that grids of other classes share it
    assert paths[0] == paths[1]
    assert "no classifier comes with digits at 28 pixels" in heard[0]
    assert load_file(paths[0])["logits.weight"].shape == (10, 128)


def test_training_learns_folds_batchnorm_and_leaves_the_global_generator_alone(images, tmp_path):

    before = torch.random.get_rng_state()
    weights, accuracy = train_classifier.train(images, mirror=False, steps=120)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert accuracy > 0.9
    save_file(weights, tmp_path / "w.safetensors")
    net = open_extractor("classifier", tmp_path / "w.safetensors")
    right = extract(net, images.held_out)[1].argmax(1) == images.held_out_labels
    assert right.float().mean().item() == pytest.approx(accuracy, abs=0.006)


def test_weights_that_cannot_be_had_are_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_INCEPTION", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    find = lambda extractor, given=None: find_weights(extractor, SPEC, tmp_path, given, None)  # noqa: E731
    with pytest.raises(
        Refused, match=r"weights-inception-2015-12-05-6726825d.pth.*no network.*BENCH_INCEPTION"
    ):
        find("inception-v3-compat")
    monkeypatch.setenv("BENCH_INCEPTION", str(tmp_path / "gone"))
    with pytest.raises(Refused, match=r"BENCH_INCEPTION names .*gone"):
        find("inception-v3-compat")
    with pytest.raises(Refused, match=r'"inception".*did you mean "inception-v3-compat"'):
        find("inception")
    with pytest.raises(Refused, match="does not exist"):
        find("classifier", tmp_path / "gone")
    with pytest.raises(Refused, match="celeba has no labels"):
        find_weights("classifier", DataSpec("celeba", 64), tmp_path, None, None)


def test_inception_weights_are_found_in_the_hubs_cache_and_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_INCEPTION", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_weights("inception-v3-compat", SPEC, tmp_path, None, None) == file
    (tmp_path / "mine.pth").touch()
    monkeypatch.setenv("BENCH_INCEPTION", str(tmp_path / "mine.pth"))
    assert find_weights("inception-v3-compat", SPEC, tmp_path, None, None) == tmp_path / "mine.pth"


@pytest.mark.parametrize("extractor", ["classifier", "inception-v3-compat"])
@pytest.mark.parametrize("content", [b"", b"nonsense", np.random.RandomState(0).bytes(1000)])
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path, extractor, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(Refused, match=rf"w does not hold weights of {extractor}"):
        open_extractor(extractor, tmp_path / "w")


def test_weights_of_another_network_are_refused(tmp_path, inception_file):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(Refused, match="does not hold weights"):
        open_extractor("inception-v3-compat", tmp_path / "other.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(Refused, match="does not hold weights"):
        open_extractor("classifier", tmp_path / "other.safetensors")
    flat = load_file(SHIPPED / "digits-16.safetensors")
    save_file(flat | {"hidden.weight": flat["hidden.bias"].clone()}, tmp_path / "flat.safetensors")
    with pytest.raises(Refused, match=r"flat.safetensors does not hold weights of classifier"):
        open_extractor("classifier", tmp_path / "flat.safetensors")


def test_colour_images_are_no_input_for_a_grey_classifier():
    net = open_extractor("classifier", SHIPPED / "digits-16.safetensors")
    with pytest.raises(ValueError, match="colour"):
        net(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        net(torch.zeros(2, 1, 16, 16))


def test_importing_the_extractors_twice_registers_the_classifier_once():
    kind = FEATURE_EXTRACTORS_REGISTRY["classifier"]
    spec = importlib.util.spec_from_file_location("extractors_again", extractors.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert FEATURE_EXTRACTORS_REGISTRY["classifier"] is kind is extractors.ClassifierFeatures
