"""VisDrone2019-DET's format: one text file per image (Zhu et al. 2021, arXiv 2001.06303).

A line is left,top,width,height,score,category,truncation,occlusion. Category 0 is an ignored
region, 11 is "others", and score 0 marks what the benchmark leaves out: these three are crowd
regions here, of every class, so that no detection inside of them is wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.errors import DataError
from tasks.data.images import size_or_largest
from tasks.data.lists import read_lines
from tasks.data.locations import shortened
from tasks.detection.assemble import Objects, assemble
from tasks.detection.boxes import BoxImage, BoxSet, require_images
from tasks.layouts.visdrone import CLASSES, part_of

IGNORED, OTHERS = 0, 11
EVERY_CLASS = -1
FIELDS = ("left", "top", "width", "height", "score", "category", "truncation", "occlusion")
LARGEST = {"score": 1, "category": OTHERS, "truncation": 1, "occlusion": 2}
"""Fields that count from 0, and up to what."""
UNREAD = ("truncation", "occlusion")
"""Fields that are used for nothing here: a value out of their range is counted, no more."""


@dataclass(frozen=True)
class _Object:
    image: int
    box: tuple[int, ...]
    label: int
    name: str


def read_visdrone(root: Path, split: str) -> BoxSet:
    """Read one split.

    Args:
        root: the folder that holds VisDrone2019-DET-train and VisDrone2019-DET-val, each with
            `images` and `annotations`.
        split: "train" or "val".

    Raises:
        DataError: what is missing or malformed, by file, line and field.
    """
    folder = part_of(root, split)
    files = sorted((folder / "annotations").glob("*.txt"))
    if not files:
        raise DataError(f"`root` (={str(root)!r}) must hold {folder.name}/annotations/*.txt.")
    repairs: Counter[str] = Counter()
    paths = [folder / "images" / f"{file.stem}.jpg" for file in files]
    objects = [one for image, file in enumerate(files) for one in _read(file, image, repairs)]
    labels = np.array([o.label for o in objects], dtype=np.int64)
    images, of_boxes = assemble(
        paths,
        [size_or_largest(path) for path in paths],
        Objects(
            np.array([o.image for o in objects], dtype=np.int64),
            np.array([o.box for o in objects], dtype=np.float64).reshape(-1, 4),
            labels,
            labels == EVERY_CLASS,
            np.full(len(objects), np.nan),
            lambda i: f"{objects[i].name}: box (={list(objects[i].box)})",
        ),
    )
    require_images(images, folder.name)
    return BoxSet(tuple(map(_for_every_class, images)), CLASSES, dict(repairs + of_boxes))


def _read(file: Path, image: int, repairs: Counter[str]) -> list[_Object]:
    objects = []
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        what = f"line {number} of {file.name}"
        # Some lines of the published files end in a comma.
        texts = line.strip().removesuffix(",").split(",")
        if len(texts) != len(FIELDS):
            raise DataError(f"{what} (={shortened(line)}) must be {','.join(FIELDS)}.")
        row = {
            field: _integer(text, field, what) for field, text in zip(FIELDS, texts, strict=True)
        }
        for field, largest in LARGEST.items():
            if 0 <= row[field] <= largest:
                continue
            if field not in UNREAD:
                raise DataError(f"{what}: `{field}` (={row[field]}) must be from 0 to {largest}.")
            repairs[f"{field} not from 0 to {largest}: not used"] += 1
        left, top, category = row["left"], row["top"], row["category"]
        box = (left, top, left + row["width"], top + row["height"])
        everywhere = row["score"] == 0 or category in (IGNORED, OTHERS)
        objects.append(_Object(image, box, EVERY_CLASS if everywhere else category - 1, what))
    return objects


def _integer(text: str, field: str, what: str) -> int:
    try:
        number = int(text)
        # What no double can hold is no place in an image.
        float(number)
    except (ValueError, OverflowError):
        raise DataError(f"{what}: `{field}` (={shortened(text)}) must be an integer.") from None
    return number


def _for_every_class(image: BoxImage) -> BoxImage:
    """Repeat the regions that are of every class, once for each."""
    everywhere = image.labels == EVERY_CLASS
    rows = np.repeat(np.arange(len(everywhere)), np.where(everywhere, len(CLASSES), 1))
    labels = image.labels[rows]
    labels[everywhere[rows]] = np.tile(np.arange(len(CLASSES)), int(everywhere.sum()))
    return replace(
        image,
        boxes=image.boxes[rows],
        labels=labels,
        crowd=image.crowd[rows],
        area=image.area[rows],
    )
