"""COCO's format of key points: as its boxes, with `keypoints` in annotations and their category."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from bench.errors import DataError
from tasks.data.locations import shortened
from tasks.detection.assemble import AREA
from tasks.detection.boxes import require_images
from tasks.detection.coco import NO_AREA, NO_CROWD, Annotation, Category, Image, image_places
from tasks.detection.coco_json import read_entries
from tasks.detection.outlines import ROUNDING, OutlineError, Segmentation, box_of_polygons, mended
from tasks.pose.poses import PoseImage, PoseSet, require_learnable

NO_POINTS = "figure without key points: not learnt where it is, not scored"
OF_NO_POSE = "object of a category without key points left out"
NO_PLACE = "key point without coordinates: not labelled"
OUTSIDE = "key point outside of the image: not labelled"
VISIBILITY = "visibility other than 0, 1, 2: 2 if above 0, else 0"
NUMBER = "num_keypoints missing or not the number that is labelled: counted anew"
NO_BOX = "no bbox that holds: the outline's, or that around the key points"
NOTHING = "figure without a box or key points left out"
OUTLINE = "outline that cannot be decoded: the box in its place"
SKELETON = "line of the skeleton between key points that are not there left out"

Points = NDArray[np.float64]
Box = tuple[float, float, float, float]


class KeypointCategory(Category):
    """An entry of `categories` that may have key points; other keys are not read."""

    keypoints: list[Annotated[str, Field(min_length=1)]] | None = None
    skeleton: Any = None


class KeypointAnnotation(Annotation):
    """An entry of `annotations` that may have key points; other keys are not read."""

    keypoints: list[Annotated[float, Field(allow_inf_nan=False)] | None] | None = None
    num_keypoints: Any = None


def read_keypoints(file: Path, images: Path) -> PoseSet:
    """Read one split.

    Categories with key points must have the same ones, such as the species of a set of animals, and
    are one; objects of others are left out. Key points without coordinates
    or outside of the image count as not labelled, boxes that cannot be are those around the key
    points, and a number or visibility that cannot be is counted anew; all of it is told by kind.

    Args:
        file: the JSON file.
        images: the folder of the images.

    Raises:
        DataError: what is missing, malformed, or refers to what is not there, by file, id and
            field.
    """
    repairs: Counter[str] = Counter()
    models: dict[str, type[BaseModel]] = {
        "images": Image,
        "annotations": KeypointAnnotation,
        "categories": KeypointCategory,
    }
    content = read_entries(file, models, repairs)
    posed = _posed(content["categories"], file)
    names: list[str] = posed[0].keypoints or []
    poses_of = {category.id for category in posed}
    place, paths = image_places(content["images"], images, file, repairs)
    known = {c.id for c in content["categories"]}
    of_image: dict[int, list[_Figure]] = defaultdict(list)
    for annotation in content["annotations"]:
        for field, value, ids in (
            ("image_id", annotation.image_id, place),
            ("category_id", annotation.category_id, known),
        ):
            if value not in ids:
                raise DataError(
                    f"annotation {annotation.id} in {file.name}: `{field}` (={value}) must be that "
                    f"of an entry of `{'images' if field == 'image_id' else 'categories'}`."
                )
        if annotation.category_id not in poses_of:
            repairs[OF_NO_POSE] += 1
            continue
        index = place[annotation.image_id]
        entry: Image = content["images"][index]
        what = f"annotation {annotation.id} in {file.name}"
        figure = _figure(annotation, len(names), (entry.height, entry.width), what, repairs)
        if figure is not None:
            of_image[index].append(figure)
    pose_images = tuple(
        _image(path, (entry.height, entry.width), of_image[index], len(names))
        for index, (path, entry) in enumerate(zip(paths, content["images"], strict=True))
    )
    require_images(pose_images, file.name)
    skeleton = _skeleton(posed[0].skeleton, len(names), file, repairs)
    poses = PoseSet(pose_images, tuple(names), {k: n for k, n in repairs.items() if n}, skeleton)
    require_learnable(poses, file.name)
    return poses


def _posed(categories: Sequence[KeypointCategory], file: Path) -> list[KeypointCategory]:
    """Return the categories that have key points, the same ones in the same order."""
    posed = [category for category in categories if category.keypoints]
    if not posed:
        raise DataError(
            f"{file.name} must have a category with `keypoints`, the names of its key points; "
            "none has."
        )
    other = next((c for c in posed if c.keypoints != posed[0].keypoints), None)
    if other is not None:
        raise DataError(
            f"{file.name}: categories with `keypoints` must have the same in the same order, not "
            f"{shortened(posed[0].name)} and {shortened(other.name)} others."
        )
    names = posed[0].keypoints or []
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"category {posed[0].id} in {file.name}: `keypoints` must be different names, not "
            f"{shortened(twice)} twice."
        )
    return posed


def _skeleton(
    value: Any, count: int, file: Path, repairs: Counter[str]
) -> tuple[tuple[int, int], ...]:
    """Return pairs of places from 0; the file's count from 1."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{file.name}: `skeleton` (={shortened(value)}) must be a list of pairs.")
    lines = []
    for line in value:
        pair = isinstance(line, list) and len(line) == 2 and all(type(end) is int for end in line)
        if pair and all(1 <= end <= count for end in line):
            lines.append((line[0] - 1, line[1] - 1))
        else:
            repairs[SKELETON] += 1
    return tuple(lines)


