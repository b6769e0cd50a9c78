"""Sets of image and mask files: how they are paired, read and checked before training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.errors import DataError
from bench.hashing import digest, file_sha256, files_digest
from tasks.data.locations import cache_folder

IGNORED = 255
"""Label of the pixels that count neither in a loss nor in a score."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class MaskSet:
    """One split of a segmentation set.

    Attributes:
        pairs: Paths of each image and of its mask.
        class_names: Names of the classes, in the order of their labels.
        zero_ignored: Whether a stored 0 means "no class", as in ADE20K, so that a stored k is
            class k − 1. Otherwise a stored k is class k. A stored 255 is ignored either way.
    """

    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...]
    zero_ignored: bool = field(default=False)

    def subset(self, indices: Sequence[int]) -> MaskSet:
        """Return the set of the given pairs only."""
        return MaskSet(tuple(self.pairs[i] for i in indices), self.class_names, self.zero_ignored)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as RGB, (H, W, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def read_mask(path: Path, zero_ignored: bool = False) -> NDArray[np.uint8]:
    """Read a mask as labels, (H, W), in which 255 is ignored.

    Args:
        path: A grey or palette image with one class index a pixel.
        zero_ignored: A stored 0 becomes 255 and a stored k becomes k − 1.

    Raises:
        DataError: If the file is a colour image or holds indices above 255.
    """
    stored = _indices(path)
    if stored.max(initial=0) > IGNORED:
        raise DataError(f"{path.name} holds the label {stored.max()}; labels must be at most 255.")
    labels = stored.astype(np.uint8)
    if zero_ignored:
        # uint8 wraps 0 − 1 to 255, and 255 must stay what it is.
        labels = np.where(labels == IGNORED, labels, labels - np.uint8(1))
    return labels


def _indices(path: Path) -> NDArray[np.integer]:
    with Image.open(path) as image:
        if image.mode not in ("L", "P", "1", "I", "I;16"):
            raise DataError(
                f"{path.name} is a colour image (mode {image.mode}); a mask must be a grey or "
                "palette image with one class index a pixel."
            )
        return np.array(image, dtype=np.int64 if image.mode != "P" else np.uint8)


def pair_folders(
    images: Path, masks: Path, image_suffix: str | None = None, mask_suffix: str | None = None
) -> tuple[tuple[Path, Path], ...]:
    """Pair the images with the masks of the same relative path, sub-folders included.

    Args:
        images: Folder of images.
        masks: Folder of masks.
        image_suffix: How the name of every image ends, e.g. "_leftImg8bit.png"; files that end
            otherwise are left aside. By default any image file.
        mask_suffix: Likewise for the masks, e.g. "_gtFine_labelTrainIds.png".

    Returns:
        (image, mask) in the order of their names.

    Raises:
        DataError: If a folder or a partner is missing, or two files compete for one name.
    """
    found = _by_stem(images, "images", (image_suffix,) if image_suffix else IMAGE_SUFFIXES)
    wanted = _by_stem(masks, "masks", (mask_suffix,) if mask_suffix else MASK_SUFFIXES)
    lonely = sorted(found.keys() - wanted.keys())
    if lonely:
        raise DataError(
            f"{len(lonely)} of {len(found)} images in {images} have no mask in {masks}: "
            f"{_some(lonely)}."
        )
    spare = sorted(wanted.keys() - found.keys())
    if spare:
        raise DataError(
            f"{len(spare)} of {len(wanted)} masks in {masks} have no image in {images}: "
            f"{_some(spare)}."
        )
    return tuple((found[stem], wanted[stem]) for stem in sorted(found))


def _by_stem(folder: Path, what: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"There is no folder of {what} at {folder}.")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
        if suffix is None or not path.is_file():
            continue
        stem = name[: -len(suffix)]
        if stem in files:
            raise DataError(f"{files[stem].name} and {path.name} in {folder} have the same name.")
        files[stem] = path
    if not files:
        raise DataError(f"There are no {what} ({', '.join(suffixes)}) in {folder}.")
    return files


def check(masks: MaskSet, root: Path) -> str:
    """Read every pair once and say what is wrong with the set.

    A set that passed is remembered in the cache by the names, sizes and times of its files, so
    that the next run starts at once.

    Args:
        masks: The set.
        root: The folder to which the names of its files are relative in the hash.

    Returns:
        SHA-256 over the sorted list of files and their own hashes.

    Raises:
        DataError: If a file can't be read, an image and its mask differ in size, or a mask holds
            a label without a class; names the first few files of each fault.
    """
    paths = [path for pair in masks.pairs for path in pair]
    state = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    key = digest([str(root), state, len(masks.class_names), masks.zero_ignored])
    note = cache_folder() / "checked" / f"{key}.json"
    if note.exists():
        return str(json.loads(note.read_text(encoding="utf-8"))["files_sha256"])
    with ThreadPoolExecutor() as pool:
        faults = list(pool.map(_checker(masks), masks.pairs))
        hashes = list(pool.map(file_sha256, paths))
    _complain(faults)
    names = (path.relative_to(root).as_posix() for path in paths)
    answer = files_digest(dict(zip(names, hashes, strict=True)))
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"files_sha256": answer}), encoding="utf-8")
    return answer


_Fault = tuple[str, str]
"""The kind of a fault and the file that has it."""


def _checker(masks: MaskSet) -> Callable[[tuple[Path, Path]], _Fault | None]:
    classes = len(masks.class_names)
    low, high = (0, classes) if masks.zero_ignored else (0, classes - 1)

    def fault(pair: tuple[Path, Path]) -> _Fault | None:
        image_path, mask_path = pair
        try:
            image = read_image(image_path)
        except (OSError, UnidentifiedImageError) as error:
            return "can't be read", f"{image_path.name} ({error})"
        try:
            stored = _indices(mask_path)
        except (OSError, UnidentifiedImageError) as error:
            return "can't be read", f"{mask_path.name} ({error})"
        except DataError as error:
            return "can't be used as masks", str(error).rstrip(".")
        if stored.shape != image.shape[:2]:
            sizes = f"{image.shape[1]}×{image.shape[0]} and {stored.shape[1]}×{stored.shape[0]}"
            return "differ in size from their masks", f"{image_path.name} ({sizes})"
        wrong = np.unique(stored[(stored > high) & (stored != IGNORED)])
        if wrong.size:
            found = _some([str(label) for label in wrong])
            return f"hold labels outside {low}…{high} (and 255)", f"{mask_path.name} ({found})"
        return None

    return fault


def _complain(faults: Iterable[_Fault | None]) -> None:
    kinds: dict[str, list[str]] = {}
    for found in faults:
        if found is not None:
            kinds.setdefault(found[0], []).append(found[1])
    if kinds:
        lines = (f"{len(files)} files {kind}: {_some(files)}." for kind, files in kinds.items())
        raise DataError(" ".join(lines))


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
