"""A set of images with boxes, as read from disk: what every reader returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

Segmentation = Any
"""COCO's `segmentation`: polygons, or run lengths (compressed or not)."""


@dataclass(frozen=True)
class BoxImage:
    """One image and its objects, in pixels of the file.

    Attributes:
        path: of the image.
        size: (height, width).
        boxes: (n, 4) as (x1, y1, x2, y2).
        labels: (n) from 0.
        crowd: (n), regions that are neither right nor wrong to detect.
        area: (n), of the object (its mask, where the set says so), in pixels.
        segmentations: one for each box, or None where the set has none.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    segmentations: tuple[Segmentation, ...] | None = None

    def masks(self) -> NDArray[np.bool_]:
        """Decode the segmentations to (n, height, width)."""
        height, width = self.size
        if not self.segmentations:
            return np.zeros((0, height, width), dtype=np.bool_)
        return np.stack([decode(s, height, width) for s in self.segmentations])


@dataclass(frozen=True)
class BoxSet:
    """Images in the order in which they are scored.

    Attributes:
        images: all of them.
        class_names: in the order of the labels.
        skipped: reason → annotations left out.
    """

    images: tuple[BoxImage, ...]
    class_names: tuple[str, ...]
    skipped: dict[str, int]

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the set of some of the images."""
        return replace(self, images=tuple(self.images[i] for i in indices))

    @property
    def has_masks(self) -> bool:
        """Whether every image with objects has their segmentations."""
        return all(i.segmentations is not None for i in self.images if len(i.boxes))


def make_image(
    path: Path,
    size: tuple[int, int],
    rows: Sequence[tuple[Sequence[float], int, bool, float]],
    segmentations: Sequence[Segmentation] | None = None,
) -> BoxImage:
    """Return an image from rows of ((x1, y1, x2, y2), label, crowd, area)."""
    return BoxImage(
        path,
        size,
        np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.bool_),
        np.array([row[3] for row in rows], dtype=np.float64),
        None if segmentations is None else tuple(segmentations),
    )


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


def require_images(images: Sequence[BoxImage], source: str) -> None:
    """DataError unless there are images, all of their files are there, and an object is."""
    if not images:
        raise DataError(f"{source} has no images.")
    missing = [image.path for image in images if not image.path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(images)} images of {source} are not there, "
            f"the first is {missing[0].name} in {missing[0].parent}."
        )
    if not any(len(image.boxes) for image in images):
        raise DataError(f"{source} has no objects.")
