"""Sets of image and mask files: how they are read and checked before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import DataError
from bench.hashing import file_sha256, files_digest
from tasks.data.checked import ImageFile, check_files, check_images, fault_of, relative_name
from tasks.data.faults import Fault, require_none, some
from tasks.data.lists import require_class_names

IGNORED = 255
"""Label of the pixels that count neither in a loss nor in a score."""

MODES = ("L", "P", "1", "I", "I;16")
MOST_LABELS = IGNORED + 1


@dataclass(frozen=True)
class MaskSet:
    """One split of a segmentation set.

    Attributes:
        pairs: Paths of each image and of its mask.
        class_names: Names of the classes, in the order of their labels.
        zero_ignored: Whether a stored 0 means "no class", as in ADE20K, so that a stored k is
            class k − 1. Otherwise a stored k is class k. A stored 255 is ignored either way.
        skipped: What was left out → number of times.

    Raises:
        DataError: If the classes have no names, the same names, or are more than a mask can hold.
    """

    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...]
    zero_ignored: bool = field(default=False)
    skipped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_class_names(self.class_names, "the segmentation set")
        if len(self.class_names) > self.most_classes:
            raise DataError(
                f"A mask holds at most {self.most_classes} classes beside {IGNORED}, which is "
                f"ignored; the set has {len(self.class_names)}."
            )

    @property
    def most_classes(self) -> int:
        """How many classes fit below the ignored label."""
        return IGNORED - self.zero_ignored

    @property
    def stored_labels(self) -> range:
        """The values that pixels may have, beside 255."""
        return range(len(self.class_names) + self.zero_ignored)

    def subset(self, indices: Sequence[int]) -> MaskSet:
        """Return the set of the given pairs only."""
        return replace(self, pairs=tuple(self.pairs[i] for i in indices))


def read_mask(path: Path, zero_ignored: bool = False) -> NDArray[np.uint8]:
    """Read a mask as labels, (H, W), in which 255 is ignored.

    Args:
        path: A grey or palette image with one class index a pixel.
        zero_ignored: A stored 0 becomes 255 and a stored k becomes k − 1.

    Raises:
        DataError: If the file is a colour image or holds indices outside 0…255.
    """
    stored = _indices(path)
    for label in (stored.min(initial=0), stored.max(initial=0)):
        if not 0 <= label <= IGNORED:
            raise DataError(f"{path.name} holds the label {label}; labels must be from 0 to 255.")
    labels = stored.astype(np.uint8)
    if zero_ignored:
        # uint8 wraps 0 − 1 to 255, and 255 must stay what it is.
        labels = np.where(labels == IGNORED, labels, labels - np.uint8(1))
    return labels


def _indices(path: Path) -> NDArray[np.integer]:
    with Image.open(path) as image:
        if image.mode not in MODES:
            raise DataError(
                f"{path.name} is a colour image (mode {image.mode}); a mask must be a grey or "
                "palette image with one class index a pixel."
            )
        stored = np.array(image)
    return stored.astype(np.uint8) if stored.dtype == np.bool_ else stored


def check(masks: MaskSet, root: Path) -> str:
    """Read every pair once and say what is wrong with the set.

    What was read is remembered in the cache by the names, sizes and times of the files, so that
    the next run starts at once.

    Args:
        masks: The set.
        root: The folder to which the names of its files are relative in the hash.

    Returns:
        SHA-256 over the sorted list of files and their own hashes.

    Raises:
        DataError: If a file can't be read, an image and its mask differ in size, a mask holds
            a label without a class, or no mask holds a class; names the first few files of each
            fault.
    """
    of_images = check_images(root, sorted({image for image, _ in masks.pairs}))
    of_masks = check_files(root, sorted({mask for _, mask in masks.pairs}), "masks", inspect_mask)
    faults: list[Fault] = []
    for image_path, mask_path in masks.pairs:
        image, mask = relative_name(root, image_path), relative_name(root, mask_path)
        if image in of_images.faults:
            faults.append(("can't be read", f"{image_path.name} ({of_images.faults[image]})"))
        else:
            size = of_images.sizes[image]
            faults += _faults(masks, image_path.name, size, mask_path.name, of_masks[mask])
    require_none(faults)
    classes = set(masks.stored_labels) - ({0} if masks.zero_ignored else set())
    if not any(classes.intersection(file.labels) for file in of_masks.values()):
        raise DataError(f"No mask of {root} has a pixel of a class.")
    hashes = {name: file.sha256 for name, file in of_masks.items()}
    return files_digest({**of_images.hashes, **hashes})


def _faults(
    masks: MaskSet, image: str, size: tuple[int, int], name: str, mask: ImageFile
) -> Iterator[Fault]:
    """Yield what is wrong with a mask."""
    if mask.fault.startswith(name):
        yield "can't be used as masks", mask.fault.rstrip(".")
        return
    if mask.fault:
        yield "can't be read", f"{name} ({mask.fault})"
        return
    if (mask.height, mask.width) != size:
        sizes = f"{size[1]}×{size[0]} and {mask.width}×{mask.height}"
        yield "differ in size from their masks", f"{image} ({sizes})"
    wrong = sorted(set(mask.labels) - set(masks.stored_labels) - {IGNORED})
    if wrong:
        last = masks.stored_labels[-1]
        yield (
            f"hold labels outside 0…{last} (and {IGNORED})",
            f"{name} ({some([str(label) for label in wrong])})",
        )


def inspect_mask(path: Path) -> ImageFile:
    """Read and hash a mask, and list its labels: all, or the lowest 256 and the highest."""
    try:
        stored = _indices(path)
        if stored.dtype == np.uint8:
            labels = np.flatnonzero(np.bincount(stored.ravel()))
        else:
            labels = np.unique(stored)
        few = labels.tolist()[:MOST_LABELS] + labels.tolist()[MOST_LABELS:][-1:]
        height, width = stored.shape
        return ImageFile(file_sha256(path), height, width, labels=tuple(few))
    except DataError as error:
        return ImageFile("", 0, 0, str(error))
    except Exception as error:
        return ImageFile("", 0, 0, fault_of(error))
