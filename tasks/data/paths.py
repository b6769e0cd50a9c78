"""`paths`: a probe of long-range vision, after Pathfinder (Linsley et al. 2018, arXiv 1805.08315).

Dashed curves wind over noise; a ring marks the start of one. That curve is to be told from the
others, pixel by pixel, which takes following it: every dash looks like every other, so a network
whose receptive field is shorter than the curve can only guess. Written in ADE20K's layout:
1 background, 2 target, 3 distractor; the ring itself is 0, ignored.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from tasks.data.cache import cached
from tasks.data.opencv import cv2
from tasks.data.scenes import SPLITS, drawn_in_order
from tasks.data.writers import write_ade20k
from tasks.seeds import numpy_generator

REVISION = "1"
CLASS_NAMES = ("background", "target", "distractor")
DASH = 4.0
"""Length of a dash, in pixels."""
GAP = 3.0
"""Pixels between two dashes of a curve."""
CLEARANCE = 5.0
"""Pixels between two curves: more than the gap, so that no curve seems to go on in another."""
WIDTH = 2
BEND = 0.35
"""Standard deviation, in radians, of the turn between two dashes."""
RING = 3
EDGE = 3
ATTEMPTS = 400


@dataclass(frozen=True)
class Knobs:
    """What a set of paths is a function of; see `paths`."""

    size: int
    train: int
    val: int
    length: int
    distractors: int
    seed: int

    def __post_init__(self) -> None:
        least = {"size": 32, "train": 1, "val": 1, "length": 2, "distractors": 0, "seed": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise UserError(f"`{name}` (={value!r}) must be an integer >= {minimum}.")
        # Each dash needs about its pitch times the clearance; more than half full never succeeds.
        room = int(0.3 * self.size**2 / ((DASH + GAP) * CLEARANCE)) // (self.distractors + 1)
        if self.length > room:
            raise UserError(
                f"`length` (={self.length}) must be at most {room} for {self.distractors} "
                f"`distractors` in {self.size} pixels of `size`."
            )


def paths(
    *,
    size: int = 64,
    train: int = 2000,
    val: int = 300,
    length: int = 8,
    distractors: int = 2,
    seed: int = 0,
    root: Path | str | None = None,
    workers: int = 1,
) -> Path:
    """Return the folder of a generated set, in ADE20K's layout, and write it once.

    Args:
        size: side of the images, in pixels.
        train: images for training.
        val: images for validation.
        length: dashes of a curve, 7 pixels each: the range that must be seen.
        distractors: curves beside the target.
        seed: of the set.
        root: folder of all generated sets; None for the cache folder.
        workers: threads that draw; the images do not depend on it.

    Raises:
        ValueError: a knob out of its range, with argument, value and rule.
        DataError: the folder cannot be written.
    """
    knobs = Knobs(size, train, val, length, distractors, seed)
    if workers < 1:
        raise UserError(f"`workers` (={workers!r}) must be >= 1.")

    def write(folder: Path) -> None:
        for split in SPLITS:
            count = knobs.train if split == "train" else knobs.val
            drawn = drawn_in_order(partial(render, knobs, split), count, workers)
            write_ade20k(folder, split, CLASS_NAMES, drawn)

    return cached("paths", REVISION, asdict(knobs), write, root)


def render(knobs: Knobs, split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one image (size, size, 3) and its mask (size, size).

    Example:
        >>> image, mask = render(Knobs(64, 1, 1, 8, 2, 0), "train", 0)
        >>> image.shape, sorted(set(mask.ravel().tolist()))
        ((64, 64, 3), [0, 1, 2, 3])
    """
    rng = numpy_generator("paths", knobs.seed, split, index)
    curves = _curves(rng, knobs)
    ink = np.zeros((knobs.size, knobs.size), dtype=np.uint8)
    mask = np.ones_like(ink)
    for position, curve in enumerate(curves):
        for dash in curve:
            stroke = np.zeros_like(ink)
            tail, head = dash.ends()
            cv2.line(stroke, _fixed(tail), _fixed(head), 255, WIDTH, cv2.LINE_AA, shift=4)
            mask[stroke > 96] = 2 if position == 0 else 3
            ink = np.maximum(ink, stroke)
    ring = np.zeros_like(ink)
    cv2.circle(ring, _fixed(curves[0][0].ring()), RING * 16, 255, 1, cv2.LINE_AA, shift=4)
    mask[ring > 0] = 0
    ink = np.maximum(ink, ring)
    noise = rng.normal(60, 12, (knobs.size, knobs.size, 1))
    grey = noise + (200 - noise) * (ink[..., None] / 255)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8).repeat(3, axis=2), mask


