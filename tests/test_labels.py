"""Labels of a scatter plot: no two in one place, none over a mark, and each beside its own mark or led to it."""

import itertools
import math
from dataclasses import replace

import fake_results
import numpy as np
import pytest

from bench import charts
from bench.analyse import analyse
from bench.drawing import styled
from bench.labels import RADIUS, Box, around, beside, near
from bench.results import load

FRAME = Box(0, 0, 500, 330)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "mine"
    return analyse(load(fake_results.write(folder, samples=False, curves=False)))


def box_of(mark, label, size) -> Box:
    x, y = mark[0] + label.x, mark[1] + label.y
    return Box(x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)


def cloud(seed: int, count: int = 20, spread: float = 30):
    random = np.random.default_rng(seed)
    near_one = random.normal((200, 150), spread, (count, 2))
    return [tuple(map(float, mark)) for mark in np.clip(near_one, 10, 320)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread", [8, 30, 90])
def test_no_label_lies_over_a_mark_or_another_label(seed, spread):
    marks = cloud(seed, spread=spread)
    sizes = [(5.0 * (3 + i % 20), 9.0) for i in range(len(marks))]
    taken: list[Box] = []
    names = beside(marks, sizes, taken, FRAME)
    crowded = [i for i, place in enumerate(names) if place is None]
    rest = [around(*mark) for i, mark in enumerate(marks) if i not in crowded]
    digits = [(11.0, 9.0)] * len(crowded)
    numbers = near([marks[i] for i in crowded], digits, taken + rest, FRAME)
    boxes = [box_of(marks[i], place, sizes[i]) for i, place in enumerate(names) if place]
    boxes += [box_of(marks[i], place, (11.0, 9.0)) for i, place in zip(crowded, numbers, strict=True)]
    smaller = [Box(b.left + 1e-6, b.bottom + 1e-6, b.right - 1e-6, b.top - 1e-6) for b in boxes]
    assert not any(a.meets(b) for a, b in itertools.combinations(smaller, 2))
    assert not any(box.meets(around(*mark)) for box in smaller for mark in marks)
    assert all(box.within(FRAME) for box in boxes)


def test_a_mark_alone_has_its_name_at_its_right_side():
    [label] = beside([(200.0, 100.0)], [(50.0, 9.0)], [], FRAME)
    assert (label.x, label.y, label.led) == (RADIUS + 2 + 25, 0, False)


def test_a_name_keeps_off_what_is_taken_and_off_the_edge():
    [label] = beside([(200.0, 100.0)], [(50.0, 9.0)], [Box(204, 90, 300, 110)], FRAME)
    assert label.x < 0
    [label] = beside([(480.0, 100.0)], [(50.0, 9.0)], [], FRAME)
    assert label.x < 0
    assert beside([(250.0, 100.0)], [(math.inf, 9.0)], [], FRAME) == [None]


def test_a_number_without_a_line_is_nearer_to_its_own_mark_than_to_any_other():
    marks = cloud(3, 12, 9)
    for mark, label in zip(marks, near(marks, [(11.0, 9.0)] * 12, [], FRAME), strict=True):
        x, y = mark[0] + label.x, mark[1] + label.y
        assert label.led or all(math.dist((x, y), mark) <= math.dist((x, y), other) for other in marks)


def test_every_arm_of_the_cost_chart_is_named_once_even_where_all_stand_in_one_place(made):
    crowd = [replace(e, arm=replace(e.arm, name=f"{e.arm.name}{i}")) for e in made.effects for i in range(4)]
    with styled():
        chart = charts.cost(replace(made, effects=tuple(crowd)))
    assert "A number stands where a name had no room" in chart.caption
    for effect in crowd:
        assert chart.svg.count(f">{effect.arm.name}<") + chart.svg.count(f">{effect.arm.name} ×") == 1


def test_what_fails_does_not_squeeze_the_rest_of_the_cost_chart(made):
    low, high = charts._cost_limits([replace(e, verdict="unstable") for e in made.effects])
    assert 0.7 < low < 1 < high < 1.5
