"""COCO's format of detection: one JSON file of images, annotations and categories.

Category ids may be sparse (COCO's run from 1 to 90 with gaps): labels are 0…n − 1 in the order of
the ids. Images without objects and crowd regions are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bench.errors import DataError
from tasks.data.locations import end_below, inside, is_there, leads_out, shortened
from tasks.detection.assemble import Objects, assemble
from tasks.detection.boxes import BoxSet, require_images
from tasks.detection.coco_json import read_entries
from tasks.detection.outlines import OutlineError, Segmentation, box_of_polygons, mended
from tasks.layouts.coco import parents_only

LONGEST_SIDE = 2**16 - 1
NO_AREA = "no area given: the box's"
NO_CROWD = "no iscrowd given: 0"
NO_BOX = "annotation without a box left out"
BOX_OF_OUTLINE = "no bbox given: the outline's"
ELSEWHERE = "file name with a path of another machine, of which the end is there"
ROOT = "category without objects that is but the parent of others: no class"

Id = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)

    id: Id


class Image(_Entry):
    """An entry of `images`; other keys are not read."""

    file_name: Annotated[str, Field(min_length=1)]
    height: Side
    width: Side


class Category(_Entry):
    """An entry of `categories`; other keys are not read."""

    name: Annotated[str, Field(min_length=1)]
    supercategory: Any = None


class Annotation(_Entry):
    """An entry of `annotations`; other keys are not read."""

    image_id: Id
    category_id: Id
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    iscrowd: Annotated[int, Field(ge=0, le=1)] | None = None
    segmentation: Any = None


def read_coco(file: Path, images: Path, *, masks: bool = False) -> BoxSet:
    """Read one split.

    Boxes that cannot be (see `tasks.detection.assemble`), polygons of fewer than six numbers and
    objects of which no mask is left are left out, a missing `area`, `iscrowd` or `bbox` is filled
    in, and a category that is but the parent of others is no class; all of it is counted.

    Args:
        file: the JSON file.
        images: the folder of the images.
        masks: whether every object must have a segmentation.

    Raises:
        DataError: what is missing, malformed, or refers to what is not there, by file, id and
            field.
    """
    repairs: Counter[str] = Counter()
    content = read_entries(
        file, {"images": Image, "annotations": Annotation, "categories": Category}, repairs
    )
    annotations: Sequence[Annotation] = content["annotations"]
    roots = parents_only(
        [(c.id, c.name, c.supercategory) for c in content["categories"]],
        {annotation.category_id for annotation in annotations},
    )
    repairs[ROOT] += len(roots)
    categories = [c for c in content["categories"] if c.id not in roots]
    labels = _labels(categories, file)
    place, paths = image_places(content["images"], images, file, repairs)
    for annotation in annotations:
        if annotation.image_id not in place:
            raise DataError(
                f"annotation {annotation.id} in {file.name} is of an image {annotation.image_id} "
                "that is not there (`image_id`)."
            )
        if annotation.category_id not in labels:
            raise DataError(
                f"annotation {annotation.id} in {file.name} is of a category "
                f"{annotation.category_id} not listed (`category_id`)."
            )
    sizes = [(image.height, image.width) for image in content["images"]]
    repairs[NO_AREA] += sum(a.area is None for a in annotations)
    repairs[NO_CROWD] += sum(a.iscrowd is None for a in annotations)
    annotations = list(_with_boxes(annotations, repairs))
    outlines: list[Segmentation] | None = None
    if masks:
        pairs = [
            (a, outline)
            for a in annotations
            if (outline := _outline(a, sizes[place[a.image_id]], file, repairs)) is not None
        ]
        annotations, outlines = [a for a, _ in pairs], [outline for _, outline in pairs]
    objects = Objects(
        np.array([place[a.image_id] for a in annotations], dtype=np.int64),
        _corners(annotations),
        np.array([labels[a.category_id] for a in annotations], dtype=np.int64),
        np.array([a.iscrowd == 1 for a in annotations], dtype=np.bool_),
        np.array([np.nan if a.area is None else a.area for a in annotations], dtype=np.float64),
        lambda i: f"annotation {annotations[i].id} in {file.name}: `bbox` (={annotations[i].bbox})",
        outlines,
    )
    box_images, of_boxes = assemble(paths, sizes, objects)
    require_images(box_images, file.name)
    names = {category.id: category.name for category in categories}
    skipped = {reason: count for reason, count in (repairs + of_boxes).items() if count}
    return BoxSet(box_images, tuple(names[key] for key in labels), skipped)


def _labels(categories: Sequence[Category], file: Path) -> dict[int, int]:
    """Return category id → label."""
    ids = sorted(category.id for category in categories)
    if not ids or len(set(ids)) < len(ids):
        raise DataError(f"{file.name} must list categories with different ids, not {ids} (`id`).")
    names = Counter(category.name for category in categories)
    for category in categories:
        if names[category.name] > 1:
            raise DataError(
                f"category {category.id} in {file.name}: `name` (={shortened(category.name)}) must "
                "not be that of another category."
            )
    return {key: label for label, key in enumerate(ids)}


def image_places(
    entries: Sequence[Image], folder: Path, file: Path, repairs: Counter[str]
) -> tuple[dict[int, int], list[Path]]:
    """Return image id → its place in the list, and the paths of all.

    Raises:
        DataError: an id or a path that is there twice, or a path that leads out of the folder.
    """
    places: dict[int, int] = {}
    paths: dict[Path, int] = {}
    for place, image in enumerate(entries):
        if image.id in places:
            raise DataError(f"{file.name} has the image id {image.id} twice (`id`).")
        source = f"image {image.id} in {file.name}: `file_name`"
        path = folder / image.file_name
        if leads_out(image.file_name) or not is_there(path):
            end = end_below(folder, image.file_name)
            if end is not None and end.is_file():
                path = end
                repairs[ELSEWHERE] += 1
            else:
                path = inside(folder, image.file_name, source)
        if path in paths:
            raise DataError(
                f"{source} (={shortened(image.file_name)}) is also that of image {paths[path]}: "
                "each would be trained on without the objects of the other."
            )
        places[image.id], paths[path] = place, image.id
    return places, list(paths)


def _with_boxes(annotations: Sequence[Annotation], repairs: Counter[str]) -> Iterator[Annotation]:
    """Yield the annotations that have a box, or polygons around which one fits."""
    for annotation in annotations:
        if annotation.bbox is None:
            box = box_of_polygons(annotation.segmentation)
            repairs[NO_BOX if box is None else BOX_OF_OUTLINE] += 1
            if box is None:
                continue
            annotation = annotation.model_copy(update={"bbox": box})
        yield annotation


def _outline(
    annotation: Annotation, size: tuple[int, int], file: Path, repairs: Counter[str]
) -> Segmentation | None:
    what = f"annotation {annotation.id} in {file.name}"
    if not annotation.segmentation:
        raise DataError(f"{what} has no `segmentation`, which a head with masks needs.")
    try:
        outline, changes = mended(annotation.segmentation, *size)
    except OutlineError as rule:
        raise DataError(
            f"{what}: `segmentation` (={shortened(annotation.segmentation)}) must be {rule}."
        ) from None
    repairs.update(changes)
    return outline


def _corners(annotations: Sequence[Annotation]) -> NDArray[np.float64]:
    """Return (n, 4) as (x1, y1, x2, y2)."""
    boxes = np.array([a.bbox for a in annotations], dtype=np.float64).reshape(-1, 4)
    # Sums beyond the largest number are infinite, and found to lie outside.
    with np.errstate(over="ignore"):
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
