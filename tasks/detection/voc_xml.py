"""One image's annotation as PASCAL VOC writes it: an XML file (Everingham et al. 2010).

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
from tasks.data.images import size_or_largest
from tasks.data.locations import shortened
from tasks.detection.assemble import Objects, assemble
from tasks.detection.boxes import BoxSet, require_images
from tasks.layouts.xml_folders import parse

LONGEST_SIDE = 2**16 - 1
NOT_DIFFICULT = "no difficult given: 0"
NO_SIZE = "no size given: the image's"


@dataclass(frozen=True)
class XmlObject:
    """An object: its box in pixels, and what messages call it."""

    box: tuple[float, ...]
    label: int
    difficult: bool
    name: str


@dataclass(frozen=True)
class XmlImage:
    """An image, its (height, width), and its objects."""

    path: Path
    size: tuple[int, int]
    objects: Sequence[XmlObject]


def box_set(
    annotated: Sequence[XmlImage],
    class_names: tuple[str, ...],
    source: str,
    repairs: Counter[str],
) -> BoxSet:
    """Return the images of a split with what was left out or mended.

    Raises:
        DataError: there are no images or no objects, or an image is missing.
    """
    objects = [one for image in annotated for one in image.objects]
    counts = [len(image.objects) for image in annotated]
    images, of_boxes = assemble(
        [image.path for image in annotated],
        [image.size for image in annotated],
        Objects(
            np.repeat(np.arange(len(annotated)), counts),
            np.array([o.box for o in objects], dtype=np.float64).reshape(-1, 4),
            np.array([o.label for o in objects], dtype=np.int64),
            np.array([o.difficult for o in objects], dtype=np.bool_),
            np.full(len(objects), np.nan),
            lambda i: f"{objects[i].name}: `bndbox` (={list(objects[i].box)})",
        ),
    )
    require_images(images, source)
    return BoxSet(images, class_names, dict(repairs + of_boxes))


def read_xml(
    file: Path,
    image: Path,
    class_names: Sequence[str],
    repairs: Counter[str],
    *,
    mend_size: bool = False,
) -> XmlImage:
    """Read the size and the objects of an image.

    Args:
        file: of the annotation.
        image: that it is of.
        class_names: of the set.
        repairs: what is mended is counted here.
        mend_size: whether a size that is missing or 0, as some tools write it, is the image's.

    Raises:
        DataError: what is missing or malformed, by object and field.
    """
    tree = parse(file)
    if mend_size and _is_without_size(tree):
        repairs[NO_SIZE] += 1
        return XmlImage(image, size_or_largest(image), _objects(tree, file, class_names, repairs))
    sides = tuple(_number(tree, f"size/{side}", file.name) for side in ("height", "width"))
    for side, value in zip(("height", "width"), sides, strict=True):
        if value != int(value) or not 1 <= value <= LONGEST_SIDE:
            raise DataError(
                f"{file.name}: `size/{side}` (={value:g}) must be an integer from 1 to "
                f"{LONGEST_SIDE}."
            )
    size = int(sides[0]), int(sides[1])
    return XmlImage(image, size, _objects(tree, file, class_names, repairs))


def _is_without_size(tree: ElementTree.Element) -> bool:
    texts = [(tree.findtext(f"size/{side}") or "0").strip() for side in ("height", "width")]
    return all(text in ("", "0") for text in texts)


def _objects(
    tree: ElementTree.Element, file: Path, class_names: Sequence[str], repairs: Counter[str]
) -> list[XmlObject]:
    objects = []
    for number, element in enumerate(tree.iter("object"), start=1):
        what = f"object {number} in {file.name}"
        name = _text(element, "name", what)
        if name not in class_names:
            raise DataError(
                f"{file.name} has an object of no class of the set (object {number}: "
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
        objects.append(XmlObject(box, class_names.index(name), difficult == "1", what))
    return objects


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
