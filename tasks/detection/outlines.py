"""COCO's `segmentation`: polygons or run lengths of an object, checked and decoded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Segmentation = Any
"""A list of polygons [x, y, x, y, …], or {"size": [height, width], "counts": list or text}."""

SHORT = "polygon of fewer than six numbers"
OUTSIDE = "polygon cut at the border"
EMPTY = "object without a mask"
NUMBERS = frozenset((int, float))
"""Booleans are others."""
ROUNDING = 1.0
"""Pixels by which coordinates may lie outside without being counted: those of COCO are rounded."""


class OutlineError(ValueError):
    """The rule that a segmentation breaks."""


def decode(segmentation: Segmentation, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (height, width) of a COCO segmentation.

    Example:
        >>> decode([[0, 0, 2, 0, 2, 2, 0, 2]], 3, 3).sum()
        np.int64(4)
        >>> decode({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    from faster_coco_eval.core import mask as coco_mask

    runs = segmentation
    if isinstance(segmentation, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = coco_mask.frPyObjects(segmentation, height, width)
    return np.asarray(coco_mask.decode(runs), dtype=np.bool_)


def box_of_polygons(value: Any) -> list[float] | None:
    """Return the [x, y, width, height] around polygons, or None if these are none.

    Example:
        >>> box_of_polygons([[0, 1, 2, 1, 2, 4]])
        [0.0, 1.0, 2.0, 3.0]
    """
    if not isinstance(value, list) or not value:
        return None
    for polygon in value:
        numbers = isinstance(polygon, list) and all(type(part) in NUMBERS for part in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            return None
    points = [float(part) for polygon in value for part in polygon]
    if not all(map(math.isfinite, points)):
        return None
    xs, ys = points[::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def mended(value: Any, height: int, width: int) -> tuple[Segmentation | None, list[str]]:
    """Return a segmentation that can be decoded, and what was mended; None if nothing is left.

    Raises:
        OutlineError: what is wrong and cannot be mended.

    Example:
        >>> mended([[0, 0, 2, 0, 2, 2], [1, 1]], 4, 4)
        ([[0, 0, 2, 0, 2, 2]], ['polygon of fewer than six numbers'])
    """
    if isinstance(value, dict):
        return _run_lengths(value, height, width)
    if not isinstance(value, list):
        raise OutlineError("polygons, or run lengths with `size` and `counts`")
    polygons, repairs = [], []
    for polygon in value:
        if not isinstance(polygon, list):
            raise OutlineError("a list of polygons, each a list of numbers")
        if not NUMBERS.issuperset(map(type, polygon)):
            raise OutlineError("polygons of numbers")
        if len(polygon) < 6:
            repairs.append(SHORT)
            continue
        if len(polygon) % 2:
            raise OutlineError("polygons of pairs of numbers")
        if _outside(polygon, height, width) > ROUNDING:
            repairs.append(OUTSIDE)
        polygons.append(polygon)
    return (polygons, repairs) if polygons else (None, [*repairs, EMPTY])


def _outside(polygon: list[float], height: int, width: int) -> float:
    """Return by how many pixels a polygon leaves the image; drawing needs memory by its length."""
    xs, ys = polygon[0::2], polygon[1::2]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    if low_x < -width or high_x > 2 * width or low_y < -height or high_y > 2 * height:
        raise OutlineError(
            f"polygons no farther outside of the image than its own {width}×{height} pixels"
        )
    if math.isnan(sum(xs) + sum(ys)):
        raise OutlineError("polygons of finite numbers")
    return max(-low_x, high_x - width, -low_y, high_y - height)


def _run_lengths(
    value: dict[str, Any], height: int, width: int
) -> tuple[Segmentation | None, list[str]]:
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width] or not all(type(x) is int for x in size):
        raise OutlineError(f"run lengths of `size` [{height}, {width}], that of the image")
    if isinstance(counts, list):
        if not all(type(x) is int and x >= 0 for x in counts):
            raise OutlineError("run lengths of integers >= 0")
        if sum(counts) != height * width:
            raise OutlineError(f"run lengths of {height * width} pixels in all")
    elif not isinstance(counts, str):
        raise OutlineError("run lengths with `counts`, a list or a text")
    try:
        mask = decode(value, height, width)
    except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise OutlineError(f"run lengths that can be decoded ({error})") from None
    return (value, []) if mask.any() else (None, [EMPTY])
