"""Where the labels of a scatter plot stand: by the mark where a name has room, else a number that a list explains."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle; lengths here are all in points."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "Box") -> bool:
        """Say whether the two have more than an edge in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def within(self, frame: "Box") -> bool:
        """Say whether all of it lies in the frame."""
        across = frame.left <= self.left and self.right <= frame.right
        return across and frame.bottom <= self.bottom and self.top <= frame.top


class Label(NamedTuple):
    """A label's middle as an offset from its mark, and whether it stands so far off that a line must lead to it."""

    x: float
    y: float
    led: bool


Size = tuple[float, float]  # width, height
REACH = (9, 13, 18, 24, 31, 39, 48, 58, 70)  # how far numbers are moved away from their marks
RADIUS = 4.5  # of a mark with some air


def around(x: float, y: float, half: float = RADIUS) -> Box:
    """Return the square around a point."""
    return Box(x - half, y - half, x + half, y + half)


def beside(marks: Sequence[Size], sizes: Sequence[Size], taken: list[Box], frame: Box) -> list[Label | None]:
    """Return for each mark, the most important first, where its name touches it and nothing else; None without room.

    marks: their middles. taken: what no name may cover, such as intervals; the names that found room join it.
    """
    found: list[Label | None] = []
    others = [around(*mark) for mark in marks]
    for mark, size in zip(marks, sizes, strict=True):
        box = next((b for b in _touching(mark, size) if _free(b, [*others, *taken], frame)), None)
        if box:
            taken.append(box)
        found.append(box and _label(mark, box, False))
    return found


def near(marks: Sequence[Size], sizes: Sequence[Size], taken: list[Box], frame: Box) -> list[Label]:
    """Return where small labels stand: as near as there is room, else at the mark's side on whatever is there.

    A label that might be another mark's has a line to its own, over no other mark and no label where that can be.
    """
    found, fixed = [], len(taken)
    others = [around(*mark) for mark in marks]
    for i, (mark, size) in enumerate(zip(marks, sizes, strict=True)):
        strangers = others[:i] + others[i + 1 :]
        free = [(box, led) for box, led in _rings(mark, size) if _free(box, [*others, *taken], frame)]
        clear = (
            (box, led)
            for box, led in free
            if (led and _free_line(_line(mark, box), [*strangers, *taken[fixed:]]))
            or (not led and all(_apart(box, other) >= _apart(box, others[i]) + 2 for other in strangers))
        )
        led_anyhow = next(((box, led) for box, led in free if led), None)
        box, led = next(clear, led_anyhow) or (next(_touching(mark, size)), False)
        taken += [box, *(_line(mark, box) if led else [])]
        found.append(_label(mark, box, led))
    return found


def _label(mark: Size, box: Box, led: bool) -> Label:
    return Label((box.left + box.right) / 2 - mark[0], (box.bottom + box.top) / 2 - mark[1], led)


def _free(box: Box, taken: Sequence[Box], frame: Box) -> bool:
    return box.within(frame) and not any(box.meets(other) for other in taken)


def _touching(mark: Size, size: Size) -> Iterator[Box]:
    """Yield the places at a mark's sides, then those at its corners, then above and below it."""
    (x, y), (wide, tall) = mark, size
    for up in (0.0, 0.6, -0.6, 1.0, -1.0):  # of the way to standing clear of the mark's height
        for side in (1, -1):
            out = RADIUS + 2 if abs(up) < 1 else 0  # a corner's label may begin above the mark
            yield _box(x + side * (out + wide / 2), y + up * (RADIUS + tall / 2), size)
    for side in (1, -1):
        yield _box(x, y + side * (RADIUS + tall / 2), size)


def _rings(mark: Size, size: Size) -> Iterator[tuple[Box, bool]]:
    """Yield the places around a mark, ever further, and whether a line must lead there."""
    for reach in REACH:
        led = reach > REACH[0]
        for part in (0, 8, 2, 6, 14, 10, 1, 7, 15, 9, 3, 5, 13, 11) + (
            () if led else (4, 12)
        ):  # no line on an interval
            angle = part * math.pi / 8
            middle = mark[0] + (reach + size[0] / 4) * math.cos(angle), mark[1] + reach * math.sin(angle)
            yield _box(*middle, size), led


def _box(x: float, y: float, size: Size) -> Box:
    wide, tall = size
    return Box(x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)


def _apart(a: Box, b: Box) -> float:
    """Return how far the nearest points of two rectangles are apart."""
    across = max(0.0, a.left - b.right, b.left - a.right)
    return math.hypot(across, max(0.0, a.bottom - b.top, b.bottom - a.top))


def _line(mark: Size, box: Box) -> list[Box]:
    """Return the straight line from a mark to its label as a row of small squares, without its ends."""
    x, y = (box.left + box.right) / 2, (box.bottom + box.top) / 2
    parts = [i / 16 for i in range(1, 16)]
    row = [around(mark[0] + t * (x - mark[0]), mark[1] + t * (y - mark[1]), 0.4) for t in parts]
    return [dot for dot in row if not dot.meets(box) and not dot.meets(around(*mark))]


def _free_line(line: Sequence[Box], taken: Sequence[Box]) -> bool:
    return not any(dot.meets(other) for dot in line for other in taken)
