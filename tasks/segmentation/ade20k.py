"""ADE20K's layout of folders, which `scenes`, `paths` and many other sets share.

root/images/{training,validation}/*.jpg
root/annotations/{training,validation}/*.png     0 = other (ignored), k = class k of the list
root/objectInfo150.txt                           tab-separated, with a column Name
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tasks.layouts.ade20k import SPLITS, class_names, release
from tasks.segmentation.masks import MaskSet
from tasks.segmentation.pairs import pair_folders


def read_ade20k(root: Path, split: str, num_classes: int | None = None) -> MaskSet:
    """List the images and masks of one split of a folder in ADE20K's layout.

    Args:
        root: The folder that holds `images` and `annotations`, or the one above it as unpacked
            from the release.
        split: "train" or "val".
        num_classes: Number of classes where the folder has no list of them; they are then named
            "class 1", "class 2", ….

    Raises:
        DataError: If folders, partners or the list of classes are missing.
    """
    root = release(root)
    folder = SPLITS[split]
    skipped: Counter[str] = Counter()
    pairs = pair_folders(root / "images" / folder, root / "annotations" / folder, skipped=skipped)
    names = class_names(root, num_classes)
    return MaskSet(pairs, names, zero_ignored=True, skipped=dict(+skipped))
