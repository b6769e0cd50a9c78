"""ADE20K's layout of folders, which `scenes`, `paths` and many other sets share.

root/images/{training,validation}/*.jpg
root/annotations/{training,validation}/*.png     0 = other (ignored), k = class k of the list
root/objectInfo150.txt                           tab-separated, with a column Name
"""

from __future__ import annotations

from pathlib import Path

from bench.errors import DataError
from tasks.segmentation.masks import MaskSet, pair_folders

SPLITS = {"train": "training", "val": "validation"}
RELEASE_FOLDER = "ADEChallengeData2016"
CLASS_LISTS = ("objectInfo150.txt", "objectInfo.txt")


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
    pairs = pair_folders(root / "images" / folder, root / "annotations" / folder)
    return MaskSet(pairs, class_names(root, num_classes), zero_ignored=True)


def class_names(root: Path, num_classes: int | None = None) -> tuple[str, ...]:
    """Read the names of the classes from objectInfo150.txt or objectInfo.txt.

    Raises:
        DataError: If there is no list and no `num_classes`, or the two disagree, or the list's
            numbers are not 1, 2, 3, ….
    """
    listing = next((root / name for name in CLASS_LISTS if (root / name).is_file()), None)
    if listing is None:
        if num_classes is None:
            raise DataError(
                f"There is neither {' nor '.join(CLASS_LISTS)} in {root}; give `num_classes`."
            )
        return tuple(f"class {k}" for k in range(1, num_classes + 1))
    rows = [line.split("\t") for line in listing.read_text(encoding="utf-8").splitlines() if line]
    name_column = -1
    if rows and not rows[0][0].strip().isdigit():
        heading = [title.strip().lower() for title in rows.pop(0)]
        name_column = heading.index("name") if "name" in heading else -1
    numbers = [row[0].strip() for row in rows]
    if not rows or numbers != [str(k) for k in range(1, len(rows) + 1)]:
        raise DataError(f"The first column of {listing} must be 1, 2, 3, … under its heading.")
    if num_classes not in (None, len(rows)):
        raise DataError(
            f"`num_classes` (={num_classes}) must be the {len(rows)} classes of {listing}."
        )
    return tuple(row[name_column].strip() for row in rows)
