"""PASCAL VOC's format of detection: an XML file per image (Everingham et al. 2010).

Objects marked difficult are crowd regions here: not trained on, and neither right nor wrong to
detect. Scores are COCO's, so they differ from those of VOC's own tool.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from bench.errors import DataError
from tasks.data.lists import listed_names
from tasks.data.locations import shortened
from tasks.detection.assemble import Objects, assemble
from tasks.detection.boxes import BoxSet, require_images
from tasks.layouts.voc import CLASSES, devkit, list_of, parts_of

LONGEST_SIDE = 2**16 - 1
NOT_DIFFICULT = "no difficult given: 0"


@dataclass(frozen=True)
class _Object:
    box: tuple[float, ...]
    label: int
    difficult: bool
    name: str


def read_voc(root: Path, split: str, parts: Sequence[tuple[str, str]] | None = None) -> BoxSet:
    """Read one split.

    Args:
        root: the folder that holds VOC2007 and VOC2012, or VOCdevkit, or VOCdevkit itself.
        split: "train" or "val"; where the folder lacks the usual parts, VOC2012's train and val.
        parts: pairs of (year, list in ImageSets/Main) in place of the split's.

    Raises:
        DataError: what is missing or malformed, by file, object and field.
    """
    base = devkit(root)
    chosen = parts or parts_of(base, split)
    repairs: Counter[str] = Counter()
    paths: list[Path] = []
    sizes: list[tuple[int, int]] = []
    objects: list[_Object] = []
    image: list[int] = []
    for year, name in chosen:
        listing = list_of(base, year, name)
        if not listing.is_file():
            raise DataError(f"`root` (={str(root)!r}) must hold {listing.relative_to(base)}.")
        folder = base / f"VOC{year}"
        for stem in listed_names(listing, folder / "Annotations", repairs):
            size, of_image = _read(folder / "Annotations" / f"{stem}.xml", repairs)
            image += [len(paths)] * len(of_image)
            objects += of_image
            paths.append(folder / "JPEGImages" / f"{stem}.jpg")
            sizes.append(size)
    images, of_boxes = assemble(
        paths,
        sizes,
        Objects(
            np.array(image, dtype=np.int64),
            np.array([o.box for o in objects], dtype=np.float64).reshape(-1, 4),
            np.array([o.label for o in objects], dtype=np.int64),
            np.array([o.difficult for o in objects], dtype=np.bool_),
            np.full(len(objects), np.nan),
            lambda i: f"{objects[i].name}: `bndbox` (={list(objects[i].box)})",
        ),
    )
    require_images(images, f"VOC {split}")
    return BoxSet(images, CLASSES, dict(repairs + of_boxes))


def _read(file: Path, repairs: Counter[str]) -> tuple[tuple[int, int], list[_Object]]:
    """Read the size and the objects of an image."""
    tree = _parse(file)
    sides = tuple(_number(tree, f"size/{side}", file.name) for side in ("height", "width"))
    for side, value in zip(("height", "width"), sides, strict=True):
        if value != int(value) or not 1 <= value <= LONGEST_SIDE:
            raise DataError(
                f"{file.name}: `size/{side}` (={value:g}) must be an integer from 1 to "
                f"{LONGEST_SIDE}."
            )
    objects = []
    for number, element in enumerate(tree.iter("object"), start=1):
        what = f"object {number} in {file.name}"
        name = _text(element, "name", what)
        if name not in CLASSES:
            raise DataError(
                f"{file.name} has an object of no class of VOC (object {number}: "
                f"`name` (={shortened(name)}))."
            )
        x1, y1, x2, y2 = (
            _number(element, f"bndbox/{edge}", what) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        if element.find("difficult") is None:
            repairs[NOT_DIFFICULT] += 1
            difficult = "0"
        else:
            difficult = _text(element, "difficult", what)
        if difficult not in ("0", "1"):
            raise DataError(f"{what}: `difficult` (={shortened(difficult)}) must be 0 or 1.")
        # Pixels count from 1 and the last one belongs to the box.
        box = (x1 - 1, y1 - 1, x2, y2)
        objects.append(_Object(box, CLASSES.index(name), difficult == "1", what))
    return (int(sides[0]), int(sides[1])), objects


def _parse(file: Path) -> ElementTree.Element:
    """Parse a file without a document type: only there could entities be declared."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text:
            raise DataError(f"{file.name} in {file.parent} must have no DOCTYPE.")
        return ElementTree.fromstring(text)
    except DataError:
        raise
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{file.name} in {file.parent} cannot be read: {error}") from None


def _text(element: ElementTree.Element, path: str, what: str) -> str:
    texts = [child.text for child in element.findall(path)]
    if len(texts) > 1:
        raise DataError(f"{what} has `{path}` {len(texts)} times.")
    text = (texts[0] or "").strip() if texts else ""
    if not text:
        raise DataError(f"{what} has no `{path}`.")
    return text


def _number(element: ElementTree.Element, path: str, what: str) -> float:
    text = _text(element, path, what)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{what}: `{path}` (={shortened(text)}) must be a finite number.")
    return number
