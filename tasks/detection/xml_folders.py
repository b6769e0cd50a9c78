"""Folders of images with an XML file each, as PASCAL VOC has them, and classes of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tasks.detection.boxes import BoxSet
from tasks.detection.voc_xml import box_set, read_xml
from tasks.layouts.xml_folders import class_names, require_xml_files


def read_xml_folders(root: Path, split: str | None, max_skipped: float = 0.0) -> BoxSet:
    """Read one split.

    Args:
        root: the folder, as `tasks.layouts.xml_folders` finds it.
        split: "train", "val" or "test"; None for a set without splits, or its only one.
        max_skipped: largest share of it that may be left out although it is annotated.

    Raises:
        DataError: what is missing or malformed, by file, object and field.
    """
    repairs: Counter[str] = Counter()
    listed = require_xml_files(root, split, repairs, max_skipped)
    names = class_names(file for file, _ in listed)
    annotated = [read_xml(file, image, names, repairs, mend_size=True) for file, image in listed]
    return box_set(annotated, names, f"{split or 'the set'} in {root.name}", repairs)