class _Figure(NamedTuple):
    """One figure, as mended."""

    points: Points
    box: Box
    crowd: bool
    area: float
    outline: Segmentation | None


def _figure(
    annotation: KeypointAnnotation,
    count: int,
    size: tuple[int, int],
    what: str,
    repairs: Counter[str],
) -> _Figure | None:
    points = _points(annotation, count, size, what, repairs)
    on = points[points[:, 2] > 0, :2]
    if annotation.num_keypoints != len(on) or type(annotation.num_keypoints) is not int:
        repairs[NUMBER] += 1
    repairs[NO_CROWD] += annotation.iscrowd is None
    outline = _outline(annotation.segmentation, size, repairs)
    box = _inside(annotation.bbox, size)
    if box is None:
        around = box_of_polygons(annotation.segmentation) if outline is not None else None
        if around is None and len(on):
            (x1, y1), (x2, y2) = on.min(axis=0), on.max(axis=0)
            around = [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)]
        box = _inside(around, size)
        repairs[NO_BOX if box else NOTHING] += 1
    if box is None:
        return None
    crowd = annotation.iscrowd == 1
    if not len(on) and not crowd:
        repairs[NO_POINTS] += 1
    area = annotation.area
    if not area or area > size[0] * size[1]:
        repairs[AREA if area else NO_AREA] += 1
        area = (box[2] - box[0]) * (box[3] - box[1])
    # Outlines of what is learnt are not needed, and large.
    return _Figure(points, box, crowd, area, None if len(on) and not crowd else outline)


def _points(
    annotation: KeypointAnnotation,
    count: int,
    size: tuple[int, int],
    what: str,
    repairs: Counter[str],
) -> Points:
    """Return the key points (K, 3); all zeros where they are not labelled."""
    given = annotation.keypoints or [0.0] * 3 * count
    if len(given) != 3 * count:
        raise DataError(
            f"{what}: `keypoints` (of {len(given)} numbers) must be {3 * count}: x, y and "
            f"visibility of each of the {count} key points of its category."
        )
    points = np.array([np.nan if n is None else n for n in given], dtype=np.float64).reshape(-1, 3)
    seen = np.nan_to_num(points[:, 2], nan=0.0)
    repairs[VISIBILITY] += int((~np.isin(points[:, 2], (0, 1, 2))).sum())
    points[:, 2] = np.where(np.isin(seen, (0, 1, 2)), seen, np.where(seen > 0, 2, 0))
    nowhere = (points[:, 2] > 0) & np.isnan(points[:, :2]).any(axis=1)
    repairs[NO_PLACE] += int(nowhere.sum())
    points[nowhere] = 0
    high = np.array([size[1], size[0]]) - 1 + ROUNDING
    beyond = (points[:, 2] > 0) & ((points[:, :2] < -ROUNDING) | (points[:, :2] > high)).any(axis=1)
    repairs[OUTSIDE] += int(beyond.sum())
    points[beyond] = 0
    points[points[:, 2] == 0] = 0
    return points


def _inside(box: Sequence[float] | None, size: tuple[int, int]) -> Box | None:
    """Return the part of a box [x, y, width, height] in the image, or None if there is none."""
    if box is None:
        return None
    x, y, width, height = box
    x1, x2 = max(0.0, x), min(float(size[1]), x + width)
    y1, y2 = max(0.0, y), min(float(size[0]), y + height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _outline(value: Any, size: tuple[int, int], repairs: Counter[str]) -> Segmentation | None:
    """Return what can be decoded: outlines only say where nothing is learnt."""
    if not value:
        return None
    try:
        outline, _ = mended(value, *size)
    except OutlineError:
        repairs[OUTLINE] += 1
        return None
    return outline


def _image(path: Path, size: tuple[int, int], figures: Sequence[_Figure], count: int) -> PoseImage:
    return PoseImage(
        path=path,
        size=size,
        boxes=np.array([f.box for f in figures], dtype=np.float64).reshape(-1, 4),
        labels=np.zeros(len(figures), dtype=np.int64),
        crowd=np.array([f.crowd for f in figures], dtype=np.bool_),
        area=np.array([f.area for f in figures], dtype=np.float64),
        segmentations=tuple(f.outline for f in figures),
        points=np.array([f.points for f in figures], dtype=np.float64).reshape(-1, count, 3),
    )
