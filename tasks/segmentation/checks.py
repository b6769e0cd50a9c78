"""Sets of masks are checked before training: every pair is read once, and oddities are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bench.errors import DataError
from bench.hashing import files_digest
from tasks.data.checked import Checked, ImageFile, check_files, check_images, relative_name
from tasks.data.faults import Fault, require_none, some
from tasks.data.images import upright_size
from tasks.segmentation.masks import IGNORED, MaskSet, inspect_mask

BINARY = "mask of black and white: white (from 128 on) is class 1"
LOSSY = (".jpg", ".jpeg")
"""Suffixes of masks whose values are only about what was drawn."""
NEARLY_ALL = 0.95
"""Share of ignored pixels above which it is told."""
_Masks = Mapping[str, ImageFile]


def checked(sets: Mapping[str, MaskSet], root: Path) -> tuple[dict[str, MaskSet], str]:
    """Read every pair once, and say what is wrong with the set or is done to it.

    What was read is remembered in the cache by the names, sizes and times of the files, so that
    the next run starts at once.

    Args:
        sets: The splits, by name.
        root: The folder to which the names of its files are relative in the hash.

    Returns:
        The splits, in which what is done is counted: photos are turned as their EXIF says where
        their masks have that size, and masks of two classes that are black and white become 0 and
        1; and the SHA-256 over the sorted list of files and their own hashes.

    Raises:
        DataError: If a file can't be read, an image and its mask differ in size, a mask holds
            a label without a class, or no mask holds a class; names the first few files of each
            fault.
    """
    pairs = [pair for masks in sets.values() for pair in masks.pairs]
    of_images = check_images(root, sorted({image for image, _ in pairs}))
    of_masks = check_files(root, sorted({mask for _, mask in pairs}), "masks 2", inspect_mask)
    first = next(iter(sets.values()))
    binary = _is_binary(first, of_masks)
    lying: set[Path] = set()
    undecided: set[Path] = set()
    faults: list[Fault] = []
    for image_path, mask_path in pairs:
        image, mask = relative_name(root, image_path), relative_name(root, mask_path)
        if image in of_images.faults:
            faults.append(("can't be read", f"{image_path.name} ({of_images.faults[image]})"))
            continue
        photo, stored = of_images.files[image], of_masks[mask]
        size = (photo.height, photo.width)
        upright = upright_size(size, photo.orientation)
        if photo.orientation != 1 and size == upright:
            undecided.add(image_path)
        elif upright != size == (stored.height, stored.width):
            lying.add(image_path)
            upright = size
        faults += _faults(first, binary, image_path.name, upright, mask_path.name, stored)
    require_none(faults)
    _require_classes(first, binary, of_masks, root)
    if lying and not _some_turned(pairs, lying, undecided, of_images, root):
        # Upside down both sizes are equal: the other photos tell.
        lying |= undecided
    mended = {}
    for split, masks in sets.items():
        read_as = replace(masks, binary=binary, as_stored=frozenset(lying))
        mended[split] = _told(read_as, split, root, of_images, of_masks)
    hashes = {name: file.sha256 for name, file in of_masks.items()}
    return mended, files_digest({**of_images.hashes, **hashes})


def _is_binary(masks: MaskSet, files: _Masks) -> bool:
    """Whether masks of two classes hold black and white, or are JPEG, in place of 0 and 1."""
    if masks.zero_ignored or len(masks.class_names) != 2:
        return False
    if any(name.lower().endswith(LOSSY) for name in files):
        return True
    stored = {label for file in files.values() for label in file.labels}
    return stored == {0, IGNORED}


def _some_turned(
    pairs: list[tuple[Path, Path]],
    lying: set[Path],
    undecided: set[Path],
    files: Checked,
    root: Path,
) -> bool:
    return any(
        files.files[relative_name(root, image)].orientation != 1
        for image, _ in pairs
        if image not in lying and image not in undecided
    )


def _faults(
    masks: MaskSet, binary: bool, image: str, size: tuple[int, int], name: str, mask: ImageFile
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
    known = set(range(IGNORED + 1)) if binary else {*masks.stored_labels, IGNORED}
    wrong = sorted(set(mask.labels) - known)
    if wrong:
        last = masks.stored_labels[-1]
        yield (
            f"hold labels outside 0…{last} (and {IGNORED})",
            f"{name} ({some([str(label) for label in wrong])})",
        )


def _require_classes(masks: MaskSet, binary: bool, files: _Masks, root: Path) -> None:
    """DataError unless a pixel is of a class."""
    classes = set(masks.stored_labels) - ({0} if masks.zero_ignored else set())
    stored = {label for file in files.values() for label in file.labels}
    if binary or classes & stored:
        return
    hint = ""
    if stored <= {0, IGNORED}:
        hint = (
            f" They hold {' and '.join(map(str, sorted(stored)))}, which are ignored here; black "
            "and white masks of two classes are read by `source` 'masks' with two `class_names`."
        )
    raise DataError(f"No mask of {root} has a pixel of a class.{hint}")


def _told(masks: MaskSet, split: str, root: Path, of_images: Checked, of_masks: _Masks) -> MaskSet:
    """Return a split with what is odd about it counted."""
    skipped = Counter(masks.skipped)
    pixels: Counter[int] = Counter()
    for image, mask in masks.pairs:
        lying = image in masks.as_stored
        skipped += of_images.repairs([relative_name(root, image)], upright=not lying)
        file = of_masks[relative_name(root, mask)]
        skipped.update(file.oddities)
        pixels.update(dict(zip(file.labels, file.pixels, strict=True)))
    if masks.binary:
        skipped[BINARY] = len(masks.pairs)
        pixels = Counter({1: sum(n for k, n in pixels.items() if k > IGNORED // 2), 0: 1})
    unlabelled = pixels[IGNORED] + (pixels[0] if masks.zero_ignored else 0)
    if unlabelled > NEARLY_ALL * pixels.total():
        share = unlabelled / pixels.total()
        skipped[f"mask of a split of which {share:.1%} of the pixels are ignored"] = len(
            masks.pairs
        )
    missing = [
        name
        for label, name in enumerate(masks.class_names, start=int(masks.zero_ignored))
        if not pixels[label]
    ]
    if missing:
        skipped[f"class without a pixel in {split!r} ({some(missing)})"] = len(missing)
    return replace(masks, skipped=dict(+skipped))
