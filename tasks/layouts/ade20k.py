"""ADE20K's layout: images/{training,validation} and annotations/{training,validation}."""

from __future__ import annotations

from pathlib import Path

from bench.errors import DataError, require
from tasks.data.listing import visible_files, visible_images
from tasks.data.lists import read_lines, require_class_names
from tasks.data.locations import shortened
from tasks.layouts.layout import Layout, data_of, evenly, sizes_of, stored_mask

LOOKED_FOR = "segmentation: ADE20K's folders (images/training + annotations/training, …)"
SPLITS = {"train": "training", "val": "validation"}
RELEASE_FOLDER = "ADEChallengeData2016"
CLASS_LISTS = ("objectInfo150.txt", "objectInfo.txt")
MOST_MASKS = 1000
MOST_CLASSES = 254
"""Labels from 1 below 255, which is ignored as 0 is."""


def release(folder: Path) -> Path:
    """Return the folder that holds images and annotations."""
    inner = folder / RELEASE_FOLDER
    return inner if inner.is_dir() else folder


def is_laid_out(folder: Path) -> bool:
    """Say whether a folder has this layout; masks of black and white alone are of another."""
    root = release(folder)
    parts = [root / part / name for part in ("images", "annotations") for name in SPLITS.values()]
    return all(map(Path.is_dir, parts)) and (_class_list(root) is not None or _most(root) > 0)


def find(folder: Path) -> Layout | None:
    """Recognise ADE20K's folders; 0 is no class in them."""
    if not is_laid_out(folder):
        return None
    root = release(folder)
    counts = {split: len(visible_images(root / "images" / name)) for split, name in SPLITS.items()}
    count = None if _class_list(root) else _most(root)
    names = class_names(root, count)
    return Layout(
        "segmentation",
        "ADE20K files",
        folder,
        data_of("segmentation", "ade20k", folder, num_classes=count),
        names,
        counts,
        sizes_of(visible_images(root / "images" / SPLITS["train"])),
    )


def class_names(root: Path, num_classes: int | None = None) -> tuple[str, ...]:
    """Read the names of the classes from objectInfo150.txt or objectInfo.txt.

    Raises:
        UserError: If `num_classes` is no number of classes.
        DataError: If there is no list and no `num_classes`, or the two disagree, or the list's
            numbers are not 1, 2, 3, …, or a name is missing or another's.
    """
    if num_classes is not None:
        whole = type(num_classes) is int and 1 <= num_classes <= MOST_CLASSES
        require("num_classes", num_classes, whole, f"an integer from 1 to {MOST_CLASSES}")
    listing = _class_list(root)
    if listing is None:
        if num_classes is None:
            raise DataError(
                f"There is neither {' nor '.join(CLASS_LISTS)} in {root}; give `num_classes`."
            )
        return tuple(f"class {k}" for k in range(1, num_classes + 1))
    lines = [(number, line) for number, line in enumerate(read_lines(listing), start=1) if line]
    column = -1
    if lines and not lines[0][1].split("\t")[0].strip().isdigit():
        heading = [title.strip().lower() for title in lines.pop(0)[1].split("\t")]
        column = heading.index("name") if "name" in heading else -1
    names = []
    for k, (number, line) in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        what = f"line {number} of {listing.name}"
        if cells[0] != str(k):
            raise DataError(
                f"{what}: `Idx` (={shortened(cells[0])}) must be {k}: the first column of "
                f"{listing} must be 1, 2, 3, … under its heading."
            )
        if len(cells) < 2 or len(cells) <= column:
            raise DataError(f"{what} (={shortened(line)}) has no `Name`.")
        names.append(cells[column])
    require_class_names(names, listing.name)
    if num_classes not in (None, len(names)):
        raise DataError(
            f"`num_classes` (={num_classes}) must be the {len(names)} classes of {listing}."
        )
    return tuple(names)


def _class_list(root: Path) -> Path | None:
    return next((root / name for name in CLASS_LISTS if (root / name).is_file()), None)


def _most(root: Path) -> int:
    """Return the highest label of the masks, but 255; those that can't be read have none."""
    most = 0
    masks = [path for path in visible_files(root / "annotations") if path.suffix == ".png"]
    for path in evenly(masks, MOST_MASKS):
        stored = stored_mask(path)
        if stored is not None:
            most = max(most, int(stored[stored != 255].max(initial=0)))
    return most
