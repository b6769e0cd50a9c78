"""ADE20K's layout of folders, which `scenes`, `paths` and many other sets share.

root/images/{training,validation}/*.jpg
root/annotations/{training,validation}/*.png     0 = other (ignored), k = class k of the list
root/objectInfo150.txt                           tab-separated, with a column Name
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.errors import DataError, require
from tasks.data.lists import read_lines, require_class_names
from tasks.data.locations import shortened
from tasks.layouts.ade20k import CLASS_LISTS, RELEASE_FOLDER, SPLITS
from tasks.segmentation.masks import IGNORED, MaskSet
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
    if (root / RELEASE_FOLDER).is_dir():
        root = root / RELEASE_FOLDER
    folder = SPLITS[split]
    skipped: Counter[str] = Counter()
    pairs = pair_folders(root / "images" / folder, root / "annotations" / folder, skipped=skipped)
    names = class_names(root, num_classes)
    return MaskSet(pairs, names, zero_ignored=True, skipped=dict(+skipped))


def class_names(root: Path, num_classes: int | None = None) -> tuple[str, ...]:
    """Read the names of the classes from objectInfo150.txt or objectInfo.txt.

    Raises:
        UserError: If `num_classes` is no number of classes.
        DataError: If there is no list and no `num_classes`, or the two disagree, or the list's
            numbers are not 1, 2, 3, …, or a name is missing or another's.
    """
    if num_classes is not None:
        whole = type(num_classes) is int and 1 <= num_classes < IGNORED
        require("num_classes", num_classes, whole, f"an integer from 1 to {IGNORED - 1}")
    listing = next((root / name for name in CLASS_LISTS if (root / name).is_file()), None)
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
