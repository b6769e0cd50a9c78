"""VisDrone2019-DET's layout: VisDrone2019-DET-train and -val, each with images and annotations."""

from __future__ import annotations

from pathlib import Path

from tasks.data.locations import is_there
from tasks.layouts.layout import Layout, data_of, sizes_of

LOOKED_FOR = "detection: VisDrone (VisDrone2019-DET-train and VisDrone2019-DET-val)"
CLASSES = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle",
    "bus", "motor",
)  # fmt: skip


def part_of(root: Path, split: str) -> Path:
    """Return the folder of a split."""
    return root / f"VisDrone2019-DET-{split}"


def find(folder: Path) -> Layout | None:
    """Recognise VisDrone's release."""
    files = {
        split: sorted((part_of(folder, split) / "annotations").glob("*.txt"))
        for split in ("train", "val")
    }
    if not all(files.values()):
        return None
    images = part_of(folder, "train") / "images"
    paths = [images / f"{file.stem}.jpg" for file in files["train"]]
    return Layout(
        "detection",
        "VisDrone",
        folder,
        data_of("detection", "visdrone", folder),
        CLASSES,
        {split: len(listed) for split, listed in files.items()},
        sizes_of([path for path in paths if is_there(path)]),
    )
