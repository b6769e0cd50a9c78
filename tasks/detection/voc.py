"""PASCAL VOC's format of detection: an XML file per image (Everingham et al. 2010).

Objects marked difficult are crowd regions here: not trained on, and neither right nor wrong to
detect. Scores are COCO's, so they differ from those of VOC's own tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from bench.errors import DataError
from tasks.detection.boxes import BoxImage, BoxSet, make_image, require_images

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes, in the usual order."""

SPLITS = {"train": (("2007", "trainval"), ("2012", "trainval")), "val": (("2007", "test"),)}
"""The usual parts: 07+12 trainval to train, 07 test to score."""


def read_voc(root: Path, split: str, parts: Sequence[tuple[str, str]] | None = None) -> BoxSet:
    """Read one split.

    Args:
        root: the folder that holds VOC2007 and VOC2012, or VOCdevkit, or VOCdevkit itself.
        split: "train" or "val"; where the folder lacks the usual parts, VOC2012's train and val.
        parts: pairs of (year, list in ImageSets/Main) in place of the split's.

    Raises:
        DataError: what is missing or malformed, by file.
    """
    base = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    chosen = parts or SPLITS[split]
    if parts is None and not all(_listing(base, *part).is_file() for part in chosen):
        chosen = (("2012", split),)
    images = []
    for year, name in chosen:
        listing = _listing(base, year, name)
        if not listing.is_file():
            raise DataError(f"`root` (={str(root)!r}) must hold {listing.relative_to(base)}.")
        folder = base / f"VOC{year}"
        stems = [line.split()[0] for line in listing.read_text().splitlines() if line.strip()]
        images += [_image(folder, stem) for stem in stems]
    require_images(images, f"VOC {split}")
    return BoxSet(tuple(images), CLASSES, {})


def _listing(base: Path, year: str, name: str) -> Path:
    return base / f"VOC{year}" / "ImageSets" / "Main" / f"{name}.txt"


def _image(folder: Path, stem: str) -> BoxImage:
    file = folder / "Annotations" / f"{stem}.xml"
    try:
        # These files have no entities, and Python's parser loads nothing from outside.
        tree = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{file.name} in {file.parent} cannot be read: {error}") from None
    rows = []
    for thing in tree.iter("object"):
        name = _text(thing, "name", file)
        if name not in CLASSES:
            raise DataError(f"{file.name} has an object of no class of VOC (={name!r}).")
        x1, y1, x2, y2 = (
            float(_text(thing, f"bndbox/{edge}", file)) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        # Pixels count from 1 and the last one belongs to the box.
        box = (x1 - 1, y1 - 1, x2, y2)
        difficult = thing.findtext("difficult", "0").strip() == "1"
        area = (box[2] - box[0]) * (box[3] - box[1])
        rows.append((box, CLASSES.index(name), difficult, area))
    size = (int(_text(tree, "size/height", file)), int(_text(tree, "size/width", file)))
    return make_image(folder / "JPEGImages" / f"{stem}.jpg", size, rows)


def _text(element: ElementTree.Element, path: str, file: Path) -> str:
    text = element.findtext(path)
    if text is None or not text.strip():
        raise DataError(f"{file.name} has no `{path}`.")
    return text.strip()
