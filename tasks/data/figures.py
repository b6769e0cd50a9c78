"""`figures`: stick figures on real photographs, whose limbs are strokes of handwritten digits.

Head is a handwritten 0, trunk, arms and legs are handwritten 1s, each turned and scaled so that
its ends lie on the key points. Left hands and feet lie on the right of the trunk: figures face
the viewer. Digits and regions of photographs are disjoint between training and validation. An
image is a function of (knobs, seed, split, index) alone. Written in COCO's layout of key points.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import require
from tasks.data.cache import cached
from tasks.data.digits import INK, digits
from tasks.data.opencv import cv2
from tasks.data.photos import crop
from tasks.data.scenes import SPLITS, drawn_in_order
from tasks.data.writers import Figure, write_coco_keypoints
from tasks.seeds import numpy_generator

REVISION = "1"
NAMES = ("head", "neck", "hip", "left_hand", "right_hand", "left_foot", "right_foot")
LIMBS = ((1, 2), (1, 3), (1, 4), (2, 5), (2, 6))
"""Pairs of key points that a stroke joins."""
SKELETON = ((0, 1), *LIMBS)
HEAD, TRUNK, ARM, LEG = 0.24, 0.34, 0.34, 0.42
"""Diameter of the head and lengths of the strokes, as shares of the figure's height."""
LEAN = 25.0
"""Degrees by which a figure may lean to either side."""
ARM_SWING, LEG_SWING = (25.0, 155.0), (6.0, 50.0)
"""Degrees by which arms and legs are spread, from hanging down."""
SMALLEST_PIXELS = 20
"""Height of the smallest figure: below, its strokes run into each other."""
ATTEMPTS = 40
Point = NDArray[np.float64]


