"""COCO's format of detection: one JSON file of images, annotations and categories.

Category ids may be sparse (COCO's run from 1 to 90 with gaps): labels are 0…n − 1 in the order of
the ids. Images without objects and crowd regions are kept.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bench.errors import DataError
from tasks.detection.boxes import BoxImage, BoxSet, make_image, require_images

YEARS = ("2017", "2014", "")


def coco_files(root: Path, split: str) -> tuple[Path, Path]:
    """Return annotation file and image folder of "train" or "val" in COCO's layout.

    That is root/annotations/instances_<split><year>.json beside root/<split><year>/ or
    root/images/<split><year>/; the year is 2017, 2014 or none. The export of Roboflow,
    root/<split>/_annotations.coco.json (valid for val), is known too.

    Raises:
        DataError: neither is there.
    """
    for year in YEARS:
        file = root / "annotations" / f"instances_{split}{year}.json"
        if file.is_file():
            folders = (root / f"{split}{year}", root / "images" / f"{split}{year}", root / "images")
            return file, next((folder for folder in folders if folder.is_dir()), folders[0])
    for name in (split, "valid" if split == "val" else split):
        file = root / name / "_annotations.coco.json"
        if file.is_file():
            return file, file.parent
    raise DataError(
        f"`root` (={str(root)!r}) must hold annotations/instances_{split}2017.json (or without "
        "the year), as COCO does; or name the files by `annotations` and `images`."
    )


def read_coco(file: Path, images: Path, *, masks: bool = False) -> BoxSet:
    """Read one split.

    Args:
        file: the JSON file.
        images: the folder of the images.
        masks: whether every object must have a segmentation.

    Raises:
        DataError: what is missing, malformed, or refers to what is not there, by id.
    """
    content = _load(file)
    labels = _labels(content["categories"], file)
    records = {}
    for image in content["images"]:
        _need(image, ("id", "file_name", "height", "width"), f"an image in {file.name}")
        if image["id"] in records:
            raise DataError(f"{file.name} has the image id {image['id']} twice.")
        records[image["id"]] = image
    of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    skipped: Counter[str] = Counter()
    for annotation in content["annotations"]:
        what = f"annotation {annotation.get('id')} in {file.name}"
        _need(annotation, ("image_id", "category_id", "bbox"), what)
        if annotation["image_id"] not in records:
            raise DataError(f"{what} is of an image {annotation['image_id']} that is not there.")
        if annotation["category_id"] not in labels:
            raise DataError(f"{what} is of a category {annotation['category_id']} not listed.")
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(_finite(x) for x in box)):
            raise DataError(f"{what} has a `bbox` (={box!r}) that is not [x, y, width, height].")
        if masks and not annotation.get("segmentation"):
            raise DataError(f"{what} has no `segmentation`, which a head with masks needs.")
        if box[2] <= 0 or box[3] <= 0:
            skipped["box without area"] += 1
            continue
        of_image[annotation["image_id"]].append(annotation)
    found = tuple(_image(images, record, of_image[key], labels) for key, record in records.items())
    require_images(found, file.name)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    return BoxSet(found, tuple(names[key] for key in labels), dict(skipped))


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"`annotations` (={str(file)!r}) is no file.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file.name} must be an object with images, annotations, categories.")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{file.name} has no list of `{key}`.")
    return content


def _labels(categories: list[dict[str, Any]], file: Path) -> dict[int, int]:
    for category in categories:
        _need(category, ("id", "name"), f"a category in {file.name}")
    ids = sorted(category["id"] for category in categories)
    if not ids or len(set(ids)) < len(ids):
        raise DataError(f"{file.name} must list categories with different ids, not {ids}.")
    return {key: label for label, key in enumerate(ids)}


def _need(record: Any, keys: tuple[str, ...], what: str) -> None:
    lacking = [key for key in keys if not isinstance(record, dict) or key not in record]
    if lacking:
        raise DataError(f"{what} has no `{lacking[0]}`.")


def _finite(x: Any) -> bool:
    return isinstance(x, (int, float)) and math.isfinite(x)


def _image(
    folder: Path, record: dict[str, Any], annotations: list[dict[str, Any]], labels: dict[int, int]
) -> BoxImage:
    rows = []
    for a in annotations:
        x, y, w, h = a["bbox"]
        area = float(a.get("area", w * h))
        rows.append(
            ((x, y, x + w, y + h), labels[a["category_id"]], bool(a.get("iscrowd", 0)), area)
        )
    shapes = [a.get("segmentation") for a in annotations]
    size = (int(record["height"]), int(record["width"]))
    return make_image(folder / record["file_name"], size, rows, shapes if all(shapes) else None)
