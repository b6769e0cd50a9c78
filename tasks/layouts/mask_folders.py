"""Folders of images and of masks, in any of three arrangements, or without splits.

root/images/<split>/…    root/masks/<split>/…
root/<split>/images/…    root/<split>/masks/…
root/images/…            root/masks/…                no splits
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.errors import DataError
from tasks.data.listing import visible_folders, visible_images
from tasks.data.lists import read_lines, require_class_names
from tasks.data.splits import SPLITS, split_folders
from tasks.layouts import ade20k
from tasks.layouts.layout import (
    Layout,
    after_draw,
    data_of,
    evenly,
    scoring,
    sizes_of,
    stored_mask,
)

LOOKED_FOR = (
    "segmentation: image and mask folders (images/train + masks/train, train/images + train/masks, "
    "or images + masks)"
)
IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "gt", "ground_truth")
CLASS_LIST = "classes.txt"
MOST_MASKS = 1000
IGNORED = 255


class Pair(NamedTuple):
    """The folders of a split's images and masks."""

    images: Path
    masks: Path


def mask_folders(root: Path, split: str | None) -> Pair | None:
    """Return the folders of a split, or of a set without splits (None); None if there are none."""
    whole = _pair(root)
    if split is None:
        # The only split of a set is all of it.
        return mask_folders(root, "train") or whole
    inner = split_folders(root).get(split)
    if inner is not None and (pair := _pair(inner)) is not None:
        return pair
    if whole is None:
        return None
    images, masks = (split_folders(part).get(split) for part in whole)
    return None if images is None or masks is None else Pair(images, masks)


def _pair(folder: Path) -> Pair | None:
    """Return the folders of images and masks in a folder, called by one of their usual names."""
    if not folder.is_dir():
        return None
    by_name = {path.name.lower(): path for path in visible_folders(folder)}
    images = next((by_name[name] for name in IMAGES if name in by_name), None)
    masks = next((by_name[name] for name in MASKS if name in by_name), None)
    return None if images is None or masks is None else Pair(images, masks)


def find(folder: Path) -> Layout | None:
    """Recognise folders of images and masks; ADE20K's are another layout, in which 0 is ignored."""
    listed = _listed(folder)
    if listed is None:
        return None
    counts = {split: len(paths) for split, (paths, _) in listed.items()}
    return _layout(folder, *listed["train"], counts)


def almost(folder: Path) -> str | None:
    """Say what keeps a folder from being of this layout, where little does."""
    listed = _listed(folder)
    masks = evenly(listed["train"][1], MOST_MASKS) if listed else []
    coloured = [path for path in masks if _labels(path) is None]
    if not coloured:
        return None
    return (
        f"{len(coloured)} masks beside its images hold colours, such as {coloured[0].name}: a mask "
        "must be a grey or palette image with one class index a pixel"
    )


def _listed(folder: Path) -> dict[str, tuple[list[Path], list[Path]]] | None:
    """Return split → images and masks; None where none are to train on."""
    if ade20k.is_laid_out(folder):
        return None
    splits = {split: pair for split in SPLITS if (pair := mask_folders(folder, split))}
    if "train" not in splits:
        whole = mask_folders(folder, None)
        if whole is None:
            return None
        splits = {"train": whole}
    listed = {
        split: (visible_images(pair.images), visible_images(pair.masks))
        for split, pair in splits.items()
    }
    return listed if all(listed["train"]) else None


def _layout(
    folder: Path, images: list[Path], masks: list[Path], counts: dict[str, int]
) -> Layout | None:
    names, written, odd = class_names(folder, masks)
    if names is None:
        return None
    return Layout(
        "segmentation",
        "image and mask folders",
        folder,
        data_of(
            "segmentation",
            "masks",
            folder,
            class_names=None if written else list(names),
            **suffixes(images, masks),
            **scoring(counts),
        ),
        names,
        after_draw(counts),
        sizes_of(images),
        odd,
    )


def listed_classes(folder: Path) -> tuple[str, ...] | None:
    """Return the classes that a set's classes.txt lists, if it has one.

    Raises:
        DataError: it names none, or two of one name.
    """
    listing = folder / CLASS_LIST
    if not listing.is_file():
        return None
    names = tuple(line.strip() for line in read_lines(listing) if line.strip())
    require_class_names(names, listing.name)
    return names


def class_names(
    folder: Path, masks: list[Path]
) -> tuple[tuple[str, ...] | None, bool, dict[str, int]]:
    """Return the names of the classes, whether a list has them, and what is odd about the masks.

    Without a list they are numbered as the masks have them; those of black and white masks are
    "background" and "object". None if the masks are none.
    """
    listed = listed_classes(folder)
    if listed is not None:
        return listed, True, {}
    found: set[int] = set()
    lossy = False
    for path in evenly(masks, MOST_MASKS):
        labels = _labels(path)
        if labels is None:
            return None, False, {}
        found |= labels
        lossy = lossy or path.suffix.lower() in (".jpg", ".jpeg")
    if found <= {0, IGNORED} or (lossy and len(found) > 2):
        odd = {"mask of black and white: white (from 128 on) is class 1": len(masks)}
        return ("background", "object"), False, odd
    most = max(found - {IGNORED}, default=0)
    return tuple(f"class {k}" for k in range(most + 1)), False, {}


def _labels(path: Path) -> set[int] | None:
    """Return the labels of a mask; None if it is a colour image, or none that can be read."""
    stored = stored_mask(path)
    if stored is None:
        return set()
    if stored.ndim == 3:
        colours = stored[..., :3] if stored.shape[2] > 2 else stored[..., :1]
        if not (colours == colours[..., :1]).all():
            return None
        stored = colours[..., 0]
    return set(np.unique(stored).astype(int).tolist()) if stored.dtype.kind in "bui" else None


def suffixes(images: list[Path], masks: list[Path]) -> dict[str, Any]:
    """Return how the names of masks end, where they are longer than those of their images.

    Example:
        >>> suffixes([Path("a.jpg"), Path("b.jpeg")], [Path("a_mask.png"), Path("b_mask.png")])
        {'mask_suffix': '_mask.png'}
        >>> suffixes([Path("a.jpg")], [Path("a.png")])
        {}
    """
    stems = {path.stem for path in images}
    if any(path.stem in stems for path in masks):
        return {}
    endings: Counter[str] = Counter()
    for path in masks:
        for end in range(len(path.stem) - 1, 0, -1):
            if path.stem[:end] in stems:
                endings[path.name[end:]] += 1
                break
    if not endings or endings.most_common(1)[0][1] < len(masks) / 2:
        return {}
    return {"mask_suffix": endings.most_common(1)[0][0]}


def require_mask_folders(root: Path, split: str | None) -> Pair:
    """Return the folders of a split.

    Raises:
        DataError: they are not there.
    """
    pair = mask_folders(root, split)
    if pair is None:
        name = split or "any"
        raise DataError(
            f"There is no folder of images and masks of the split {name!r} in {root}: looked for "
            f"were images/{name} + masks/{name} and {name}/images + {name}/masks; a set without "
            "splits is images + masks, of which `val_share` draws what is scored."
        )
    return pair
