"""Writers of the genuine on-disk formats: class folders, COCO, ADE20K."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data.opencv import cv2

Image = NDArray[np.uint8]
JPEG_QUALITY = 95


class Figure(NamedTuple):
    """A posed figure: its visible pixels (H, W), key points (K, 3) and area in pixels.

    A key point is x, y and visibility: 0 not labelled, 1 hidden, 2 visible.
    """

    visible: NDArray[np.bool_]
    points: NDArray[np.float64]
    area: float


def write_image(path: Path, image: Image) -> None:
    """Write RGB (H, W, 3) or labels (H, W) as PNG or JPEG, by the suffix."""
    pixels = image[..., ::-1] if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)[1].tobytes())


def write_class_folder(
    folder: Path, class_names: Sequence[str], samples: Iterable[tuple[Image, int]]
) -> None:
    """Write one split as folder/<class>/<index>.png."""
    for name in class_names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, (image, label) in enumerate(samples):
        write_image(folder / class_names[label] / f"{index:06d}.png", image)


def write_coco(
    root: Path,
    split: str,
    class_names: Sequence[str],
    samples: Iterable[tuple[Image, Sequence[tuple[int, NDArray[np.bool_]]]]],
) -> None:
    """Write one split as <split>/<id>.jpg and annotations/instances_<split>.json.

    A sample is an image and its objects, each a label from 0 and its visible pixels. Boxes are
    tight around those, segmentations are compressed run lengths; categories count from 1.
    """
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    marked = (
        (image, [(visible, {"category_id": label + 1}) for label, visible in objects])
        for image, objects in samples
    )
    _write_coco(root, split, "instances", categories, marked)


def write_coco_keypoints(
    root: Path,
    split: str,
    category: Mapping[str, Any],
    samples: Iterable[tuple[Image, Sequence[Figure]]],
) -> None:
    """Write one split as <split>/<id>.jpg and annotations/person_keypoints_<split>.json.

    Args:
        root: of the set.
        split: "train" or "val".
        category: the only one: its `name`, `keypoints` and `skeleton`.
        samples: an image and its figures each.
    """
    marked = (
        (
            image,
            [
                (
                    figure.visible,
                    {
                        "category_id": 1,
                        "keypoints": [round(float(x), 2) for x in figure.points.ravel()],
                        "num_keypoints": int((figure.points[:, 2] > 0).sum()),
                        "area": figure.area,
                    },
                )
                for figure in figures
            ],
        )
        for image, figures in samples
    )
    _write_coco(root, split, "person_keypoints", [{"id": 1, **category}], marked)


def _write_coco(
    root: Path,
    split: str,
    kind: str,
    categories: Sequence[Mapping[str, Any]],
    samples: Iterable[tuple[Image, Sequence[tuple[NDArray[np.bool_], dict[str, Any]]]]],
) -> None:
    """Write images and the one file of annotations; an object is its pixels and more fields."""
    from pycocotools import mask as coco_mask

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (image, objects) in enumerate(samples, start=1):
        name = f"{index:012d}.jpg"
        write_image(root / split / name, image)
        height, width = image.shape[:2]
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        for visible, fields in objects:
            runs = coco_mask.encode(np.asfortranarray(visible, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": fields["category_id"],
                    "bbox": [float(x) for x in coco_mask.toBbox(runs)],
                    "area": int(coco_mask.area(runs)),
                    "iscrowd": 0,
                    "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                    **fields,
                }
            )
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"{kind}_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_ade20k(
    root: Path, split: str, class_names: Sequence[str], samples: Iterable[tuple[Image, Image]]
) -> None:
    """Write one split as images/<folder>/*.jpg, annotations/<folder>/*.png and objectInfo.txt.

    A sample is an image and its mask: 0 is ignored, k is the k-th class.
    """
    folder, short = {"train": ("training", "train"), "val": ("validation", "val")}[split]
    for index, (image, mask) in enumerate(samples, start=1):
        stem = f"ADE_{short}_{index:08d}"
        write_image(root / "images" / folder / f"{stem}.jpg", image)
        write_image(root / "annotations" / folder / f"{stem}.png", mask)
    rows = [f"{i}\t{name}" for i, name in enumerate(class_names, start=1)]
    (root / "objectInfo.txt").write_text("\n".join(["Idx\tName", *rows, ""]), encoding="utf-8")
