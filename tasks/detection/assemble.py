"""From what annotations say to images with boxes: coordinates are checked, mended and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from tasks.detection.boxes import BoxImage
from tasks.detection.outlines import ROUNDING, Segmentation

INVERTED = "inverted box"
FLAT = "box without area"
OUTSIDE = "box outside of the image"
CUT = "box cut at the border"
ROUNDED = "box cut at the border by at most a pixel"
AREA = "area larger than the image: the box's"


@dataclass(frozen=True)
class Objects:
    """The n objects of a split, in the order of the annotations.

    Attributes:
        image: (n), the place of each one's image among the images.
        boxes: (n, 4) as (x1, y1, x2, y2), finite, in pixels.
        labels: (n) from 0.
        crowd: (n).
        area: (n), in pixels; not a number where the box's is to be taken.
        segmentations: (n), or None where they are not wanted.
        name: place of an object → what messages call its box, such as "annotation 3 of a.json:
            `bbox`".
    """

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    name: Callable[[int], str]
    segmentations: Sequence[Segmentation] | None = None


def assemble(
    paths: Sequence[Path], sizes: Sequence[tuple[int, int]], objects: Objects
) -> tuple[tuple[BoxImage, ...], Counter[str]]:
    """Give every image its objects, and count what was left out or mended.

    Left out are boxes that are inverted, without area, or outside of their image; boxes that
    leave it are cut at its border; those that do by at most a pixel, as sets round, are counted
    apart.

    Args:
        paths: of the images.
        sizes: (height, width) of each.
        objects: of all of them.

    Raises:
        DataError: a box farther outside of its image than the image is large: that is no box of
            this image.
    """
    sides = np.array(sizes, dtype=np.float64).reshape(-1, 2)[objects.image]
    high, boxes = sides[:, [1, 0, 1, 0]], objects.boxes
    far = ((boxes < -high) | (boxes > 2 * high)).any(axis=1)
    if far.any():
        first = int(far.argmax())
        height, width = sizes[objects.image[first]]
        raise DataError(
            f"{objects.name(first)} must lie no farther outside of the image than its own "
            f"{width}×{height} pixels; {far.sum()} boxes do."
        )
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    flat = ~inverted & (boxes[:, 2:] == boxes[:, :2]).any(axis=1)
    sound = ~inverted & ~flat
    outside = sound & ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= high[:, :2])).any(axis=1)
    keep = sound & ~outside
    excess = np.maximum(-boxes, boxes - high).max(axis=1, initial=0)
    cut, rounded = keep & (excess > ROUNDING), keep & (excess > 0) & (excess <= ROUNDING)
    boxes = np.where(keep[:, None], np.clip(boxes, 0, high), boxes)
    of_box = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    too_large = keep & (objects.area > sides.prod(axis=1))
    marks = {INVERTED: inverted, FLAT: flat, OUTSIDE: outside, CUT: cut, ROUNDED: rounded}
    marks[AREA] = too_large
    repairs = Counter({reason: int(mark.sum()) for reason, mark in marks.items() if mark.any()})
    area = np.where(too_large | np.isnan(objects.area), of_box, objects.area)
    order = np.flatnonzero(keep)[np.argsort(objects.image[keep], kind="stable")]
    starts = np.searchsorted(objects.image[order], np.arange(len(paths) + 1))
    images = []
    for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        rows = order[starts[index] : starts[index + 1]]
        segmentations = objects.segmentations
        images.append(
            BoxImage(
                path,
                size,
                boxes[rows],
                objects.labels[rows],
                objects.crowd[rows],
                area[rows],
                None if segmentations is None else tuple(segmentations[row] for row in rows),
            )
        )
    return tuple(images), repairs
