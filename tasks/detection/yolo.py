"""YOLO's format: for each image a text file with a line an object.

A line is `class x y width height`, the centre and size as shares of the upright image, or
`class x1 y1 x2 y2 …`, an outline, whose box is taken. Behind a box there may be key points,
`px py` or `px py visibility` each, which are not read. An image without a file has no objects.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import DataError
from tasks.data.images import size_or_largest
from tasks.data.lists import TWICE as IMAGE_TWICE
from tasks.data.lists import read_lines
from tasks.data.locations import shortened
from tasks.detection.assemble import Objects, assemble
from tasks.detection.boxes import BoxSet, require_images
from tasks.layouts.yolo import Yolo, label_file, read_layout

NO_FILE = "image without a file of labels: no objects"
TWICE = "object listed twice"
OUTLINE = "outline, of which the box is taken"
POINTS = "box with key points, which are not read"
MOST_OUTSIDE = 1.0
"""Shares of the image by which a coordinate may lie outside; more are pixels, not shares."""


@dataclass(frozen=True)
class _Object:
    image: int
    box: tuple[float, float, float, float]
    label: int
    name: str


def read_yolo(root: Path, split: str) -> BoxSet:
    """Read one split.

    Args:
        root: the folder that holds data.yaml, as `tasks.layouts.yolo` finds it.
        split: "train", "val" or "test".

    Raises:
        DataError: what is missing or malformed, by file, line and field.
    """
    layout = read_layout(root)
    if split not in layout.splits:
        raise DataError(
            f"The data.yaml in `root` (={str(root)!r}) names no `{split}`. `val_share` draws the "
            "scored images of a set without splits."
        )
    paths = list(dict.fromkeys(layout.splits[split]))
    repairs = Counter({IMAGE_TWICE: len(layout.splits[split]) - len(paths)})
    sizes = [size_or_largest(path) for path in paths]
    objects = [
        one
        for image, path in enumerate(paths)
        for one in _read(label_file(path, root), image, layout, repairs)
    ]
    sides = np.array(sizes, dtype=np.float64).reshape(-1, 2)[:, ::-1]
    image = np.array([o.image for o in objects], dtype=np.int64)
    boxes = np.array([o.box for o in objects], dtype=np.float64).reshape(-1, 4)
    images, of_boxes = assemble(
        paths,
        sizes,
        Objects(
            image,
            boxes * np.tile(sides[image], 2),
            np.array([o.label for o in objects], dtype=np.int64),
            np.zeros(len(objects), dtype=np.bool_),
            np.full(len(objects), np.nan),
            lambda i: objects[i].name,
        ),
    )
    require_images(images, f"{split} of {root.name}")
    skipped = {reason: count for reason, count in (repairs + of_boxes).items() if count}
    return BoxSet(images, layout.class_names, skipped)


def _read(file: Path, image: int, layout: Yolo, repairs: Counter[str]) -> list[_Object]:
    """Read the objects of an image, as shares of it."""
    classes = len(layout.class_names)
    if not file.is_file():
        repairs[NO_FILE] += 1
        return []
    objects = []
    known: set[tuple[float, ...]] = set()
    for number, line in enumerate(read_lines(file), start=1):
        words = line.split()
        if not words:
            continue
        what = f"line {number} of {file.name}"
        row = tuple(_number(word, what) for word in words)
        label, place = row[0], row[1:]
        if label != int(label) or not 0 <= label < classes:
            raise DataError(
                f"{what}: `class` (={shortened(words[0])}) must be from 0 to {classes - 1}."
            )
        posed = len(place) > 4 and (len(place) == 4 + layout.point_numbers or _has_points(place))
        if len(place) != 4 and not posed and (len(place) < 6 or len(place) % 2):
            raise DataError(
                f"{what} (={shortened(line)}) must be class, x, y, width, height, or a class and "
                "the points of an outline."
            )
        if any(abs(value) > 1 + MOST_OUTSIDE for value in place):
            raise DataError(
                f"{what} (={shortened(line)}) must hold shares of the image, from 0 to 1."
            )
        if row in known:
            repairs[TWICE] += 1
            continue
        known.add(row)
        repairs[POINTS] += posed
        repairs[OUTLINE] += len(place) > 4 and not posed
        place = place[:4] if posed else place
        objects.append(_Object(image, _corners(place), int(label), what))
    return objects


def _has_points(place: tuple[float, ...]) -> bool:
    """Say whether numbers are a box and key points in it, with their visibility.

    Example:
        >>> _has_points((0.5, 0.5, 0.4, 0.4, 0.4, 0.6, 2.0, 0.0, 0.0, 0.0))
        True
        >>> _has_points((0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.5, 0.95, 0.1, 0.9))
        False
    """
    if len(place) < 7 or (len(place) - 4) % 3:
        return False
    left, top, right, bottom = _corners(place[:4])
    points = [place[start : start + 3] for start in range(4, len(place), 3)]
    fits = all(
        (x, y, v) == (0, 0, 0) or (v in (1, 2) and left <= x <= right and top <= y <= bottom)
        for x, y, v in points
    )
    # A visibility of 2 would be a whole image outside; an outline of 0s and 1s may be one.
    return fits and (any(v == 2 for _, _, v in points) or not any(place[4:]))


def _corners(place: tuple[float, ...]) -> tuple[float, float, float, float]:
    if len(place) == 4:
        x, y, width, height = place
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(place[::2]), min(place[1::2]), max(place[::2]), max(place[1::2])


def _number(word: str, what: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{what}: a number (={shortened(word)}) must be finite.")
    return number
