"""mIoU, mAcc and aAcc from confusion matrices, one of which is kept for every image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from tasks.segmentation.masks import IGNORED


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of one image by label (row) and prediction (column).

    Args:
        predicted: (H, W) or (1, H, W) labels in 0…num_classes − 1.
        labels: The same shape; 255 is left out.
        num_classes: C.

    Returns:
        (C, C) int64.

    Example:
        >>> confusion(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]), 2)
        tensor([[1, 1],
                [0, 0]])
    """
    return multiclass_confusion_matrix(
        predicted, labels, num_classes, ignore_index=IGNORED, validate_args=False
    )


def scores(matrix: Tensor) -> dict[str, Tensor]:
    """Turn the confusion matrix of a whole set into scores, as mmsegmentation's IoUMetric does.

    IoU of a class = intersection / union, Acc of a class = intersection / its labelled pixels,
    over the set and not per image. A class that occurs neither in labels nor in predictions has
    no IoU, one without labels no Acc: they are nan and are left out of the means.

    Args:
        matrix: (C, C) counts, labels in rows.

    Returns:
        mIoU, mAcc, aAcc (scalars) and IoU, Acc (C,), float64 fractions.

    Example:
        >>> s = scores(torch.tensor([[3, 1], [0, 4]]))
        >>> round(s["mIoU"].item(), 4), round(s["mAcc"].item(), 4), s["aAcc"].item()
        (0.775, 0.875, 0.875)
    """
    counts = matrix.double()
    right = counts.diagonal()
    labelled, predicted = counts.sum(1), counts.sum(0)
    iou = right / (labelled + predicted - right)
    acc = right / labelled
    return {
        "mIoU": iou.nanmean(),
        "mAcc": acc.nanmean(),
        "aAcc": right.sum() / counts.sum(),
        "IoU": iou,
        "Acc": acc,
    }


def sampling_error(matrices: Tensor) -> float:
    """Return the standard error of mIoU from the finite set of images, by the jackknife.

    Each image is left out in turn; the variance of mIoU is (n − 1)/n times the sum of squared
    deviations of the n values that remain (Efron and Stein 1981).

    Args:
        matrices: (N, C, C), one confusion matrix an image.

    Returns:
        A fraction; nan with fewer than two images.
    """
    count = len(matrices)
    if count < 2:
        return float("nan")
    total = matrices.sum(0)
    left_out = torch.stack([scores(total - one)["mIoU"] for one in matrices])
    return float((left_out.var(unbiased=False) * (count - 1)).sqrt())
