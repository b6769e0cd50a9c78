"""ADE20K's layout: images/{training,validation} and annotations/{training,validation}."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.data.listing import is_image, visible_files
from tasks.data.lists import read_lines
from tasks.layouts.layout import Layout, data_of, evenly, sizes_of

LOOKED_FOR = "segmentation: ADE20K's folders (images/training + annotations/training, …)"
SPLITS = {"train": "training", "val": "validation"}
RELEASE_FOLDER = "ADEChallengeData2016"
CLASS_LISTS = ("objectInfo150.txt", "objectInfo.txt")
MOST_MASKS = 1000


def find(folder: Path) -> Layout | None:
    """Recognise ADE20K's folders; 0 is no class in them."""
    root = folder / RELEASE_FOLDER if (folder / RELEASE_FOLDER).is_dir() else folder
    counts: dict[str, int] = {}
    for split, name in SPLITS.items():
        if not all((root / part / name).is_dir() for part in ("images", "annotations")):
            return None
        counts[split] = sum(map(is_image, visible_files(root / "images" / name)))
    listing = next((root / name for name in CLASS_LISTS if (root / name).is_file()), None)
    if listing is not None:
        rows = [line.split("\t") for line in read_lines(listing) if line.strip()]
        heading = [] if rows[0][0].strip().isdigit() else [t.strip().lower() for t in rows.pop(0)]
        column = heading.index("name") if "name" in heading else -1
        names = tuple(row[column].strip() for row in rows)
    else:
        names = tuple(f"class {k}" for k in range(1, _most(root) + 1))
    return Layout(
        "segmentation",
        "ADE20K files",
        folder,
        data_of("segmentation", "ade20k", folder, num_classes=None if listing else len(names)),
        names,
        counts,
        sizes_of([f for f in visible_files(root / "images" / SPLITS["train"]) if is_image(f)]),
    )


def _most(root: Path) -> int:
    """Return the highest label of the masks, but 255."""
    most = 0
    masks = [path for path in visible_files(root / "annotations") if path.suffix == ".png"]
    for path in evenly(masks, MOST_MASKS):
        with Image.open(path) as image:
            stored = np.array(image)
        most = max(most, int(stored[stored != 255].max(initial=0)))
    return most
