"""COCO's average precision of poses (OKS AP), and what each predicted figure was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
NAMES = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75")
"""The first eight of COCO's ten."""
TRUTH = ("keypoints", "boxes", "area")
MOST = 20
"""Figures per image that count."""
FOUND = 0.5
"""Similarity from which a figure or a key point counts as found."""


@dataclass(frozen=True)
class Scored:
    """One image: what is there and what was predicted, in pixels of its file.

    Attributes:
        keypoints: (m, K, 3): x, y and visibility.
        boxes: (m, 4) as (x1, y1, x2, y2).
        area: (m).
        crowd: (m).
        predicted: (n, K, 3): x, y and score.
        scores: (n).
    """

    keypoints: Array
    boxes: Array
    area: Array
    crowd: NDArray[np.bool_]
    predicted: Array
    scores: Array

    @classmethod
    def of(cls, truth: Mapping[str, Tensor], predicted: Mapping[str, Tensor]) -> Scored:
        """Return an image out of a target and a prediction."""
        keypoints, boxes, area = (truth[k].double().cpu().numpy() for k in TRUTH)
        crowd = truth["iscrowd"].cpu().numpy().astype(bool)
        found, scores = (predicted[k].double().cpu().numpy() for k in ("keypoints", "scores"))
        return cls(keypoints, boxes, area, crowd, found, scores)

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """Which figures (m) are neither right nor wrong to predict."""
        return np.asarray(self.crowd | ~(self.keypoints[:, :, 2] > 0).any(axis=1), dtype=np.bool_)


def evaluate(images: Sequence[Scored], sigmas: Sequence[float]) -> dict[str, float]:
    """Return COCO's scores of poses over images; those of which there is nothing are left out.

    The similarity of a predicted figure to one that is there is the mean over its labelled key
    points of exp(−d² / (2 A (2σ)²)), with the distance d, the figure's area A and the key point's
    σ (OKS); AP is the mean over the thresholds 0.50, 0.55 … 0.95 of it.

    Args:
        images: all of them.
        sigmas: σ of each key point, as a share of √A.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    content, results = as_coco(images)
    truth = COCO(content)
    found = truth.loadRes(results)
    evaluation = COCOeval_faster(truth, found, "keypoints", kpt_oks_sigmas=list(sigmas))
    evaluation.run()
    values = [float(value) for value in evaluation.all_stats[: len(NAMES)]]
    return {name: value for name, value in zip(NAMES, values, strict=True) if value >= 0}


def as_coco(images: Sequence[Scored]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what is there as the content of a file of COCO's, and its list of results."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index, image in enumerate(images, start=1):
        for points, box, area, crowd in zip(
            image.keypoints, image.boxes, image.area, image.crowd, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "keypoints": points.ravel().tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
        results += [
            {
                "image_id": index,
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "score": float(score),
            }
            for points, score in zip(image.predicted, image.scores, strict=True)
        ]
    listed = [{"id": index} for index in range(1, len(images) + 1)]
    categories = [{"id": 1, "name": "figure"}]
    return {"images": listed, "annotations": annotations, "categories": categories}, results


def similarities(image: Scored, sigmas: Sequence[float]) -> Array:
    """Return how near each key point of each prediction lies, (n, m, K) in 0…1.

    exp(−d² / (2 A (2σ)²)), with d the distance to the key point, not a number where that is not
    labelled; with figures without any, d is the way into a box three times as large as theirs.
    """
    predicted, there = image.predicted[:, None, :, :2], image.keypoints[None]
    labelled = there[..., 2] > 0
    offset = np.abs(predicted - there[..., :2])
    size = image.boxes[:, 2:] - image.boxes[:, :2]
    low, high = image.boxes[:, :2] - size, image.boxes[:, 2:] + size
    into = np.maximum(low[None, :, None] - predicted, 0)
    into += np.maximum(predicted - high[None, :, None], 0)
    without = ~np.asarray(labelled.any(axis=-1))[..., None]
    squared = (np.where(without[..., None], into, offset) ** 2).sum(axis=-1)
    spread = 2 * (image.area[None, :, None] + np.spacing(1)) * (2 * np.asarray(sigmas)) ** 2
    return np.where(labelled | without, np.exp(-squared / spread), np.nan)


def match(image: Scored, sigmas: Sequence[float]) -> tuple[NDArray[np.int8], Array]:
    """Say of each predicted figure whether it is right, and of each key point whether it is found.

    COCO's greedy rule at a similarity of 0.5: best scores first, a prediction takes the free
    figure to which it is most similar; only where there is none may it fall to one that is
    ignored: to a crowd any number, to another one. Beyond the 20 best, predictions count as that.

    Returns:
        (n) verdicts: 1 right, 0 wrong, -1 ignored; and (m, K): 1 for a labelled key point of a
        figure that was taken which lies at a similarity of 0.5 or more, 0 for any other that is
        labelled, not a number where none is labelled or the figure is ignored.
    """
    near = similarities(image, sigmas)
    oks = np.nanmean(near, axis=-1)
    found = np.where(image.keypoints[:, :, 2] > 0, 0.0, np.nan)
    found[image.ignored] = np.nan
    verdicts = np.full(len(image.predicted), -1, dtype=np.int8)
    free = ~image.ignored
    spent = np.zeros_like(free)
    for index in np.argsort(-image.scores, kind="stable")[:MOST]:
        reached = oks[index] >= FOUND
        # Of equal similarities COCO's rule takes the last, and argmax the first.
        candidates = np.flatnonzero(reached & free)[::-1]
        if len(candidates):
            taken = candidates[oks[index, candidates].argmax()]
            free[taken] = False
            verdicts[index] = 1
            seen = ~np.isnan(found[taken])
            found[taken, seen] = near[index, taken, seen] >= FOUND
            continue
        candidates = np.flatnonzero(reached & image.ignored & ~spent)[::-1]
        if len(candidates):
            taken = candidates[oks[index, candidates].argmax()]
            spent[taken] = not image.crowd[taken]
        else:
            verdicts[index] = 0
    return verdicts, found
