"""Which mask belongs to which image: files of the same relative path in two folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.errors import DataError
from tasks.data.faults import some
from tasks.data.listing import IMAGE_SUFFIXES, visible_files

OTHER = "other suffix"


def pair_folders(
    images: Path,
    masks: Path,
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
    *,
    skipped: Counter[str] | None = None,
) -> tuple[tuple[Path, Path], ...]:
    """Pair the images with the masks of the same relative path, sub-folders included.

    Args:
        images: Folder of images.
        masks: Folder of masks.
        image_suffix: How the name of every image ends, e.g. "_leftImg8bit.png"; files that end
            otherwise are left aside. By default any image file.
        mask_suffix: Likewise for the masks, e.g. "_gtFine_labelTrainIds.png".
        skipped: Files that are no images, where no suffix is given, and hidden images are
            counted here.

    Returns:
        (image, mask) in the order of their names.

    Raises:
        DataError: If a folder or a partner is missing, or two files compete for one name.
    """
    counts = Counter[str]() if skipped is None else skipped
    of_images = _by_stem(images, "images", image_suffix, counts)
    of_masks = _by_stem(masks, "masks", mask_suffix, counts)
    for what, stems, folder, partner, partners, other in (
        ("images", of_images, images, "mask", of_masks, masks),
        ("masks", of_masks, masks, "image", of_images, images),
    ):
        alone = sorted(stems.keys() - partners.keys())
        if alone:
            raise DataError(
                f"{len(alone)} of {len(stems)} {what} in {folder} have no {partner} in {other}: "
                f"{some(alone)}."
            )
    return tuple((of_images[stem], of_masks[stem]) for stem in sorted(of_images))


def _by_stem(folder: Path, what: str, suffix: str | None, skipped: Counter[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"There is no folder of {what} at {folder}.")
    suffixes = (suffix,) if suffix else sorted(IMAGE_SUFFIXES)
    files: dict[str, Path] = {}
    for path in visible_files(folder, skipped):
        name = path.relative_to(folder).as_posix()
        ending = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
        if ending is None:
            skipped[OTHER] += suffix is None
            continue
        stem = name[: -len(ending)]
        if stem in files:
            raise DataError(f"{files[stem].name} and {path.name} in {folder} have the same name.")
        files[stem] = path
    if not files:
        raise DataError(f"There are no {what} ({', '.join(suffixes)}) in {folder}.")
    return files
