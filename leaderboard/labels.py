"""Where the labels of a plot's points stand: inside it, and never on one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CHARACTER, LABEL_HEIGHT = 7.5, 16.0
"""Width of a character of a label (a wide one, at 13 px) and the height of a line, in pixels."""
LABELLED = 40
"""Points that get a label; the others are known by pointing at them, and by the table."""
RINGS = (11.0, 24.0, 40.0, 60.0)
"""How far from its point a label may stand, in pixels, the liked places first."""
SIDES = ((1, -0.7), (1, 0), (1, 0.7), (-1, -0.7), (-1, 0.7), (-1, 0), (0, -1.3), (0, 1.3))
"""Where a label may stand: right (1), left (-1) or in the middle; and how far down."""


class Box(NamedTuple):
    """A rectangle of the plot, in pixels; y runs downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, *others: Box) -> float:
        """Return the area that the box shares with others, in square pixels."""
        left, top, right, bottom = self
        area = 0.0
        for other in others:
            # most boxes lie apart, and this is where the time of a drawing goes
            if other[0] < right and other[2] > left and other[1] < bottom and other[3] > top:
                width = min(right, other[2]) - max(left, other[0])
                area += width * (min(bottom, other[3]) - max(top, other[1]))
        return area

    def inside(self, other: Box) -> bool:
        """Tell whether the box lies in another."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Label:
    """A label in its place, and whether a line leads to it."""

    text: str
    box: Box
    leader: bool


def shortened(text: str, length: int) -> str:
    """Return a text of at most so many characters.

    Example:
        >>> shortened("a name that is long", 8)
        'a name …'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def place_labels(
    spots: Sequence[tuple[float, float]],
    texts: Sequence[str],
    thin: Sequence[Box],
    plot: Box,
) -> list[Label | None]:
    """Give each point the place for its label that covers least of points and intervals.

    Args:
        spots: of the points, in pixels, the most important first: they choose first.
        texts: of the labels, in the same order.
        thin: intervals, which a label may touch, rather not.
        plot: no label leaves it.

    Returns:
        For each point its label, or None where there is no place free of other labels.

    Example:
        >>> plot = Box(0, 0, 200, 100)
        >>> first, second = place_labels([(50, 50), (52, 50)], ["one", "two"], [], plot)
        >>> first.box.overlap(second.box)
        0.0
    """
    points = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    taken: list[Box] = []
    labels: list[Label | None] = []
    for (x, y), text in zip(spots[:LABELLED], texts, strict=False):
        width = CHARACTER * len(text)
        best: tuple[float, Label] | None = None
        for ring, radius in enumerate(RINGS):
            for side, down in SIDES:
                left = x + side * radius - (0.0, 0.5 * width, width)[(side == 0) + 2 * (side < 0)]
                middle = y + down * (radius + 2)
                box = Box(left, middle - LABEL_HEIGHT / 2, left + width, middle + LABEL_HEIGHT / 2)
                if not box.inside(plot) or box.overlap(*taken):
                    continue
                cost = 150.0 * ring + 4 * box.overlap(*points) + box.overlap(*thin)
                if best is None or cost < best[0]:
                    best = cost, Label(text, box, ring > 0)
            if best is not None and best[0] < 150.0 * ring + 60:
                break  # the next ring would be dearer
        labels.append(best[1] if best else None)
        if best:
            taken.append(best[1].box)
    return labels + [None] * (len(spots) - len(labels))
