"""A set of images with boxes, as read from disk: what every reader returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from tasks.data.checked import check_images, relative_name
from tasks.data.faults import Fault, require_none
from tasks.data.locations import is_there, shortened
from tasks.detection.outlines import Segmentation, decode


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
        segmentations: one for each box, or None where they are not wanted.
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
        skipped: what was left out or mended → number of times.
    """

    images: tuple[BoxImage, ...]
    class_names: tuple[str, ...]
    skipped: dict[str, int]

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the set of some of the images."""
        return replace(self, images=tuple(self.images[i] for i in indices))


def require_images(images: Sequence[BoxImage], source: str) -> None:
    """DataError unless there are images, all of their files are there, and an object is."""
    if not images:
        raise DataError(f"{source} has no images.")
    missing = [image.path for image in images if not is_there(image.path)]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(images)} images of {source} are not there, "
            f"the first is {shortened(missing[0].name)} in {missing[0].parent}."
        )
    if not any(len(image.boxes) for image in images):
        raise DataError(f"{source} has no objects.")


def check(sets: Iterable[BoxSet], root: Path) -> dict[str, str]:
    """Read every image once, and compare its size with that in the annotations.

    Args:
        sets: the splits.
        root: the folder to which the names of the files are relative in the hashes.

    Returns:
        Name of each file → its SHA-256.

    Raises:
        DataError: files that can't be read, or whose size is another: boxes that were drawn on an
            image of another size lie elsewhere.
    """
    images = {image.path: image.size for boxes in sets for image in boxes.images}
    checked = check_images(root, sorted(images))
    faults: list[Fault] = []
    for path in sorted(images):
        name = relative_name(root, path)
        (height, width), real = images[path], checked.sizes.get(name, (0, 0))
        if name in checked.faults:
            faults.append(("can't be read", f"{name} ({checked.faults[name]})"))
        elif real != (height, width):
            sizes = f"{real[1]}×{real[0]} and {width}×{height}"
            faults.append(("differ in size from their annotations", f"{name} ({sizes})"))
    require_none(faults)
    return checked.hashes
