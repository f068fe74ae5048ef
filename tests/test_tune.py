"""What a grid is trained with: the user's word, then the folder's, then a measurement, then a rule."""

from collections import Counter

import pytest
import torch

from bench import plan, tune
from bench.data import load
from bench.run import keep_images
from bench.turns import Seats


@pytest.fixture
def measured(monkeypatch):
    """The rates that a machine might show, by runs per array; counts how often it is asked."""
    asked = Counter()

    def rate(seats, runs, file, device, slots, threads, log):
        asked[slots, len(runs), threads] += 1
        return {1: 100.0, 2: 160.0, 5: 162.0}[len(runs)] * (1.5 if slots == 1 else 1.0)

    monkeypatch.setattr(tune, "rate", rate)
    monkeypatch.setattr(tune, "WORTH", 0)
    return asked


def chosen(tiny, tmp_path, before=None, said=None):
    grid = tiny("label_smoothing: , noise_length: {length: 16}", seeds=3)
    runs, images = plan.runs(grid), keep_images(load(grid.data), tmp_path)
    found = tune.choose(before, "cpu", 2, None, None)
    log = (said if said is not None else []).append
    tune.measure(None, found, runs, images, 64, tmp_path, "cpu", log)
    tune.compare_threads(None, found, runs, images, tmp_path, "cpu", 2, log)
    return found, runs


def test_the_fewest_of_the_fastest_are_taken_and_kept(tiny, tmp_path, measured):
    said = []
    found, runs = chosen(tiny, tmp_path, said=said)
    assert found.most(None, "cpu")(runs[0].program) == 2  # 5 are not 3 % faster
    assert found.most(7, "cpu")(runs[0].program) == 7
    assert (found.slots, found.threads) == (1, 2)
    assert "takes 2 (measured now)" in said[0]
    count = measured.total()
    again, _ = chosen(tiny, tmp_path, said=said)
    assert (again, measured.total()) == (found, count)


def test_what_was_not_measured_takes_no_more_than_was_enough_for_another(tiny, tmp_path, measured):
    found, runs = chosen(tiny, tmp_path)
    for name in list(found.runs_per_array)[1:]:
        del found.runs_per_array[name]
    assert {found.most(None, "cpu")(run.program) for run in runs} == {2}
    assert {found.most(None, "cuda")(run.program) for run in runs} > {2}
    assert {tune.choose(None, "cpu", 2, None, None).most(None, "cpu")(run.program) for run in runs} == {5}


def test_a_folder_keeps_what_it_was_started_with(tiny, tmp_path, measured):
    first, runs = chosen(tiny, tmp_path)
    names = list(first.runs_per_array)
    before = {"picked": {"slots": 3, "threads": 1, "runs_per_array": dict.fromkeys(names, 4), "rates": {}}}
    measured.clear()
    found, _ = chosen(tiny, tmp_path, before)
    assert (found.slots, found.most(None, "cpu")(runs[0].program)) == (3, 4)
    assert not measured


def test_a_spoilt_cache_is_measured_again(tiny, tmp_path, measured):
    chosen(tiny, tmp_path)
    (kept,) = tmp_path.glob("speed-*.json")
    kept.write_text(kept.read_text()[:20])
    measured.clear()
    chosen(tiny, tmp_path)
    assert measured


def test_a_rate_is_measured_in_real_processes(tiny, tmp_path):
    grid = tiny(seeds=2)
    images = keep_images(load(grid.data), tmp_path)
    runs, said = [r for r in plan.runs(grid) if not r.tricks], []
    with Seats("cpu") as seats:
        assert tune.rate(seats, runs, images, "cpu", 2, 1, said.append) > 0
        assert not said
        spoilt = tmp_path / "spoilt.pt"
        torch.save({}, spoilt)
        assert tune.rate(seats, runs, spoilt, "cpu", 1, 1, said.append) == 0
    [word] = said
    assert word.startswith("speed: 1 x 2 runs were not measured: ")
