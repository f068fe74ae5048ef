"""When runs fail: the detectors' time, and what the report makes of it."""

import numpy as np
import pandas as pd
import pytest
from fake_results import ARMS, write

from bench import results
from bench.analyse import analyse
from bench.detect import failed_since
from bench.survival import failure_rates, sound

TWO = {
    "baseline": ("baseline", {}, 1.0, {}, 1.0, 1.0),
    "pooling": (
        "trick",
        {"pooling": {"kind": "max"}},
        1.0,
        {0: "collapsed", 2: "diverged", 3: "no_learn", 5: "failed", 7: "collapsed"},
        1.0,
        1.0,
    ),
}


@pytest.mark.parametrize(
    ("states", "since"),
    [
        ([], None),
        ([False, False], None),
        ([True, False], None),
        ([True, True], 1),
        ([True, False, True, True], 3),
        ([False, True, False], None),
    ],
)
def test_a_failure_counts_from_where_no_sound_point_follows(states, since):
    assert failed_since(list(enumerate(states, 1))) == since


def analysed(folder, arms=TWO):
    return analyse(results.load(write(folder, arms=arms, samples=False)))


def test_rates_and_times_of_failures(tmp_path):
    rates = failure_rates(analysed(tmp_path / "r")).set_index("arm")
    own = rates.loc["pooling"]
    assert (own["failures"], own["n"], own["timed"], own["never_sound"]) == (4, 9, 4, 1)
    assert (own["first"], own["middle"], own["last"]) == (4000, (7040 + 12000) / 2, 12000)
    assert rates.loc["baseline", "failures"] == 0
    assert np.isnan(rates.loc["baseline", "first"])


def test_the_share_of_sound_runs_is_the_plain_share_where_nothing_is_censored_early(tmp_path):
    analysis = analysed(tmp_path / "r")
    arm = next(a for a in analysis.arms if a.name == "pooling")
    share = sound(arm)
    assert share["images"].iloc[0] == 0
    assert share["sound"].is_monotonic_decreasing
    for images, part in share.itertuples(index=False):
        assert part == pytest.approx(1 - (arm.runs["failed_at"] <= images).sum() / arm.n)
    assert list(sound(analysis.reference)["sound"]) == pytest.approx([1.0] * len(sound(analysis.reference)))


def test_of_rows_made_before_times_were_kept_nothing_is_said_about_them(tmp_path):
    folder = write(tmp_path / "r", arms=TWO, samples=False)
    table = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    table.drop(columns=list(results.LATER)).to_csv(folder / "runs.csv", index=False)
    analysis = analyse(results.load(folder))
    rates = failure_rates(analysis).set_index("arm")
    assert (rates.loc["pooling", "failures"], rates.loc["pooling", "timed"]) == (4, 0)
    assert sound(next(a for a in analysis.arms if a.name == "pooling")).empty


def test_every_arm_of_a_usual_grid_ends_at_its_share_of_failures(tmp_path):
    analysis = analysed(tmp_path / "r", ARMS)
    for arm in analysis.arms:
        assert sound(arm)["sound"].iloc[-1] == pytest.approx(1 - arm.failures / arm.n)
