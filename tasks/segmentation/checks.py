"""Sets of masks are checked before training: every pair is read once, and oddities are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.errors import DataError
from bench.hashing import files_digest
from tasks.data.checked import (
    Checked,
    ImageFile,
    check_files,
    check_images,
    relative_name,
    trained_too,
)
from tasks.data.faults import Fault, allowed, few_enough, require_none, some
from tasks.data.upright import fits, lying
from tasks.segmentation.masks import IGNORED, MaskSet, inspect_mask

BINARY = "mask of black and white: white (from 128 on) is class 1"
LOSSY = (".jpg", ".jpeg")
"""Suffixes of masks whose values are only about what was drawn."""
NEARLY_ALL = 0.95
"""Share of ignored pixels above which it is told."""
_Masks = Mapping[str, ImageFile]


def checked(
    sets: Mapping[str, MaskSet], root: Path, max_skipped: float = 0.0
) -> tuple[dict[str, MaskSet], str]:
    """Read every pair once, and say what is wrong with the set or is done to it.

    What was read is remembered in the cache by the names, sizes and times of the files, so that
    the next run starts at once.

    Args:
        sets: The splits, by name; the first is trained on, the others are scored.
        root: The folder to which the names of its files are relative in the hash.
        max_skipped: Largest share of images that may be unreadable, they or their masks; they are
            left out and counted.

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
    unreadable = _unreadable(pairs, of_images, of_masks, root)
    faults: list[Fault] = []
    hint = ""
    if not few_enough(len(unreadable), len(pairs), max_skipped):
        hint = allowed(max_skipped)
        faults += [("can't be read", f"{p.name} ({why})") for p, why in unreadable.items()]
    photos: dict[Path, ImageFile] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for image_path, mask_path in pairs:
        image, mask = relative_name(root, image_path), relative_name(root, mask_path)
        if image_path in unreadable or mask_path in unreadable:
            continue
        photo, labels = of_images.files[image], of_masks[mask]
        photos[image_path], sizes[image_path] = photo, (labels.height, labels.width)
        faults += _faults(first, binary, image_path.name, photo, mask_path.name, labels)
    require_none(faults, hint)
    _require_classes(first, binary, of_masks, root)
    as_stored = frozenset(lying(photos, sizes))
    mended = {}
    for split, masks in sets.items():
        left = tuple(p for p in masks.pairs if not unreadable.keys() & set(p))
        lost = Counter(unreadable[path] for p in masks.pairs for path in p if path in unreadable)
        read_as = replace(
            masks,
            pairs=left,
            binary=binary,
            as_stored=as_stored,
            skipped=dict(Counter(masks.skipped) + lost),
        )
        mended[split] = _told(read_as, split, root, of_images, of_masks)
    trained, *scored = mended.values()
    for masks in scored:
        masks.skipped.update(
            trained_too(*(_hashes(part, of_images, root) for part in (trained, masks)))
        )
    hashes = {name: file.sha256 for name, file in of_masks.items() if not file.fault}
    return mended, files_digest({**of_images.hashes, **hashes})


def _hashes(masks: MaskSet, of_images: Checked, root: Path) -> list[str]:
    return [of_images.hashes[relative_name(root, image)] for image, _ in masks.pairs]


def _unreadable(
    pairs: Sequence[tuple[Path, Path]], of_images: Checked, of_masks: _Masks, root: Path
) -> dict[Path, str]:
    """Return the images that cannot be read, else their masks → why; not masks of colours."""
    unreadable: dict[Path, str] = {}
    for image, mask in pairs:
        if why := of_images.faults.get(relative_name(root, image)):
            unreadable[image] = why
            continue
        why = of_masks[relative_name(root, mask)].fault
        if why and not why.startswith(mask.name):
            unreadable[mask] = why
    return unreadable


def _is_binary(masks: MaskSet, files: _Masks) -> bool:
    """Whether masks of two classes hold black and white, or are JPEG, in place of 0 and 1."""
    if masks.zero_ignored or len(masks.class_names) != 2:
        return False
    if any(name.lower().endswith(LOSSY) for name in files):
        return True
    stored = {label for file in files.values() for label in file.labels}
    return stored == {0, IGNORED}


def _faults(
    masks: MaskSet, binary: bool, image: str, photo: ImageFile, name: str, mask: ImageFile
) -> Iterator[Fault]:
    """Yield what is wrong with a mask."""
    if mask.fault.startswith(name):
        yield "can't be used as masks", mask.fault.rstrip(".")
        return
    if not fits(photo, (mask.height, mask.width)):
        sizes = f"{photo.width}×{photo.height} and {mask.width}×{mask.height}"
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
        white = sum(count for label, count in pixels.items() if label > IGNORED // 2)
        pixels = Counter({0: pixels.total() - white, 1: white})
    unlabelled = pixels[IGNORED] + (pixels[0] if masks.zero_ignored else 0)
    if unlabelled > NEARLY_ALL * pixels.total():
        share = unlabelled / pixels.total()
        told = f"mask of {split!r}, of whose pixels {share:.1%} are ignored"
        skipped[told] = len(masks.pairs)
    missing = [
        name
        for label, name in enumerate(masks.class_names, start=int(masks.zero_ignored))
        if not pixels[label]
    ]
    if missing:
        skipped[f"class without a pixel in {split!r} ({some(missing)})"] = len(missing)
    return replace(masks, skipped=dict(+skipped))
