"""A set of images with posed figures, as read from disk: boxes with key points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from tasks.detection.boxes import BoxImage, BoxSet
from tasks.detection.outlines import decode

EMPTY = "image without figures left out of training"


@dataclass(frozen=True, kw_only=True)
class PoseImage(BoxImage):
    """One image and its n figures, in pixels of the file.

    Attributes:
        points: (n, K, 3): x, y and visibility of each key point, 0 not labelled, 1 hidden,
            2 visible. A pixel's middle has whole coordinates, as in COCO's files.
    """

    points: NDArray[np.float64]

    @property
    def unlearnt(self) -> NDArray[np.bool_]:
        """Which figures (n) are neither learnt nor scored: crowds, and those without key points."""
        labelled = (self.points[:, :, 2] > 0).any(axis=1)
        return np.asarray(self.crowd | ~labelled, dtype=np.bool_)

    def ignored(self) -> NDArray[np.bool_]:
        """Return the pixels (height, width) of what is not learnt: outlines, or boxes."""
        height, width = self.size
        region = np.zeros((height, width), dtype=np.bool_)
        for index in np.flatnonzero(self.unlearnt):
            outline = self.segmentations[index] if self.segmentations else None
            if outline is not None:
                region |= decode(outline, height, width)
            else:
                x1, y1, x2, y2 = np.rint(self.boxes[index]).astype(int)
                region[y1:y2, x1:x2] = True
        return region


@dataclass(frozen=True)
class PoseSet(BoxSet):
    """Images in the order in which they are scored; its classes are the key points.

    Attributes:
        images: all of them.
        skeleton: pairs of key points, by place, that a line joins in drawings.
    """

    images: tuple[PoseImage, ...]
    skeleton: tuple[tuple[int, int], ...] = ()


def with_figures(poses: PoseSet) -> PoseSet:
    """Return the images of a set that have figures, be they without key points; told by kind."""
    filled = [index for index, image in enumerate(poses.images) if len(image.boxes)]
    left_out = len(poses.images) - len(filled)
    told = {EMPTY: left_out} if left_out else {}
    return replace(poses.subset(filled), skipped=poses.skipped | told)


def labelled(poses: PoseSet) -> NDArray[np.int64]:
    """Return how many figures of a set have each of its key points labelled."""
    counts = np.zeros(len(poses.class_names), dtype=np.int64)
    for image in poses.images:
        counts += (image.points[~image.unlearnt, :, 2] > 0).sum(axis=0)
    return counts


def require_learnable(poses: PoseSet, source: str) -> None:
    """DataError unless a figure has key points."""
    if not labelled(poses).any():
        raise DataError(f"{source} has no figure with labelled key points.")


def same_points(train: PoseSet, scored: PoseSet, split: str) -> None:
    """DataError unless both splits have the same key points in the same order."""
    if train.class_names != scored.class_names:
        first: Sequence[str] = [
            f"{a!r} and {b!r}"
            for a, b in zip(train.class_names, scored.class_names, strict=False)
            if a != b
        ] or [f"{len(train.class_names)} and {len(scored.class_names)} of them"]
        raise DataError(
            f"The key points of 'train' and {split!r} must be the same in the same order, not "
            f"{first[0]}."
        )