Point = tuple[float, float]


@dataclass(frozen=True)
class _Dash:
    x: float
    y: float
    heading: float

    def along(self, distance: float) -> Point:
        return (
            self.x + distance * math.cos(self.heading),
            self.y + distance * math.sin(self.heading),
        )

    def ends(self) -> tuple[Point, Point]:
        return self.along(-DASH / 2), self.along(DASH / 2)

    def ring(self) -> Point:
        """Return the middle of the ring before this dash."""
        return self.along(-DASH / 2 - RING - 1)


def _fixed(point: Point) -> tuple[int, int]:
    """Return a point in OpenCV's fixed-point coordinates of 1/16 pixel."""
    return round(point[0] * 16), round(point[1] * 16)


def _curves(rng: np.random.Generator, knobs: Knobs) -> list[list[_Dash]]:
    """Return the target and the distractors, clear of each other."""
    for _ in range(ATTEMPTS):
        blocked = np.ones((knobs.size, knobs.size), dtype=np.uint8)
        blocked[EDGE:-EDGE, EDGE:-EDGE] = 0
        curves: list[list[_Dash]] = []
        while len(curves) <= knobs.distractors:
            curve = _curve(rng, knobs, blocked, ring=not curves)
            if curve is None:
                break
            taken = [point for dash in curve for point in (*dash.ends(), (dash.x, dash.y))]
            for point in taken if curves else [*taken, curve[0].ring()]:
                cv2.circle(blocked, _fixed(point), round(CLEARANCE * 16), 1, -1, shift=4)
            curves.append(curve)
        else:
            return curves
    raise UserError(
        f"`length` (={knobs.length}) of {knobs.distractors + 1} curves does not fit into "
        f"`size` (={knobs.size})."
    )


def _curve(
    rng: np.random.Generator, knobs: Knobs, blocked: NDArray[np.uint8], ring: bool
) -> list[_Dash] | None:
    """Grow a curve that keeps clear of what is blocked and of itself."""

    def free(*points: Point) -> bool:
        return all(
            0 <= y <= knobs.size - 1
            and 0 <= x <= knobs.size - 1
            and not blocked.item(round(y), round(x))
            for x, y in points
        )

    for _ in range(30):
        x, y = rng.uniform(EDGE, knobs.size - EDGE, 2).tolist()
        first = _Dash(x, y, rng.uniform(0, 2 * math.pi))
        if not free((x, y), *first.ends()) or (ring and not free(first.ring())):
            continue
        curve = [first]
        avoided = [first.ring()]
        while len(curve) < knobs.length:
            last = curve[-1]
            # A curve that is hemmed in may turn more sharply.
            for bend in (BEND, BEND, BEND, 2 * BEND, 2 * BEND, 3 * BEND):
                turned = last.heading + bend * rng.normal()
                # Along the bisecting direction, so that the gap keeps its length.
                middle = (last.heading + turned) / 2
                x = last.x + (DASH + GAP) * math.cos(middle)
                y = last.y + (DASH + GAP) * math.sin(middle)
                dash = _Dash(x, y, turned)
                apart = all(math.hypot(x - u, y - v) >= DASH + GAP for u, v in avoided)
                if apart and free((x, y), *dash.ends()):
                    avoided.append((last.x, last.y))
                    curve.append(dash)
                    break
            else:
                break
        if len(curve) == knobs.length:
            return curve
    return None
