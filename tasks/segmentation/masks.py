"""Sets of image and mask files, and how a mask is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import DataError
from bench.hashing import file_sha256
from tasks.data.checked import ImageFile, fault_of
from tasks.data.lists import require_class_names

IGNORED = 255
"""Label of the pixels that count neither in a loss nor in a score."""

MODES = ("L", "P", "1", "I", "I;16")
COLOUR_MODES = ("RGB", "RGBA", "LA")
"""Of these, masks are read whose colours are all grey."""
GREY_AS_COLOUR = "mask of grey colours: one channel read"
MOST_LABELS = IGNORED + 1


@dataclass(frozen=True)
class MaskSet:
    """One split of a segmentation set.

    Attributes:
        pairs: Paths of each image and of its mask.
        class_names: Names of the classes, in the order of their labels.
        zero_ignored: Whether a stored 0 means "no class", as in ADE20K, so that a stored k is
            class k − 1. Otherwise a stored k is class k. A stored 255 is ignored either way.
        binary: Whether what is stored from 128 on is class 1 and all else class 0: masks of two
            classes that are black and white, or JPEG.
        as_stored: Images that are not turned as their EXIF says, as their masks are not.
        skipped: What was left out or mended → number of times.

    Raises:
        DataError: If the classes have no names, the same names, or are more than a mask can hold.
    """

    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...]
    zero_ignored: bool = field(default=False)
    binary: bool = field(default=False)
    as_stored: frozenset[Path] = field(default=frozenset())
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

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the set of the given pairs only."""
        return replace(self, pairs=tuple(self.pairs[i] for i in indices))


def read_mask(path: Path, zero_ignored: bool = False, binary: bool = False) -> NDArray[np.uint8]:
    """Read a mask as labels, (H, W), in which 255 is ignored.

    Args:
        path: A grey or palette image with one class index a pixel.
        zero_ignored: A stored 0 becomes 255 and a stored k becomes k − 1.
        binary: What is stored from 128 on becomes 1, all else 0.

    Raises:
        DataError: If the file is a colour image or holds indices outside 0…255.
    """
    stored, _ = _stored(path)
    for label in (stored.min(initial=0), stored.max(initial=0)):
        if not 0 <= label <= IGNORED:
            raise DataError(f"{path.name} holds the label {label}; labels must be from 0 to 255.")
    if binary:
        return (stored > IGNORED // 2).astype(np.uint8)
    labels = stored.astype(np.uint8)
    if zero_ignored:
        # uint8 wraps 0 − 1 to 255, and 255 must stay what it is.
        labels = np.where(labels == IGNORED, labels, labels - np.uint8(1))
    return labels


def _stored(path: Path) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    """Return what a mask holds, and what is odd about it."""
    odd: tuple[str, ...] = ()
    with Image.open(path) as image:
        mode = image.mode
        stored = np.array(image)
    if mode in COLOUR_MODES:
        colours = stored[..., : len(mode.removesuffix("A"))]
        if (colours == colours[..., :1]).all():
            stored, mode, odd = colours[..., 0], "L", (GREY_AS_COLOUR,)
    if mode not in MODES:
        raise DataError(
            f"{path.name} is a colour image (mode {mode}); a mask must be a grey or "
            "palette image with one class index a pixel."
        )
    return stored.astype(np.uint8) if stored.dtype == np.bool_ else stored, odd


def inspect_mask(path: Path) -> ImageFile:
    """Read and hash a mask, and count its labels: all, or the lowest 256 and the highest."""
    try:
        stored, odd = _stored(path)
        if stored.dtype == np.uint8:
            counts = np.bincount(stored.ravel())
            labels = np.flatnonzero(counts)
            pixels = counts[labels]
        else:
            labels, pixels = np.unique(stored, return_counts=True)
        kept = [*range(min(len(labels), MOST_LABELS)), *range(MOST_LABELS, len(labels))[-1:]]
        height, width = stored.shape
        return ImageFile(
            file_sha256(path),
            height,
            width,
            labels=tuple(labels[kept].tolist()),
            pixels=tuple(pixels[kept].tolist()),
            oddities=odd,
        )
    except DataError as error:
        return ImageFile("", 0, 0, str(error))
    except Exception as error:
        return ImageFile("", 0, 0, fault_of(error))
