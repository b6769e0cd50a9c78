"""Predictions beside the truth: some images of the scored split in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bench.analysis import draw, predict
from tasks.data.holdout import evenly_spaced

if TYPE_CHECKING:
    from tasks.base import TaskModule
    from tasks.data.module import TaskData

IMAGES = 3
GAP = 6
"""Pixels between two drawings."""


def beside_picture(module: TaskModule, data: TaskData, path: Path) -> None:
    """Draw some images of the scored split, their truth above what is predicted, as a JPEG.

    Of detections and figures the surest are drawn, as many as there are: a threshold on the score
    would show nothing of one network and hundreds of boxes of another.

    Args:
        module: the trained network, in evaluation mode.
        data: its data.
        path: of the file.
    """
    data.prepare_data()
    columns = []
    scored = data.split_sizes[1]
    for index in evenly_spaced(scored, min(IMAGES, scored)).tolist():
        image, truth = data.example(data.scored, index)
        canvas, truth = _shrunk(image, truth)
        objects = truth.get("boxes", truth.get("keypoints"))
        most = None if objects is None else len(objects)
        above = draw.truth(canvas, truth, data.class_names)
        below = predict.draw(module, data, data.class_names, image, 0.0, canvas=canvas, most=most)
        columns.append((above.picture, below.picture))
    F.to_pil_image(_in_columns(columns)).save(path, "JPEG", quality=80)


def _shrunk(image: Tensor, truth: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Shrink a large image, with its truth, to a short side of `draw.SHORTEST`."""
    if min(image.shape[-2:]) <= draw.SHORTEST:
        return image, dict(truth)
    small = F.resize(image, [draw.SHORTEST], antialias=True)
    changed = dict(truth)
    if "boxes" in truth:
        sides = zip(small.shape[:0:-1], image.shape[:0:-1], strict=True)  # width, height
        changed["boxes"] = truth["boxes"] * torch.tensor([a / b for a, b in sides]).repeat(2)
    if "keypoints" in truth:
        scale = torch.tensor([small.shape[2] / image.shape[2], small.shape[1] / image.shape[1]])
        changed["keypoints"] = points = truth["keypoints"].clone()
        points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
    if "mask" in truth:
        mask = F.resize(truth["mask"][None], small.shape[-2:], F.InterpolationMode.NEAREST)
        changed["mask"] = mask[0]
    return small, changed


def _in_columns(columns: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Put pairs of pictures of one size side by side, each pair one above the other, on white."""
    height = max(above.shape[1] for above, _ in columns)
    width = sum(above.shape[2] + GAP for above, _ in columns) - GAP
    whole = torch.full((3, 2 * height + GAP, width), 255, dtype=torch.uint8)
    left = 0
    for pair in columns:
        for row, picture in enumerate(pair):
            top = row * (height + GAP)
            whole[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
        left += pair[0].shape[2] + GAP
    return whole
