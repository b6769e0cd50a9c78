"""COCO's average precision of detections, and what each detection was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from tasks.data.order import joined

# Our names, and torchmetrics'.
NAMES = {
    "mAP": "map",
    "mAP50": "map_50",
    "mAP75": "map_75",
    "mAP_small": "map_small",
    "mAP_medium": "map_medium",
    "mAP_large": "map_large",
}
MOST = 100
"""Detections per image and class that count."""


class AveragePrecision(MeanAveragePrecision):
    """torchmetrics' average precision, also where processes score different numbers of images.

    Its own way to join the processes gathers tensor by tensor, which waits for ever there. It
    takes the arguments of `torchmetrics.detection.MeanAveragePrecision`.
    """

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        for name in self._reductions:
            rows = joined([_moved(row, "cpu") for row in getattr(self, name)])
            setattr(self, name, [_moved(row, self.device) for row in rows])


def _moved(row: Any, device: torch.device | str) -> Any:
    """Move a row of a state: a tensor, or run lengths, which are none."""
    return row.to(device) if isinstance(row, Tensor) else row


class Scores(nn.Module):
    """Average precision over images, of boxes and where asked for of masks.

    `mAP` is the mean over classes and over the IoU thresholds 0.50, 0.55 … 0.95; small, medium
    and large objects have areas below 32², below 96² and above, in pixels. With several
    processes the results are over the images of all, and all must ask for them.

    Args:
        masks: whether to score masks as well.
    """

    def __init__(self, masks: bool = False) -> None:
        super().__init__()
        types: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm") if masks else ("bbox",)
        self.prefixes = {"": "bbox_" if masks else ""} | ({"mask_": "segm_"} if masks else {})
        # torchmetrics' own thresholds are rounded to single precision, by which objects that lie
        # on one count differently than for pycocotools.
        with torch.device("cpu"):  # thresholds have no values under torch.device("meta")
            self.metric = AveragePrecision(
                iou_type=types,
                iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
                rec_thresholds=np.linspace(0, 1, 101).tolist(),
                extended_summary=True,
                backend="faster_coco_eval",
            )
        # Some heads return more than the 100 that count.
        self.metric.warn_on_many_detections = False
        self.columns = {"boxes", "labels", "scores", "iscrowd", "area"}
        self.columns |= {"masks"} if masks else set()

    def reset(self) -> None:
        """Forget all images."""
        self.metric.reset()

    def update(
        self, detections: Sequence[Mapping[str, Tensor]], truth: Sequence[Mapping[str, Tensor]]
    ) -> None:
        """Add images.

        Args:
            detections: `boxes`, `scores`, `labels` (and `masks`) of each.
            truth: `boxes`, `labels`, `iscrowd`, `area` (and `masks`) of each.
        """

        def scored(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
            device = self.metric.device
            return {key: value.to(device) for key, value in rows.items() if key in self.columns}

        self.metric.update([scored(rows) for rows in detections], [scored(rows) for rows in truth])

    def summary(self) -> dict[str, float]:
        """Return the metrics by name; without those of sizes of which there are no objects."""
        results = self.metric.compute()
        values = {
            ours + name: float(results[theirs + key])
            for ours, theirs in self.prefixes.items()
            for name, key in NAMES.items()
        }
        return {name: value for name, value in values.items() if value >= 0}

    def per_class(self) -> dict[int, float]:
        """Return label → AP of boxes, of the classes that have objects."""
        results = self.metric.compute()
        key = self.prefixes[""] + "precision"
        if key not in results:
            return {}
        # IoU thresholds, recalls, classes, areas (all first), limits (100 last); -1 for none.
        precision = results[key][:, :, :, 0, -1]
        means = precision.mean(dim=(0, 1)).tolist()
        labels = results["classes"].reshape(-1).tolist()
        return {label: ap for label, ap in zip(labels, means, strict=True) if ap >= 0}


def match(
    detected: Mapping[str, Tensor], truth: Mapping[str, Tensor], threshold: float = 0.5
) -> NDArray[np.int8]:
    """Say of each detection whether it is right (1), wrong (0) or in a crowd region (-1).

    COCO's greedy rule: in each class, best scores first, a detection takes the free object with
    which its IoU is largest and at least the threshold; only where there is none may it fall into
    a crowd region, of which its overlap is the share of its own area inside. Beyond the 100 best
    of a class, detections count as in a crowd.

    Args:
        detected: `boxes` (n, 4), `scores` (n), `labels` (n).
        truth: `boxes` (m, 4), `labels` (m), and perhaps `iscrowd` (m).
        threshold: of the IoU.

    Example:
        >>> import torch
        >>> detected = {
        ...     "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]]),
        ...     "scores": torch.tensor([0.5, 0.9]),
        ...     "labels": torch.tensor([1, 1]),
        ... }
        >>> truth = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1])}
        >>> match(detected, truth).tolist()
        [0, 1]
    """
    boxes, others = (x["boxes"].double().cpu().numpy() for x in (detected, truth))
    labels, classes = (x["labels"].cpu().numpy() for x in (detected, truth))
    scores = detected["scores"].cpu().numpy()
    crowd = (
        truth["iscrowd"].cpu().numpy().astype(bool)
        if "iscrowd" in truth
        else np.zeros(len(others), dtype=bool)
    )
    verdicts = np.full(len(boxes), -1, dtype=np.int8)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")][:MOST]
        objects = np.flatnonzero(classes == label)
        overlap = overlaps(boxes[rows], others[objects], crowd[objects])
        free = ~crowd[objects]
        for row, detection in zip(overlap, rows, strict=True):
            reached = row >= min(threshold, 1 - 1e-10)
            # Of equal overlaps COCO's rule takes the last, and argmax the first.
            candidates = np.flatnonzero(reached & free)[::-1]
            if len(candidates):
                free[candidates[row[candidates].argmax()]] = False
                verdicts[detection] = 1
            elif not (reached & crowd[objects]).any():
                verdicts[detection] = 0
    return verdicts


def overlaps(
    boxes: NDArray[np.float64], others: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the IoU (n, m) of boxes; over the area of the first with crowd regions."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    union = area + (others[:, 2:] - others[:, :2]).prod(axis=1)[None] - inter
    base = np.where(crowd[None], area, union)
    share: NDArray[np.float64] = np.divide(inter, base, out=np.zeros_like(inter), where=base > 0)
    return share
