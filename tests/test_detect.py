"""The detectors agree with what a person sees: real images are ok, flat ones no_learn, repeated collapsed."""

from math import log

import pytest
import torch

from bench.data import load
from bench.detect import Limits, Looks, class_shift, detect, look
from bench.score import make_scorer
from bench.spec import DataSpec

SPEC = DataSpec("digits", 16)
N = 1_000
FINE = {"fd": 1.0, "recall": 0.5}


@pytest.fixture(scope="module")
def images():
    return load(SPEC)


@pytest.fixture(scope="module")
def scorer(images, tmp_path_factory):
    return make_scorer(images, SPEC, "classifier", N, tmp_path_factory.mktemp("cache"))


def pick(images: torch.Tensor, n: int = N) -> torch.Tensor:
    return images[torch.randint(len(images), (n,), generator=torch.Generator().manual_seed(0))]


def judge(scorer, fakes, cap=60.0, metrics=("fid", "recall")):
    found = scorer.score(fakes, metrics)
    return scorer.detect(fakes, found, [(1_000, 50.0), (2_000, found["fd"])], cap)


def test_real_images_drawn_again_are_ok(images, scorer):
    assert judge(scorer, pick(images.train)) == ("ok", "", ())
    assert judge(scorer, pick(images.held_out), metrics=["fid"]) == ("ok", "", ())


@pytest.mark.parametrize("grey", [0, 7, 128, 255])
def test_constant_images_are_no_learn(images, scorer, grey):
    status, reason, codes = judge(scorer, torch.full((N, 1, 16, 16), grey, dtype=torch.uint8))
    assert status == "no_learn"
    assert "flat" in reason
    assert codes[0] == "const"


def test_black_and_white_noise_is_no_learn(scorer):
    fakes = (
        torch.randint(0, 2, (N, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        * 255
    )
    status, reason, _ = judge(scorer, fakes)
    assert status == "no_learn"
    assert "black or white" in reason


def test_one_digit_repeated_is_collapsed(images, scorer):
    status, reason, codes = judge(scorer, images.train[:1].expand(N, -1, -1, -1), cap=None)
    assert status == "collapsed"
    assert {"collapse_class", "collapse_pair", "collapse_prdc"} <= set(codes)
    assert "1 of 10 classes" in reason


def test_one_class_in_all_its_variety_is_collapsed(images, scorer):
    status, _, codes = judge(scorer, pick(images.train[images.train_labels == 3]), cap=None)
    assert status == "collapsed"
    assert "collapse_class" in codes
    assert "collapse_pair" not in codes


def test_a_few_missing_classes_are_a_symptom_that_fails_no_run(images, scorer):
    assert judge(scorer, pick(images.train[images.train_labels < 8])) == (
        "ok",
        "",
        ("collapse_class_partial",),
    )


def test_kept_classes_alone_are_expected(images, tmp_path):
    spec = DataSpec("digits", 16, classes=("3", "8"))
    some = load(spec)
    scorer = make_scorer(some, spec, "classifier", N, tmp_path)
    assert judge(scorer, pick(some.train), cap=None)[0] == "ok"
    assert judge(scorer, pick(some.train[some.train_labels == 0]), cap=None)[0] == "collapsed"
    assert judge(scorer, pick(images.train[images.train_labels == 5]), cap=None)[0] == "collapsed"


def test_a_final_distance_near_the_untrained_one_is_no_learn():
    real = Looks(0.5, 0.4, 0.5, torch.zeros(0))
    assert detect(real, real, {"fd": 43.0}, [], 60.0, 1.0)[0] == "no_learn"
    assert detect(real, real, {"fd": 41.0}, [], 60.0, 1.0)[0] == "ok"
    assert detect(real, real, {"fd": 43.0}, [], None, 1.0)[0] == "ok"


@pytest.mark.parametrize(
    ("distances", "status"),
    [
        ([50.0, 10.0, 12.0, 14.0, 30.0], "late_collapse"),
        ([50.0, 10.0, 12.0, 14.0, 14.9], "ok"),  # not half as much again
        ([5.0, 0.1, 0.2, 0.3, 0.9], "ok"),  # all of it within the slack
        ([50.0, 40.0, 30.0, 20.0, 10.0], "ok"),
    ],
)
def test_a_run_that_was_much_better_before_has_collapsed_late(distances, status):
    real = Looks(0.5, 0.4, 0.5, torch.zeros(0))
    history = [(4_000 * i, fd) for i, fd in enumerate(distances, 1)]
    found = detect(real, real, {"fd": distances[-1]}, history, None, 1.0)
    assert found[0] == status
    assert found[2] == (("late_collapse",) if status == "late_collapse" else ())


def test_low_recall_alone_is_no_collapse():
    real = Looks(0.5, 0.4, 0.5, torch.full((10,), 0.1))
    assert detect(real, real, {"fd": 1.0, "recall": 0.0}, [], None, 1.0) == ("ok", "", ())


def test_a_collapse_outranks_a_late_collapse_and_both_are_listed():
    real = Looks(0.5, 0.4, 0.5, torch.zeros(0))
    fake = Looks(0.5, 0.4, 0.1, torch.zeros(0))
    status, reason, codes = detect(fake, real, {"fd": 30.0}, [(1, 10.0), (9, 30.0)], None, 1.0)
    assert status == "collapsed"
    assert codes == ("collapse_pair", "late_collapse")
    assert "20%" in reason


def test_mostly_black_real_images_are_not_taken_for_a_fault():
    real = Looks(0.5, 0.97, 0.5, torch.zeros(0))
    assert detect(real, real, FINE, [], None, 1.0)[0] == "ok"


def test_class_shift_counts_classes_and_measures_their_shares():
    real = torch.tensor([0.5, 0.3, 0.2, 0.0])
    assert class_shift(real, real)[:2] == (3, 3)
    assert abs(class_shift(real, real)[2]) < 1e-3
    present, wanted, divergence = class_shift(real, torch.tensor([0.99, 0.01, 0.0, 0.0]))
    assert (present, wanted) == (1, 3)
    assert divergence == pytest.approx(0.99 * log(0.99 / 0.5) + 0.01 * log(0.01 / 0.3), abs=1e-3)
    assert 1 < class_shift(real, torch.tensor([0.0, 0.0, 0.0, 1.0]))[2] < 10


def test_looks_are_what_their_names_say():
    pictures = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    pictures[:2] = 255
    found = look(pictures, torch.tensor([1, 3]))
    assert (found.flat, found.saturated, found.spread) == (0.0, 1.0, 1.0)
    assert found.shares.tolist() == [0.25, 0.75]
    assert look(pictures[:1]).spread == 0.0
    assert Limits().spread < 1