@dataclass(frozen=True)
class Knobs:
    """What a set of figures is a function of; see `figures`."""

    size: int
    train: int
    val: int
    figures: tuple[int, int]
    ratio: float
    largest: float
    contrast: float
    seed: int

    def __post_init__(self) -> None:
        least = {"size": 32, "train": 1, "val": 1, "seed": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(name, value, whole and value >= minimum, f"an integer >= {minimum}")
        low, high = self.figures
        require("figures", self.figures, 1 <= low <= high <= 10, "(least, most), from 1 to 10")
        require("largest", self.largest, 0.3 <= self.largest <= 0.9, "from 0.3 to 0.9")
        most = self.largest * self.size / SMALLEST_PIXELS
        rule = f"from 1 to {most:.1f}, so that figures have at least {SMALLEST_PIXELS} pixels"
        require("ratio", self.ratio, 1 <= self.ratio <= most, rule)
        require("contrast", self.contrast, 0 <= self.contrast <= 1, "from 0 to 1")


def figures(
    *,
    size: int = 64,
    train: int = 2000,
    val: int = 300,
    figures: tuple[int, int] = (1, 2),
    ratio: float = 1.4,
    largest: float = 0.7,
    contrast: float = 0.7,
    seed: int = 0,
    root: Path | str | None = None,
    workers: int = 1,
) -> Path:
    """Return the folder of a generated set, in COCO's layout of key points, and write it once.

    Args:
        size: side of the images, in pixels.
        train: images for training.
        val: images for validation.
        figures: least and most figures in an image.
        ratio: largest over smallest figure; sizes are log-uniform. The knob of scale.
        largest: height of the largest figure, as a share of `size`.
        contrast: photos are dimmed to 1 − contrast of their brightness; less is harder.
        seed: of the set.
        root: folder of all generated sets; None for the cache folder.
        workers: threads that draw; the images do not depend on it.

    Raises:
        ValueError: a knob out of its range, with argument, value and rule.
        DataError: the folder cannot be written, or a source is missing.
    """
    counts = (int(figures[0]), int(figures[1]))
    knobs = Knobs(size, train, val, counts, float(ratio), float(largest), float(contrast), seed)
    require("workers", workers, workers >= 1, ">= 1")
    category = {
        "name": "figure",
        "keypoints": list(NAMES),
        "skeleton": [[a + 1, b + 1] for a, b in SKELETON],
    }

    def write(folder: Path) -> None:
        for split in SPLITS:
            count = knobs.train if split == "train" else knobs.val
            drawn = drawn_in_order(partial(render, knobs, split), count, workers)
            write_coco_keypoints(folder, split, category, drawn)

    return cached("figures", REVISION, asdict(knobs), write, root)


def render(knobs: Knobs, split: str, index: int) -> tuple[NDArray[np.uint8], list[Figure]]:
    """Draw one image (size, size, 3) and its figures, the topmost last.

    Example:
        >>> knobs = Knobs(64, 10, 10, (2, 2), 1.4, 0.7, 0.7, 0)
        >>> image, drawn = render(knobs, "val", 3)
        >>> image.shape, [figure.points.shape for figure in drawn]
        ((64, 64, 3), [(7, 3), (7, 3)])
    """
    rng = numpy_generator("figures", knobs.seed, split, index)
    canvas = crop(rng, split, knobs.size).astype(np.float32) * (1 - knobs.contrast)
    drawn: list[tuple[Point, NDArray[np.bool_]]] = []
    for _ in range(rng.integers(knobs.figures[0], knobs.figures[1] + 1)):
        height = knobs.largest * knobs.size * knobs.ratio ** -rng.uniform(0, 1)
        points = _placed(rng, height, knobs.size, [neighbour for neighbour, _ in drawn])
        ink = _inked(rng, points, height, split, knobs.size)
        tint = rng.uniform(0.6, 1, 3).astype(np.float32) * 255
        canvas += (ink.astype(np.float32) / 255)[..., None] * (tint - canvas)
        drawn.append((points, ink > INK))
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return image, [_seen(drawn, place) for place in range(len(drawn))]


def _placed(rng: np.random.Generator, height: float, size: int, others: list[Point]) -> Point:
    """Draw a pose and move it into the image, off the others as far as there is room."""
    pose = _pose(rng, height)
    low, high = pose.min(axis=0), pose.max(axis=0)
    margin = HEAD * height / 2 + 1
    # A figure that leans with its arms spread may be wider than it is high.
    shrunk = min(1.0, float((size - 1 - 2 * margin) / (high - low).max()))
    pose, low, high = shrunk * pose, shrunk * low, shrunk * high
    room = size - 1 - 2 * margin - (high - low)
    places = margin - low + rng.uniform(0, 1, (ATTEMPTS, 2)) * room
    apart = [
        min((float(np.hypot(*(pose + place - other).mean(axis=0))) for other in others), default=0)
        for place in places
    ]
    enough = next((i for i, far in enumerate(apart) if far >= height / 2), int(np.argmax(apart)))
    return np.asarray(pose + places[enough], dtype=np.float64)


def _pose(rng: np.random.Generator, height: float) -> Point:
    """Return the key points (7, 2) of a figure whose neck lies at the origin."""
    lean = np.deg2rad(rng.uniform(-LEAN, LEAN))

    def away(start: Point, length: float, spread: float) -> Point:
        """Go from a point, at an angle from hanging down; positive to the right of the image."""
        angle = np.deg2rad(spread) + lean
        return start + length * height * np.array([np.sin(angle), np.cos(angle)])

    neck = np.zeros(2)
    hip = away(neck, TRUNK, 0)
    head = away(neck, HEAD / 2, 180)
    arms, legs = rng.uniform(*ARM_SWING, 2), rng.uniform(*LEG_SWING, 2)
    return np.stack(
        [
            head,
            neck,
            hip,
            away(neck, ARM, arms[0]),
            away(neck, ARM, -arms[1]),
            away(hip, LEG, legs[0]),
            away(hip, LEG, -legs[1]),
        ]
    )


def _inked(
    rng: np.random.Generator, points: Point, height: float, split: str, size: int
) -> NDArray[np.uint8]:
    """Return the ink (size, size) of a figure: a 0 for the head, 1s for the limbs."""
    ones, zeros = _strokes(split), digits(split)[0]
    ink = np.zeros((size, size), dtype=np.uint8)
    for start, end in LIMBS:
        stroke, ends = ones[rng.integers(len(ones))]
        ink = np.maximum(ink, _warped(stroke, ends, points[[start, end]], size))
    ring = zeros[rng.integers(len(zeros))]
    middle, reach = (np.array(ring.shape[::-1]) - 1) / 2, ring.shape[0] / 2
    upright = middle + np.array([[0, -reach], [0, reach]])
    axis = (points[0] - points[1]) / np.hypot(*(points[0] - points[1])) * HEAD * height / 2
    onto = np.array([points[0] + axis, points[0] - axis])
    return np.maximum(ink, _warped(ring, upright, onto, size))


@cache
def _strokes(split: str) -> tuple[tuple[NDArray[np.uint8], Point], ...]:
    """Return the 1s of a split that are plain strokes, each with its two ends (2, 2)."""
    strokes = []
    for digit in digits(split)[1]:
        rows = np.arange(len(digit))
        ink = digit.astype(np.float64)
        middles = (ink * np.arange(digit.shape[1])).sum(axis=1) / np.maximum(ink.sum(axis=1), 1)
        slope, start = np.polyfit(rows, middles, 1)
        # A hook or a foot would be no limb.
        if np.abs(middles - (start + slope * rows)).max() < 1.5:
            ends = np.array([[start, 0.0], [start + slope * rows[-1], rows[-1]]])
            strokes.append((digit, ends))
    return tuple(strokes)


def _warped(image: NDArray[np.uint8], ends: Point, onto: Point, size: int) -> NDArray[np.uint8]:
    """Turn, scale and move a stroke so that its two ends come to lie on two points."""
    # As complex numbers a similarity is z → a·z + b.
    z, w = ends @ (1, 1j), onto @ (1, 1j)
    a = (w[1] - w[0]) / (z[1] - z[0])
    b = w[0] - a * z[0]
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return np.asarray(
        cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), dtype=np.uint8
    )


def _seen(drawn: list[tuple[Point, NDArray[np.bool_]]], place: int) -> Figure:
    """Return a figure as it is seen below those that were drawn after it."""
    points, ink = drawn[place]
    above = np.zeros_like(ink)
    for _, other in drawn[place + 1 :]:
        above |= other
    columns, rows = np.rint(points).astype(int).T
    visibility = np.where(above[rows, columns], 1.0, 2.0)
    # Of the hull, as a thin figure's own pixels say little of how large it is.
    hull = cv2.convexHull(points.astype(np.float32))
    labelled = np.concatenate([points, visibility[:, None]], axis=1)
    return Figure(ink & ~above, labelled, round(float(cv2.contourArea(hull)), 1))
