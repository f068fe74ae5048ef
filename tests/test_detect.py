"""The detectors agree with what a person sees: real images are ok, flat ones no_learn, repeated collapsed."""

from dataclasses import replace
from math import log

import pytest
import torch

from bench.data import load
from bench.detect import FAILURES, SYMPTOMS, USUAL, Limits, detect
from bench.looks import Looks, class_shift, figures, look, nearest_pairs
from bench.score import make_scorer
from bench.sensitivity import FIRES_ABOVE, FIRES_BELOW, scaled
from bench.spec import DataSpec

SPEC = DataSpec("digits", 16)
N = 1_000
REAL = Looks(0.5, 0.4, 0.5, torch.zeros(0))
FINE = figures(REAL, REAL) | {"fd": 1.0, "recall": 0.5}


@pytest.fixture(scope="module")
def images():
    return load(SPEC)


@pytest.fixture(scope="module")
def scorer(images, tmp_path_factory):
    return make_scorer(images, SPEC, "classifier", N, tmp_path_factory.mktemp("cache"))


def pick(images: torch.Tensor, n: int = N) -> torch.Tensor:
    """Draw n of the images: each once where there are enough."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order.repeat(-(-n // len(images)))[:n]]


def judge(scorer, fakes, cap=60.0, metrics=("fid", "recall")):
    found = scorer.score(fakes, metrics) | scorer.figures(fakes)
    return scorer.detect(found, {"fd": [(1_000, 50.0), (2_000, found["fd"])]}, cap)


def test_real_images_drawn_again_are_ok(images, scorer):
    assert judge(scorer, pick(images.train)) == ("ok", "", ("memorise",))  # which is what it is
    some = torch.cat([images.held_out, pick(images.train, N - len(images.held_out))])
    assert judge(scorer, some, metrics=["fid"])[0] == "ok"
    again = judge(scorer, pick(images.held_out), metrics=["fid"])  # 179 images, each five or six times
    assert again == ("ok", "", ("duplicates",))


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


def test_one_digit_repeated_is_no_learn_and_every_collapse(images, scorer):
    status, reason, codes = judge(scorer, images.train[:1].expand(N, -1, -1, -1), cap=None)
    assert status == "no_learn"
    assert {"const", "collapse_class", "collapse_pair", "collapse_prdc"} <= set(codes)
    assert "one image, whatever z" in reason


def test_one_digit_under_some_noise_is_collapsed(images, scorer):
    noise = 20 * torch.randn(N, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    fakes = (images.train[:1].float() + noise).clamp(0, 255).to(torch.uint8)
    status, reason, codes = judge(scorer, fakes, cap=None)
    assert status == "collapsed"
    assert {"collapse_class", "collapse_pair", "collapse_prdc"} <= set(codes)
    assert "const" not in codes
    assert "1 of 10 classes" in reason
    assert "coverage 0.0" in reason


def test_images_whose_features_lie_together_are_collapsed_though_their_pixels_do_not():
    status, reason, codes = detect(FINE | {"pairs": 0.4}, {}, None, 1.0)
    assert (status, codes) == ("collapsed", ("collapse_pair",))
    assert "features of images lie 40%" in reason


def test_one_class_in_all_its_variety_is_collapsed(images, scorer):
    status, _, codes = judge(scorer, pick(images.train[images.train_labels == 3]), cap=None)
    assert status == "collapsed"
    assert "collapse_class" in codes
    assert "const" not in codes


def test_a_few_missing_classes_are_a_symptom_that_fails_no_run(images, scorer):
    assert judge(scorer, pick(images.train[images.train_labels < 8])) == (
        "ok",
        "",
        ("memorise", "collapse_class_partial"),
    )


def test_kept_classes_alone_are_expected(images, tmp_path):
    spec = DataSpec("digits", 16, classes=("3", "8"))
    some = load(spec)
    scorer = make_scorer(some, spec, "classifier", N, tmp_path)
    assert judge(scorer, pick(some.train), cap=None)[0] == "ok"
    assert judge(scorer, pick(some.train[some.train_labels == 0]), cap=None)[0] == "collapsed"
    assert judge(scorer, pick(images.train[images.train_labels == 5]), cap=None)[0] == "collapsed"


def test_a_final_distance_near_the_untrained_one_is_no_learn():
    assert detect(FINE | {"fd": 43.0}, {}, 60.0, 1.0)[0] == "no_learn"
    assert detect(FINE | {"fd": 41.0}, {}, 60.0, 1.0)[0] == "ok"
    assert detect(FINE | {"fd": 43.0}, {}, None, 1.0)[0] == "ok"


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
    history = [(4_000 * i, fd) for i, fd in enumerate(distances, 1)]
    found = detect(FINE | {"fd": distances[-1]}, {"fd": history}, None, 1.0)
    assert found[0] == status
    assert ("late_collapse" in found[2]) == (status == "late_collapse")


def test_low_recall_alone_is_no_collapse():
    assert detect(FINE | {"recall": 0.0}, {}, None, 1.0) == ("ok", "", ())


def test_a_collapse_outranks_a_late_collapse_and_both_are_listed():
    alike = figures(replace(REAL, spread=0.1), REAL) | {"fd": 30.0}
    status, reason, codes = detect(alike, {"fd": [(1, 10.0), (9, 30.0)]}, None, 1.0)
    assert status == "collapsed"
    assert codes == ("collapse_pair", "late_collapse")
    assert "20%" in reason


def test_mostly_black_real_images_are_not_taken_for_a_fault():
    black = replace(REAL, saturated=0.97)
    assert detect(figures(black, black) | {"fd": 1.0}, {}, None, 1.0)[0] == "ok"


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


def steady(value: float) -> list[tuple[int, float]]:
    """A figure at twenty probes."""
    return [(1_000 * i, value) for i in range(1, 21)]


def but(curve, value: float, *places: int) -> list[tuple[int, float]]:
    return [(x, value if i in places else v) for i, (x, v) in enumerate(curve)]


HEALTHY = {
    "d_accuracy": steady(0.8),
    "d_gap": steady(1.0),
    "d_overfit": steady(0.1),
    "g_signal": steady(2.0),
    "d_floor": steady(0.0),
    "d_gradient": steady(3.0),
    "d_gradient_held": steady(2.0),
    "g_gradient": steady(3.0),
    "g_gradient_held": steady(2.0),
    "loss_d": steady(1.0),
    "fd": [(4_000 * i, 10.0) for i in range(1, 6)],
}


@pytest.mark.parametrize(
    ("code", "key", "value"),
    [
        ("d_win", "d_accuracy", 0.995),
        ("g_vanish", "g_signal", 1e-4),
        ("d_overfit", "d_overfit", 0.7),
    ],
)
def test_a_symptom_needs_two_probes_in_a_row(code, key, value):
    assert detect(FINE, HEALTHY, None, 1.0) == ("ok", "", ())
    once = HEALTHY | {key: but(HEALTHY[key], value, 8, 12)}
    assert detect(FINE, once, None, 1.0) == ("ok", "", ())
    twice = HEALTHY | {key: but(HEALTHY[key], value, 11, 12)}
    assert detect(FINE, twice, None, 1.0) == ("ok", "", (code,))


def test_the_loss_of_d_counts_from_the_least_that_its_labels_allow():
    def codes(loss, floor, *places):
        curves = HEALTHY | {"loss_d": but(HEALTHY["loss_d"], loss, *places), "d_floor": floor}
        return detect(FINE, curves, None, 1.0)[2]

    assert codes(0.04, steady(0.0), 12) == ("d_loss_zero",)  # the mean of a whole window
    assert codes(0.36, steady(0.325), 12) == ("d_loss_zero",)  # real labels at 0.9
    assert codes(0.36, steady(0.0), 12) == ()
    assert codes(0.04, steady(0.0), 0, 1) == ()  # at the very start
    assert codes(0.04, [], *range(20)) == ()  # another loss than BCE
    even = 2 * log(2) + 0.005
    assert codes(even, steady(0.325), 4, 5) == ("d_dead",)
    assert codes(even, steady(0.325), 4, 7) == ()
    assert codes(even, steady(0.325), 14, 15) == ()  # where D ends, if G is good
    assert codes(even, [], 4, 5) == ()


@pytest.mark.parametrize("who", ["d_gradient", "g_gradient"])
def test_a_gradient_blows_up_by_its_own_past_or_where_the_loss_has_a_scale_by_its_size(who):
    def codes(changes, **curves):
        return detect(FINE, HEALTHY | changes | curves, None, 1.0)[2]

    held = f"{who}_held"
    assert codes({held: but(HEALTHY[held], 3_100.0, 8)}) == ("blowup",)  # its median is 3
    assert codes({held: but(HEALTHY[held], 2_900.0, 8)}) == ()
    assert codes({held: but(HEALTHY[held], 1e9, 0)}) == ()  # there is no past yet
    assert codes({who: but(HEALTHY[who], 101.0, 8)}) == ("blowup",)
    assert codes({who: but(HEALTHY[who], 101.0, 8)}, d_floor=[]) == ()


def test_a_run_that_blew_up_and_stayed_bad_has_failed_and_one_that_came_back_has_not():
    fine = HEALTHY | {"fd": []}
    blown = fine | {"g_gradient_held": but(HEALTHY["g_gradient_held"], 1e5, 8)}
    assert detect(FINE | {"fd": 29.0}, blown, 60.0, 1.0)[::2] == ("ok", ("blowup",))
    status, reason, codes = detect(FINE | {"fd": 31.0}, blown, 60.0, 1.0)
    assert (status, codes) == ("no_learn", ("blown_up", "blowup"))
    assert "52% of the untrained one" in reason
    assert detect(FINE | {"fd": 31.0}, fine, 60.0, 1.0)[0] == "ok"
    collapsed = detect(FINE | {"fd": 31.0, "spread": 0.1}, blown, None, 1.0)
    assert collapsed[0] == "collapsed"


def test_a_d_that_wins_at_the_very_start_is_no_symptom():
    assert detect(FINE, HEALTHY | {"d_accuracy": but(HEALTHY["d_accuracy"], 1.0, 0, 1)}, None, 1.0)[2] == ()


def test_a_d_that_guesses_in_the_first_half_is_dead_and_one_at_the_end_is_at_its_equilibrium():
    even = HEALTHY | {"d_gap": steady(0.01)}
    early, late = (HEALTHY["d_accuracy"], 0.5, 4, 5), (HEALTHY["d_accuracy"], 0.5, 14, 15)
    assert detect(FINE, even | {"d_accuracy": but(*early)}, None, 1.0)[2] == ("d_dead",)
    assert detect(FINE, even | {"d_accuracy": but(*late)}, None, 1.0)[2] == ()


def test_oscillation_needs_five_points_in_the_second_half():
    swinging = [(2_000 * i, 10.0 + 3 * (i % 2)) for i in range(1, 11)]  # logs vary by 0.14
    found = FINE | {"fd_spread": 0.04}
    assert "oscillation" in detect(found, HEALTHY | {"fd": swinging}, None, 1.0)[2]
    assert detect(found, HEALTHY | {"fd": swinging[:1] + swinging[6:]}, None, 1.0)[2] == ()
    assert detect(FINE | {"fd_spread": 0.05}, HEALTHY | {"fd": swinging}, None, 1.0)[2] == ()
    assert detect(FINE, HEALTHY | {"fd": swinging}, None, 1.0)[2] == ()  # nothing known of the noise


def test_fakes_from_a_small_support_are_duplicates_and_real_ones_are_not(images, scorer):
    few = pick(images.train[:40])
    assert "duplicates" in judge(scorer, few)[2]
    assert (nearest_pairs(torch.arange(40.0)[:, None], 8) == 1).all()


def test_only_images_as_near_to_the_training_ones_as_no_others_are_memorised(images, scorer):
    held_out = scorer.figures(pick(images.held_out))["nearest_trained"]
    assert held_out == pytest.approx(1, abs=0.05)  # each of the 179 comes five or six times
    assert scorer.figures(pick(images.train))["nearest_trained"] < 0.01
    noisy = pick(images.held_out).float() + 20 * torch.randn(
        N, 1, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    assert scorer.figures(noisy.clamp(0, 255).to(torch.uint8))["nearest_trained"] > held_out


def test_one_image_a_class_whatever_z_is_collapsed_and_all_that_are_real_are_not(images, scorer):
    order = torch.arange(N) % len(images.train)
    real, labels = images.train[order], images.train_labels[order]
    assert scorer.figures(real, labels)["within"] == pytest.approx(1, abs=0.02)
    assert "within" not in scorer.figures(real)
    prototype = torch.stack([images.train[images.train_labels == k][0] for k in range(10)])
    found = scorer.score(prototype[labels], ("fid", "recall")) | scorer.figures(prototype[labels], labels)
    status, reason, codes = scorer.detect(found, {}, None)
    assert status == "collapsed"
    assert "z_ignored" in codes
    assert "collapse_pair" not in codes  # over all classes they differ as much as real ones
    assert "one class differ 0%" in reason


def test_stricter_limits_fire_no_less_and_lenient_ones_no_more():
    some = FINE | {
        "fd": 43.0,
        "kl": 0.3,
        "classes": 8.0,
        "classes_real": 10.0,
        "spread": 0.3,
        "coverage": 0.15,
    }
    fired = [set(detect(some, HEALTHY, 60.0, 1.0, scaled(USUAL, factor))[2]) for factor in (0.5, 1, 2)]
    assert fired[0] >= fired[1] >= fired[2]
    assert fired[0] > fired[2]
    assert scaled(USUAL, 1) == USUAL == Limits()


def test_a_code_is_a_symptom_or_a_failure_and_a_limit_fires_above_or_below():
    failures = [code for own in FAILURES.values() for code in own]
    assert len({*SYMPTOMS, *failures}) == len(SYMPTOMS) + len(failures)
    assert {*FIRES_ABOVE, *FIRES_BELOW} < set(vars(USUAL))
    assert not set(FIRES_ABOVE) & set(FIRES_BELOW)
