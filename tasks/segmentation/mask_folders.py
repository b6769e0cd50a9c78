"""Generic folders of images and masks, as `tasks.layouts.mask_folders` finds them.

root/images/{train,val}/…        any image files, sub-folders allowed
root/masks/{train,val}/…         the same names; grey or palette, label k = class k, 255 ignored
root/classes.txt                 one name a line

root/{train,val}/{images,masks}/… is read as well, and root/{images,masks}/… without splits.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.errors import DataError
from tasks.layouts.mask_folders import CLASS_LIST, listed_classes, require_mask_folders
from tasks.segmentation.masks import MaskSet
from tasks.segmentation.pairs import pair_folders


def read_mask_folders(
    root: Path,
    split: str | None,
    *,
    class_names: tuple[str, ...] | None = None,
    zero_ignored: bool = False,
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
) -> MaskSet:
    """List the images and masks of one split.

    Args:
        root: The folder that holds `images` and `masks`.
        split: "train", "val" or "test"; None for a set without splits, or its only one.
        class_names: The classes, in the order of their labels; default: the lines of classes.txt.
        zero_ignored: A stored 0 means "no class" and a stored k class k − 1.
        image_suffix: How image names end where masks are named otherwise than their images.
        mask_suffix: How mask names end there, e.g. "_gtFine_labelTrainIds.png".

    Raises:
        DataError: If folders, partners or class names are missing, or two classes share a name.
    """
    skipped: Counter[str] = Counter()
    pairs = pair_folders(
        *require_mask_folders(root, split), image_suffix, mask_suffix, skipped=skipped
    )
    names = listed_classes(root) if class_names is None else class_names
    if names is None:
        raise DataError(f"There is no {CLASS_LIST} in {root}; give `class_names`.")
    return MaskSet(pairs, names, zero_ignored, skipped=dict(+skipped))
