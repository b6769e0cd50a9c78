"""Where the labels of a plot's points stand, so that they cover little of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 760, 400
"""Of the plot, in pixels; the width is that of a usual window."""
CHARACTER, LABEL_HEIGHT = 7.2, 16
"""Width of a character of a label and its height, in pixels, nearly."""
SIDES = {
    "upper right": ("left", 8, -13),
    "right": ("left", 11, 0),
    "lower right": ("left", 8, 13),
    "upper left": ("right", -8, -13),
    "lower left": ("right", -8, 13),
    "left": ("right", -11, 0),
    "above": ("center", 0, -16),
    "below": ("center", 0, 16),
}
"""Where a label may stand, the liked places first: its alignment and its shift in pixels."""


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    top: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def place_labels(points: list[dict[str, Any]], x: list[float], y: list[float]) -> None:
    """Give each point the side of its label that covers least of points, labels and the edge."""

    def across(value: float) -> float:
        return WIDTH * (value - x[0]) / (x[1] - x[0])

    def down(value: float) -> float:
        return HEIGHT * (y[1] - value) / (y[1] - y[0])

    spots = [(across(p["x"]), down(p["y"])) for p in points]
    taken = [_Box(px - 8, px + 8, py - 8, py + 8) for px, py in spots]
    # intervals are thin obstacles: a label may touch one, rather not
    thin = []
    for point, (px, py) in zip(points, spots, strict=True):
        thin.append(_Box(across(point["x_low"]), across(point["x_high"]), py - 1, py + 1))
        if point["y_low"] is not None:
            thin.append(_Box(px - 1, px + 1, down(point["y_high"]), down(point["y_low"])))
    for point, (px, py) in zip(points, spots, strict=True):
        width = CHARACTER * len(point["text"])
        best: tuple[float, str, _Box] | None = None
        for side, (align, dx, dy) in SIDES.items():
            left = px + dx - {"left": 0.0, "center": 0.5, "right": 1.0}[align] * width
            middle = py + dy
            box = _Box(left, left + width, middle - LABEL_HEIGHT / 2, middle + LABEL_HEIGHT / 2)
            outside = max(0.0, -box.left) + max(0.0, box.right - WIDTH)
            outside += max(0.0, -box.top) + max(0.0, box.bottom - HEIGHT)
            cost = 30 * outside + sum(box.overlap(other) for other in taken)
            cost += 2 * sum(box.overlap(other) for other in thin)
            if best is None or cost < best[0]:
                best = (cost, side, box)
        assert best is not None
        point["side"] = best[1]
        taken.append(best[2])
