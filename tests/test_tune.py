"""What a grid is trained with: the user's word, then the folder's, then a measurement, then a rule."""

import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch

from bench import estimate, plan, tune, turns
from bench.data import load
from bench.errors import Refused
from bench.run import keep_images
from bench.turns import Contestant, Failed, Seats
from bench.worker import Job


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
    (word,) = (line for line in said if "one array" in line)
    assert "one array with 2 threads 240, 2 with 1: 160" in word
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


def test_what_could_not_be_measured_is_tried_again_the_next_time(tiny, tmp_path, measured, monkeypatch):
    there = tune.rate
    monkeypatch.setattr(tune, "rate", lambda *given: 0.0)
    found, runs = chosen(tiny, tmp_path)
    assert not found.runs_per_array
    assert not found.rates
    (kept,) = tmp_path.glob("speed-*.json")
    # As an earlier version kept it, and a rate of other slots.
    name = tune.signature(runs[0].program)
    kept.write_text(json.dumps({name: {"2 x 1 x 1": 0.0, "2 x 2 x 1": 0.0, "4 x 1 x 1": 90.0}}))
    assert not chosen(tiny, tmp_path)[0].runs_per_array
    monkeypatch.setattr(tune, "rate", there)
    assert chosen(tiny, tmp_path)[0].runs_per_array[name] == 2


def test_slots_that_the_user_gives_divide_the_cores_whatever_the_folder_had():
    before = {"picked": {"slots": 1, "threads": 2}}
    of = {given: tune.choose(before, "cpu", 2, *given) for given in [(None, None), (2, None), (2, 2)]}
    assert [(c.slots, c.threads) for c in of.values()] == [(1, 2), (2, 1), (2, 2)]


def test_a_folder_whose_measured_programs_are_gone_is_left_as_it_is(tiny, tmp_path, measured):
    found, runs = chosen(tiny, tmp_path)
    found.rates, found.runs_per_array = {"of another": {"2 x 1 x 1": 5.0}}, {"of another": 1}
    tune.compare_threads(None, found, runs, tmp_path, tmp_path, "cpu", 2, print)
    tune.fill(None, found, runs, tmp_path, 64, tmp_path, "cuda", 2, print)
    assert found.rates == {"of another": {"2 x 1 x 1": 5.0}}


def dying(number):
    os.kill(os.getpid(), signal.SIGKILL)
    yield 1.0


def counting(number):
    while True:
        yield 1.0


@pytest.mark.parametrize("dead", [0, 1])
def test_a_child_that_dies_costs_its_contestant_only(dead):
    """With two processes one of which lives: its answer must not be taken for that to the next order."""
    with Seats("cpu") as seats:
        fine = Contestant("fine", counting, 0.01, processes=2, tuned=True)
        assert seats.turn(fine) > 0
        children = list(seats._children)
        children[dead].kill()
        children[dead].join()
        with pytest.raises(Refused, match="a child process of the measurement died; is there enough memory"):
            seats.turn(fine)
        assert not any(child.is_alive() for child in children)
        seats.clear()
        assert seats.turn(fine) > 0
        with pytest.raises(Refused, match="died"):
            seats.turn(Contestant("dying", dying, 0.01, tuned=True))
        seats.clear()


def test_a_child_that_does_not_answer_costs_its_contestant_only(monkeypatch):
    monkeypatch.setattr(turns, "LIMIT", 1.0)
    with Seats("cpu") as seats:
        with pytest.raises(Failed, match="no answer after 1 s"):
            seats.turn(Contestant("asleep", asleep, 0.01))
        monkeypatch.undo()
        assert seats.turn(Contestant("fine", counting, 0.01)) > 0


def asleep(number):
    time.sleep(600)
    yield 1.0


def test_arrays_of_labelled_runs_are_measured_too(tiny, tmp_path):
    grid = tiny("label_conditioning:", seeds=1)
    images = keep_images(load(grid.data), tmp_path)
    runs, said = [r for r in plan.runs(grid) if r.tricks], []
    assert runs[0].program.labelled
    with Seats("cpu") as seats:
        assert tune.rate(seats, runs, images, "cpu", 1, 1, said.append) > 0
    assert not said
    job = Job(tuple(runs), grid.score, images, tmp_path, None, None, "cpu", 1)
    word, per_step, peak = estimate._measured(job)
    assert word == "done"
    assert per_step > 0
    assert peak > 0
    torch.save({}, tmp_path / "spoilt.pt")
    kind, line = estimate._measured(replace(job, images=tmp_path / "spoilt.pt"))
    assert kind == "error"
    assert "Error" in line
