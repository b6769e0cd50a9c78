"""A set of images with boxes, as read from disk: what every reader returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from tasks.data.checked import Checked, ImageFile, check_images, relative_name, trained_too
from tasks.data.faults import Fault, allowed, few_enough, require_none, some
from tasks.data.locations import is_there, shortened
from tasks.data.upright import fits, lying
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
        upright: whether the photo is turned as its EXIF says; not where its boxes were drawn on it
            as it is stored.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    segmentations: tuple[Segmentation, ...] | None = None
    upright: bool = True

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


Boxes = TypeVar("Boxes", bound=BoxSet)
"""A set of one kind: of boxes, or of boxes with more."""


def require_images(images: Sequence[BoxImage], source: str) -> None:
    """DataError unless there are images, the file of one at least, and an object.

    A few files that are not there are told, or refused, with the damaged ones; see `checked`.
    """
    if not images:
        raise DataError(f"{source} has no images.")
    if not any(is_there(image.path) for image in images):
        first = images[0].path
        raise DataError(
            f"None of the {len(images)} images of {source} are there, "
            f"the first is {shortened(first.name)} in {first.parent}."
        )
    if not any(len(image.boxes) for image in images):
        raise DataError(f"{source} has no objects.")


def renumbered(scored: BoxSet, class_names: tuple[str, ...], split: str) -> BoxSet:
    """Return a scored split with the labels of the training split's classes, by name.

    Raises:
        DataError: a class that has objects is none of them.
    """
    used = {scored.class_names[i] for image in scored.images for i in np.unique(image.labels)}
    if surplus := [name for name in scored.class_names if name in used - set(class_names)]:
        raise DataError(
            f"{len(surplus)} class(es) of {split!r} are missing from the training split: "
            f"{some(surplus)}."
        )
    skipped = dict(scored.skipped)
    if missing := [name for name in class_names if name not in used]:
        skipped[f"class without an object in {split!r} ({some(missing)})"] = len(missing)
    place = {name: label for label, name in enumerate(class_names)}
    # An unused class has no label; nothing points to it.
    table = np.array([place.get(name, -1) for name in scored.class_names], dtype=np.int64)
    images = tuple(replace(image, labels=table[image.labels]) for image in scored.images)
    return BoxSet(images, class_names, skipped)


def object_counts(boxes: BoxSet) -> NDArray[np.int64]:
    """Return the number of objects of each class, without regions to ignore.

    Example:
        >>> object_counts(BoxSet((), ("a", "b"), {})).tolist()
        [0, 0]
    """
    none = np.zeros(0, dtype=np.int64)
    labels = np.concatenate([none, *(image.labels[~image.crowd] for image in boxes.images)])
    return np.bincount(labels, minlength=len(boxes.class_names))


def rarest_labels(boxes: BoxSet) -> NDArray[np.int64]:
    """Return for each image the rarest class on it, or −1, by which a draw keeps all classes.

    Regions to ignore are of no class.

    Example:
        >>> rarest_labels(BoxSet((), ("a",), {})).tolist()
        []
    """
    counts = object_counts(boxes)
    learnt = [image.labels[~image.crowd] for image in boxes.images]
    rarest = [int(labels[counts[labels].argmin()]) if len(labels) else -1 for labels in learnt]
    return np.array(rarest, dtype=np.int64)


def told_unlearnt(train: BoxSet) -> BoxSet:
    """Return a training split that tells which of its classes have no object to learn from."""
    used = {i for image in train.images for i in np.unique(image.labels[~image.crowd]).tolist()}
    missing = [name for i, name in enumerate(train.class_names) if i not in used]
    if not missing:
        return train
    told = {f"class without an object in 'train' ({some(missing)})": len(missing)}
    return replace(train, skipped=train.skipped | told)


def checked(
    sets: Mapping[str, Boxes], root: Path, max_skipped: float = 0.0
) -> tuple[dict[str, Boxes], dict[str, str]]:
    """Read every image once, and compare its size with that in the annotations.

    A photo whose EXIF says that it was taken upright is turned, unless its annotations have the
    size in which it is stored: then its boxes were drawn on it lying; see `tasks.data.upright`.

    Args:
        sets: the splits, by name; the first is trained on, the others are scored.
        root: the folder to which the names of the files are relative in the hashes.
        max_skipped: largest share of images that may be unreadable; they are left out and counted.

    Returns:
        The splits, in which images know how they stand and what is done to them is counted; and
        name of each file → its SHA-256.

    Raises:
        DataError: files that can't be read, or whose size is another: boxes that were drawn on an
            image of another size lie elsewhere.
    """
    sizes = {image.path: image.size for boxes in sets.values() for image in boxes.images}
    found = check_images(root, sorted(sizes))
    faults: list[Fault] = []
    hint = ""
    if not few_enough(len(found.faults), len(sizes), max_skipped):
        hint = allowed(max_skipped)
        faults += [("can't be read", f"{name} ({why})") for name, why in found.faults.items()]
    photos: dict[Path, ImageFile] = {}
    for path, told in sorted(sizes.items()):
        name = relative_name(root, path)
        if name not in found.files:
            continue
        file = photos[path] = found.files[name]
        if not fits(file, told):
            words = f"{file.width}×{file.height} and {told[1]}×{told[0]}"
            faults.append(("differ in size from their annotations", f"{name} ({words})"))
    require_none(faults, hint)
    as_stored = lying(photos, sizes)
    standing = {k: _standing(boxes, as_stored, found, root) for k, boxes in sets.items()}
    trained, *scored = standing.values()
    for boxes in scored:
        boxes.skipped.update(
            trained_too(*(_hashes(part, found, root) for part in (trained, boxes)))
        )
    return standing, found.hashes


def _hashes(boxes: BoxSet, found: Checked, root: Path) -> list[str]:
    return [found.hashes[relative_name(root, image.path)] for image in boxes.images]


def _standing(boxes: Boxes, as_stored: Set[Path], found: Checked, root: Path) -> Boxes:
    """Return a split of the images that can be read, each as it stands."""
    skipped = Counter(boxes.skipped)
    images = []
    for image in boxes.images:
        name = relative_name(root, image.path)
        if name in found.faults:
            skipped[found.faults[name]] += 1
            continue
        upright = image.path not in as_stored
        skipped += found.repairs([name], upright=upright)
        images.append(replace(image, upright=upright))
    return replace(boxes, images=tuple(images), skipped=dict(skipped))
