"""PASCAL VOC's layout of detection: VOC2007 and VOC2012, or VOCdevkit that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.data.lists import read_lines
from tasks.data.locations import is_there
from tasks.layouts.layout import Layout, data_of, sizes_of

LOOKED_FOR = "detection: PASCAL VOC (VOC2007 and VOC2012, or VOCdevkit, with ImageSets/Main)"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes, in the usual order."""

SPLITS = {"train": (("2007", "trainval"), ("2012", "trainval")), "val": (("2007", "test"),)}
"""The usual parts: 07+12 trainval to train, 07 test to score."""


def devkit(root: Path) -> Path:
    """Return the folder that holds VOC2007 and VOC2012."""
    return root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root


def list_of(base: Path, year: str, name: str) -> Path:
    """Return the list of the images of a part."""
    return base / f"VOC{year}" / "ImageSets" / "Main" / f"{name}.txt"


def parts_of(base: Path, split: str) -> Sequence[tuple[str, str]]:
    """Return the usual parts of a split; where any part of any split lacks, VOC2012's own split.

    Both splits decide together: 2012's val is a part of its trainval.
    """
    every = [part for parts in SPLITS.values() for part in parts]
    whole = all(list_of(base, *part).is_file() for part in every)
    return SPLITS[split] if whole else (("2012", split),)


def find(folder: Path) -> Layout | None:
    """Recognise VOC's release."""
    base = devkit(folder)
    counts: dict[str, int] = {}
    paths: list[Path] = []
    for split in SPLITS:
        for year, name in parts_of(base, split):
            listing = list_of(base, year, name)
            if not listing.is_file():
                return None
            stems = [line.split()[0] for line in read_lines(listing) if line.strip()]
            counts[split] = counts.get(split, 0) + len(stems)
            if split == "train":
                images = base / f"VOC{year}" / "JPEGImages"
                paths += [p for stem in stems if is_there(p := images / f"{stem}.jpg")]
    return Layout(
        "detection",
        "PASCAL VOC",
        folder,
        data_of("detection", "voc", folder),
        CLASSES,
        counts,
        sizes_of(paths),
    )
