"""PASCAL VOC's layout of segmentation: JPEGImages, SegmentationClass, ImageSets/Segmentation."""

from __future__ import annotations

from pathlib import Path

from tasks.data.lists import read_lines
from tasks.data.locations import is_there
from tasks.layouts.layout import Layout, data_of, sizes_of

LOOKED_FOR = "segmentation: PASCAL VOC (JPEGImages, SegmentationClass, ImageSets/Segmentation)"
CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
YEARS = ("VOC2012", "VOC2007")


def release(root: Path) -> Path:
    """Return the folder that holds JPEGImages; 2012's where both years are there."""
    years = [base / year for year in YEARS for base in (root, root / "VOCdevkit")]
    return next((folder for folder in (root, *years) if (folder / "JPEGImages").is_dir()), root)


def list_of(folder: Path, split: str) -> Path:
    """Return the list of the images of a split."""
    return folder / "ImageSets" / "Segmentation" / f"{split}.txt"


def find(folder: Path) -> Layout | None:
    """Recognise VOC's masks."""
    base = release(folder)
    lists = {split: list_of(base, split) for split in ("train", "val")}
    if not all(map(is_there, lists.values())) or not (base / "SegmentationClass").is_dir():
        return None
    names = {
        split: [line.split()[0] for line in read_lines(listing) if line.strip()]
        for split, listing in lists.items()
    }
    paths = [base / "JPEGImages" / f"{name}.jpg" for name in names["train"]]
    return Layout(
        "segmentation",
        "PASCAL VOC",
        folder,
        data_of("segmentation", "voc", folder),
        CLASS_NAMES,
        {split: len(stems) for split, stems in names.items()},
        sizes_of([path for path in paths if is_there(path)]),
    )
