"""mmdet's data structures around plain tensors: targets in, losses or detections out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tasks.openmm.packages import BitmapMasks, DetDataSample, InstanceData, quiet


def detector_losses(
    model: nn.Module, images: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the losses of a detector of mmdet by name; each is a scalar.

    Args:
        model: a detector.
        images: (N, 3, H, W), normalised and padded.
        targets: for each image `boxes` (n, 4) as (x1, y1, x2, y2) in pixels, `labels` (n) from 0;
            and where they are given `masks` (n, H', W') with H' ≤ H and W' ≤ W, `iscrowd` (n),
            nonzero for regions to ignore, and `size`, the (height, width) without padding.
    """
    padded = (images.shape[-2], images.shape[-1])
    samples = []
    for target in targets:
        size = tuple(int(n) for n in target["size"]) if "size" in target else padded
        sample = _sample(size, padded, None)
        crowd = target["iscrowd"].bool() if "iscrowd" in target else None
        sample.gt_instances = _instances(target, None if crowd is None else ~crowd, padded)
        if crowd is None:
            crowd = torch.zeros(len(target["boxes"]), dtype=torch.bool)
        sample.ignored_instances = InstanceData(bboxes=target["boxes"][crowd])
        samples.append(sample)
    with quiet():
        losses = model.loss(images, samples)  # type: ignore[operator]
    return {
        name: sum(part.mean() for part in value)
        if isinstance(value, (list, tuple))
        else value.mean()
        for name, value in losses.items()
        if "loss" in name
    }


def _instances(
    target: Mapping[str, Tensor], keep: Tensor | None, padded: tuple[int, int]
) -> InstanceData:
    rows = slice(None) if keep is None else keep
    instances = InstanceData(bboxes=target["boxes"][rows].float(), labels=target["labels"][rows])
    if "masks" in target:
        masks = target["masks"][rows].to(torch.uint8)
        room = (0, padded[1] - masks.shape[-1], 0, padded[0] - masks.shape[-2])
        masks = torch.nn.functional.pad(masks, room)
        instances.masks = BitmapMasks(masks.cpu().numpy(), *padded)
    return instances


def _sample(
    size: tuple[int, ...], padded: tuple[int, int], original: tuple[int, int] | None
) -> DetDataSample:
    height, width = size if original is None else original
    meta = {
        "img_shape": size,
        "ori_shape": (height, width),
        "pad_shape": padded,
        "batch_input_shape": padded,
        "scale_factor": (size[1] / width, size[0] / height),
        "flip": False,
    }
    return DetDataSample(metainfo=meta)


def detector_results(
    model: nn.Module,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    originals: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Tensor]]:
    """Return what a detector of mmdet finds, best first.

    Args:
        model: a detector in evaluation mode.
        images: (N, 3, H, W), normalised and padded.
        sizes: (height, width) of each image without padding.
        originals: (height, width) to which each image's boxes and masks are scaled back; None to
            leave them in the pixels of `images`.

    Returns:
        For each image `boxes` (n, 4), `scores` (n), `labels` (n), and where the detector has
        them `masks` (n, height, width), booleans.
    """
    padded = (images.shape[-2], images.shape[-1])
    samples = [
        _sample(size, padded, None if originals is None else originals[i])
        for i, size in enumerate(sizes)
    ]
    with quiet(), torch.no_grad():
        predicted = model.predict(images, samples, rescale=originals is not None)  # type: ignore[operator]
    results = []
    for sample in predicted:
        instances = sample.pred_instances
        order = instances.scores.argsort(descending=True, stable=True)
        result = {
            "boxes": instances.bboxes[order].float(),
            "scores": instances.scores[order].float(),
            "labels": instances.labels[order],
        }
        if "masks" in instances:
            result["masks"] = instances.masks[order].bool()
        results.append(result)
    return results
