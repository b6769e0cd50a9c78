"""PASCAL VOC's release of detection (Everingham et al. 2010): lists of images, an XML file each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.errors import DataError
from tasks.data.lists import listed_names
from tasks.detection.boxes import BoxSet
from tasks.detection.voc_xml import XmlImage, box_set, read_xml
from tasks.layouts.voc import CLASSES, devkit, list_of, parts_of


def read_voc(root: Path, split: str) -> BoxSet:
    """Read one split.

    Args:
        root: the folder that holds VOC2007 and VOC2012, or VOCdevkit, or VOCdevkit itself.
        split: "train" or "val"; where the folder lacks the usual parts, VOC2012's train and val.

    Raises:
        DataError: what is missing or malformed, by file, object and field.
    """
    base = devkit(root)
    repairs: Counter[str] = Counter()
    annotated: list[XmlImage] = []
    for year, name in parts_of(base, split):
        listing = list_of(base, year, name)
        if not listing.is_file():
            raise DataError(f"`root` (={str(root)!r}) must hold {listing.relative_to(base)}.")
        folder = base / f"VOC{year}"
        for stem in listed_names(listing, folder / "Annotations", repairs):
            file = folder / "Annotations" / f"{stem}.xml"
            image = folder / "JPEGImages" / f"{stem}.jpg"
            annotated.append(read_xml(file, image, CLASSES, repairs))
    return box_set(annotated, CLASSES, f"VOC {split}", repairs)
