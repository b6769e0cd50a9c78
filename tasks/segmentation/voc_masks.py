"""PASCAL VOC's segmentation sets: JPEGImages, SegmentationClass, ImageSets/Segmentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.errors import DataError
from tasks.data.lists import listed_names
from tasks.data.locations import is_there, shortened
from tasks.layouts.voc_masks import CLASS_NAMES, list_of, release
from tasks.segmentation.masks import MaskSet


def read_voc_masks(root: Path, split: str) -> MaskSet:
    """List the images and masks of one split of VOC 2007 or 2012.

    The masks are palette images: 0 is the background, a class of its own, and 255 the border of
    the objects, which is ignored.

    Args:
        root: The folder that holds JPEGImages, or VOCdevkit, or the folder above it (2012 is
            taken where both years are there).
        split: "train" or "val".

    Raises:
        DataError: If the list of the split, an image or a mask is missing.
    """
    root = release(root)
    listing = list_of(root, split)
    if not listing.is_file():
        raise DataError(f"There is no list of the {split} images at {listing}.")
    skipped: Counter[str] = Counter()
    names = listed_names(listing, root / "JPEGImages", skipped)
    if not names:
        raise DataError(f"{listing} is empty.")
    pairs = tuple(
        (root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png")
        for name in names
    )
    for number, folder in enumerate(("JPEGImages", "SegmentationClass")):
        if not any(is_there(pair[number]) for pair in pairs):
            first = shortened(pairs[0][number].name)
            raise DataError(f"None of the files that {listing} names is in {folder}, e.g. {first}.")
    return MaskSet(pairs, CLASS_NAMES, skipped=dict(skipped))
