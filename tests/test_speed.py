"""`bench speed`: the loops it compares with, what it counts, its turns and tables; the engine against a plain loop."""

import io
import itertools
import json
import math
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plain
import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from bench import grid as grids
from bench import loops, plan, roofline, speed, speed_scoring, train, turns
from bench.cli import main

STEPS = 40
TINY = ("--quick", "--size", "16", "--channels", "4", "--seconds", "0.2", "--rounds", "2", "--no-scoring")


def nets(size, channels, colours=1):
    settings = speed.Settings(size=size, colours=colours)
    return speed._planned(speed.grid_text(settings, channels, speed.Mode(1, 1, "float32")))[0].nets


def pictures(size, colours=1, count=50):
    shape = (count, size, size) if colours == 1 else (count, size, size, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.filterwarnings("ignore")  # two workers on one core, forked: as people write it
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("resident", [False, True])
def test_the_plain_loops_train(resident, colours):
    d, g = loops.networks(16, colours, 4)
    before = [p.detach().clone() for net in (d, g) for p in net.parameters()]
    given = pictures(16, colours)
    batches = loops.Resident(given, 8, "cpu") if resident else loops.loaded(given, 16, 8)
    out = io.StringIO()
    losses = list(itertools.islice(loops.train(d, g, batches, "cpu", out), 3))
    assert all(math.isfinite(loss) for loss in losses)
    assert out.getvalue().count("Loss_D") == 3
    after = [p for net in (d, g) for p in net.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_both_plain_loops_see_the_same_numbers():
    given = pictures(16, count=1)
    (loaded, _), (resident, _) = (
        loops.Pictures(given, 16)[0],
        next(iter(loops.Resident(given, 1, "cpu"))),
    )
    torch.testing.assert_close(loaded[None], resident)


@pytest.mark.parametrize(("size", "channels", "colours"), [(16, 4, 1), (28, 8, 1), (32, 8, 3), (64, 4, 1)])
def test_counted_flops_are_those_of_the_plain_loop_less_what_a_lean_step_leaves_out(size, channels, colours):
    batch = 4
    d, g = loops.networks(size, colours, channels)
    steps = loops.train(d, g, loops.Resident(pictures(size, colours), batch, "cpu"), "cpu", io.StringIO())
    with FlopCounterMode(display=False) as counter:
        next(steps)
    ours = nets(size, channels, colours)
    thrown_away = 2 * batch * ours.d.multiply_adds()  # the gradients of D's weights in G's step
    assert roofline.flops(ours, batch) + thrown_away == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_roofline_of_a_known_card_is_the_one_worked_out_by_hand():
    roof = roofline.roofline(nets(32, 64), 64, 2, peak=788e12, bandwidth=4.3e12)
    assert roof.compute == pytest.approx(30.5e-6, rel=0.01)
    assert roof.memory == pytest.approx((44.8 + 14.5) * 1e-6, rel=0.01)
    assert roof.bound == "memory"
    assert roof.rate == pytest.approx(16_900, rel=0.01)


def test_peaks_say_what_they_did():
    assert next(roofline.product("float32", "cpu")) == 2 * 1024**3
    assert next(roofline.convolution("float32", "cpu")) == 2 * 16 * 16 * 16 * 128 * 128 * 9
    assert next(roofline.copy("cpu")) == 2 * 4 * 2**24


@pytest.mark.parametrize("precision", speed.PRECISIONS)
def test_our_loop_counts_the_steps_of_every_run(precision):
    settings = speed.Settings(size=16, batch=8)
    text = speed.grid_text(settings, 4, speed.Mode(2, 3, precision))
    assert list(itertools.islice(speed.our_loop(pictures(16), text, 3, "cpu", 1), 4)) == [3.0] * 4


class Given:
    """Seats whose turns take no time: each contestant's rate is looked up."""

    def __init__(self, rate):
        self.rate, self.turns = rate, []

    def turn(self, contestant):
        self.turns.append(contestant.name)
        rate = self.rate(contestant)
        if isinstance(rate, str):
            raise turns.Failed(rate)
        return rate * (1 + 0.01 * len(self.turns))  # a machine that drifts

    def clear(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_turns_rotate_and_a_contestant_that_fails_is_left_out_with_a_word():
    seats, said = Given(lambda c: "no such thing" if c.name == "c" else 1.0), []
    players = [turns.Contestant(n, None, 1.0, droppable=n == "c") for n in "abc"]
    rates = turns.interleave(seats, players, 3, said.append)
    assert seats.turns == ["a", "b", "c", "b", "a", "a", "b"]
    assert set(rates) == {"a", "b"}
    assert "c: left out: no such thing" in said
    seats = Given(lambda c: "no such thing")
    with pytest.raises(turns.Refused, match="a: no such thing"):
        turns.interleave(seats, players, 3, said.append)


def faked(monkeypatch, **settings):
    rates = {"(a)": 10.0, "(b)": 20.0, "(c)": 25.0}

    def rate(contestant):
        if contestant.name.startswith("peak"):
            return 1e11
        mode = 30.0 if "float32" in contestant.name else "this machine cannot"
        return rates.get(contestant.name[:3], mode)

    monkeypatch.setattr(speed, "Seats", lambda device: Given(rate))
    heard = []
    return speed.measure(speed.Settings(quick=True, **settings), heard.append), heard


def test_tables_ratios_targets_and_text_follow_from_the_rates(monkeypatch):
    document, heard = faked(monkeypatch, scoring=False)
    assert any("bfloat16: left out: this machine cannot" in line for line in heard)
    assert [table["channels"] for table in document["tables"]] == [32, 64]
    consistent(document)
    for table in document["tables"]:
        best = [row["ratio_a"]["median"] for row in table["contestants"] if row["name"].startswith("(d)")]
        assert best == pytest.approx([3.0, 3.0], rel=0.15)
    assert all(row["met"] for row in document["targets"]["results"])
    text = list(speed.lines(document))
    assert max(map(len, text)) <= 110
    assert text[-1].startswith("  64 channels: ") or "here differ: " in text[-1]
    assert json.loads(json.dumps(document)) == document


def consistent(document):
    for table in document["tables"]:
        rows = {row["name"][:3]: row for row in table["contestants"]}
        for row in table["contestants"]:
            assert row["median"] == statistics.median(row["rounds"])
            assert row["low"] <= row["median"] <= row["high"]
            assert row["images_per_second"] == pytest.approx(row["median"] * table["batch"])
            for key in "ab":
                pairs = zip(row["rounds"], rows[f"({key})"]["rounds"], strict=True)
                wanted = statistics.median(rate / base for rate, base in pairs)
                assert row[f"ratio_{key}"]["median"] == pytest.approx(wanted)
            roof = table["roofline"][row["precision"]]
            assert row["roofline_share"] == pytest.approx(row["median"] / roof["rate"])


def test_scored_runs_per_hour_count_training_and_scoring(monkeypatch):
    assert speed_scoring._row("x", 16, "", [1.0])["unit"] == "images/s"
    row = {"unit": "images/s", "low": 0.0, "high": 0.0, "ratio": None, "note": ""}
    rows = [
        row | {"what": "Inception, stock torch-fidelity on PNG files", "median": 13.0},
        row | {"what": "Inception, ours", "median": 26.0},
        row | {"what": "Fréchet term", "median": 1.0, "unit": "s"},
    ]
    monkeypatch.setattr(speed, "_scoring", lambda settings, log: rows)
    document, _ = faked(monkeypatch, channels=(32,))
    stock, ours = document["scored_runs_per_hour"]
    train_seconds = speed.REFERENCE.steps / document["reference"]["contestants"][0]["median"]
    assert stock["runs_per_hour"] == pytest.approx(3600 / (train_seconds + 1000))
    assert ours["score_seconds"] == 500
    assert ours["ratio"] == ours["runs_per_hour"] / stock["runs_per_hour"]
    assert any("runs an hour" in line for line in speed.lines(document))


def test_without_a_scoring_measurement_it_says_so(monkeypatch):
    monkeypatch.setattr(speed, "_scoring", lambda settings, log: None)
    document, _ = faked(monkeypatch, channels=(32,))
    text = "\n".join(speed.lines(document))
    assert "scoring: not measured" in text
    assert "s of training a run" in text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--size", "30"], "--size 30: not allowed"),
        (["--colours", "2"], "--colours 2: not allowed"),
        (["--channels", "0"], "--channels"),
        (["--batch", "1"], "--batch"),
        (["--seconds", "0"], "--seconds 0"),
        (["--rounds", "0"], "--rounds 0"),
        (["--device", "gpu"], "--device gpu"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(options, why):
    result = CliRunner().invoke(main, ["speed", *options])
    assert result.exit_code == 2
    assert result.output.startswith("bench: ")
    assert why in result.output
    assert result.output.count("\n") == 1


@pytest.mark.slow
def test_the_command_prints_one_json_document():
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "speed", *TINY, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(done.stdout)
    consistent(document)
    names = [row["name"] for row in document["tables"][0]["contestants"]]
    assert [sum(name.startswith(f"({letter})") for name in names) for letter in "abc"] == [1, 1, 1]
    assert sum(name.startswith("(d)") for name in names) == 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in /proc")
def test_stopped_by_hand_it_leaves_no_children():
    command = [sys.executable, "-m", "bench.cli", "speed", *TINY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        while "round 1" not in (line := bench.stderr.readline()):
            assert line, "it ended before"
        children = descendants(bench.pid)
        assert len(children) > 1
        bench.send_signal(signal.SIGINT)
        assert bench.wait(30) == 130
        assert "leaked" not in bench.stderr.read()
    deadline = time.monotonic() + 20
    while left := [pid for pid in children if alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def descendants(pid):
    own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [deeper for child in own for deeper in descendants(child)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_an_array_of_the_default_grid_trains_faster_than_the_plain_loop(capsys):
    text = re.sub(r"budget: .*", f"budget: {{steps: {STEPS}}}", grids.locate("digits").read_text())
    grid = grids.read(text, "digits")
    assert grid.budget.amount == STEPS
    array = plan.arrays(plan.runs(grid), lambda program: plan.suggested(program, "cpu"))[0]
    pictures = torch.randint(0, 256, (1618, 1, 16, 16), dtype=torch.uint8)

    def ours() -> float:
        start = time.perf_counter()
        list(train.train(array.program, array.runs, pictures))
        return STEPS * len(array.runs) / (time.perf_counter() - start)

    def theirs() -> float:
        d, g = plain.networks(16, 1, grid.recipe.channels, 100)
        start = time.perf_counter()

        def batches():
            for _ in range(STEPS):
                chosen = torch.randint(0, len(pictures), (64,))
                yield pictures[chosen].float().div_(127.5).sub_(1), torch.randn(64, 100)

        plain.train(d, g, list(batches()))
        return STEPS / (time.perf_counter() - start)

    rounds = [(ours(), theirs()) for _ in range(6)][1:]
    ratios = sorted(a / b for a, b in rounds)
    with capsys.disabled():
        print(
            f"\nrun-steps/s on one thread, median of 5: array of {len(array.runs)} "
            f"{statistics.median(a for a, _ in rounds):.0f}, plain loop {statistics.median(b for _, b in rounds):.0f}; "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    assert statistics.median(ratios) > 1
