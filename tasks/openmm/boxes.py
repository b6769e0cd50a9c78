"""mmcv's compiled calls on boxes and regions, answered through torchvision.ops: any device.

Every function has the signature with which mmcv 2.x calls its compiled extension, so most write
their results into tensors that are handed in. Shapes follow mmcv: boxes are (N, 4) as
(x1, y1, x2, y2), regions of interest (K, 5) as (image, x1, y1, x2, y2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision.ops as tv
from torch import Tensor

_ROIS_AT_ONCE = 64


class CompiledOpError(NotImplementedError):
    """An operation that only a compiled mmcv has."""


def missing(name: str) -> Callable[..., Any]:
    """Return a function that says that `name` needs a compiled mmcv."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise CompiledOpError(
            f"{name} needs a compiled mmcv: it has no answer through torchvision.ops. Install "
            "mmcv (not mmcv-lite) for this torch, or choose a model without this operation."
        )

    refuse.__name__ = name
    return refuse


def at_least_single(x: Tensor) -> Tensor:
    """Return half precision as single: torchvision has no kernels for it on a CPU."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _overlaps(box: Tensor, others: Tensor, offset: int) -> Tensor:
    """IoU of one box (4) with N others (N, 4); `offset` 1 counts both border pixels."""
    side = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])) + offset
    inter = side.clamp(min=0).prod(dim=1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (others[:, 2:] - others[:, :2] + offset).prod(dim=1)
    return inter / (area + areas - inter)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that are kept, by falling score."""
    boxes, scores = at_least_single(boxes), at_least_single(scores)
    grown = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    kept: Tensor = tv.nms(grown.to(scores.dtype), scores, iou_threshold)
    return kept


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al. 2017, arXiv 1704.04503): decay the scores of overlapping boxes.

    `method` is 0 for plain NMS, 1 for linear decay 1 - IoU, 2 for Gaussian decay
    exp(-IoU²/sigma). The kept boxes and their decayed scores go into the first rows of `dets`
    (N, 5); returned are their indices.
    """
    left = torch.arange(len(boxes), device=boxes.device)
    decayed = scores.clone()
    kept: list[int] = []
    while len(left):
        best = int(decayed[left].argmax())
        top = int(left[best])
        dets[len(kept)] = torch.cat([boxes[top], decayed[top : top + 1]])
        kept.append(top)
        left = torch.cat([left[:best], left[best + 1 :]])
        iou = _overlaps(boxes[top], boxes[left], offset)
        if method == 2:
            weight = torch.exp(-(iou**2) / sigma)
        else:
            weight = torch.where(iou >= iou_threshold, 1 - iou if method == 1 else 0.0, 1.0)
        decayed[left] *= weight
        left = left[decayed[left] >= min_score]
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group the boxes (N, 5): each kept box first, then those that it suppresses."""
    left = dets[:, 4].argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    while len(left):
        top, rest = left[0], left[1:]
        close = _overlaps(dets[top, :4], dets[rest, :4], 0) >= iou_threshold
        groups.append([int(top), *rest[close].tolist()])
        left = rest[~close]
    return groups


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """IoU (`mode` 0) or intersection over the first box's area (1), pairwise or aligned."""
    a, b = (bboxes1, bboxes2) if aligned else (bboxes1[:, None], bboxes2[None])
    side = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + offset
    inter = side.clamp(min=0).prod(dim=-1)
    area1 = (a[..., 2:] - a[..., :2] + offset).prod(dim=-1)
    area2 = (b[..., 2:] - b[..., :2] + offset).prod(dim=-1)
    base = area1 + area2 - inter if mode == 0 else area1
    ious.copy_(inter / base.clamp(min=max(offset, 1e-6)))


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al. 2017, arXiv 1703.06870) with average pooling (`pool_mode` 1)."""
    if pool_mode != 1:
        missing("roi_align with pool_mode='max'")()
    size = (aligned_height, aligned_width)
    x = at_least_single(input)
    output.copy_(tv.roi_align(x, rois.to(x), size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward`, which is linear in its input."""
    size = (aligned_height, aligned_width)
    with torch.enable_grad():
        x = torch.zeros_like(at_least_single(grad_input), requires_grad=True)
        pooled = tv.roi_align(x, rois.to(x), size, spatial_scale, sampling_ratio, aligned)
    grad_input.copy_(torch.autograd.grad(pooled, x, grad_output.to(pooled))[0])


def _bins(start: Tensor, size: Tensor, bins: int, length: int) -> Tensor:
    """Which of `length` pixels each bin covers: (K, bins, length), bins rounded outwards."""
    index = torch.arange(bins, device=start.device, dtype=start.dtype)
    step = size[:, None] / bins
    low = (index * step + start[:, None]).floor().clamp(0, length)
    high = ((index + 1) * step + start[:, None]).ceil().clamp(0, length)
    pixel = torch.arange(length, device=start.device)
    return (pixel >= low[..., None]) & (pixel < high[..., None])


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool (Girshick 2015) as mmcv defines it: region [x1, x2 + 1)·scale, not rounded.

    torchvision rounds the region first, which gives other bins. The maximum runs over the rows
    and then over the columns; `argmax` (K, C, h, w) is the flat index of the pixel, -1 for none.
    """
    height, width = input.shape[2:]
    for low in range(0, len(rois), _ROIS_AT_ONCE):
        part = slice(low, low + _ROIS_AT_ONCE)
        image, edges = rois[part, 0].long(), rois[part, 1:]
        start, end = edges[:, :2] * spatial_scale, (edges[:, 2:] + 1) * spatial_scale
        size = end - start
        real = ((size[:, 0] > 0) & (size[:, 1] > 0))[:, None, None]
        rows = _bins(start[:, 1], size[:, 1], pooled_height, height) & real
        columns = _bins(start[:, 0], size[:, 0], pooled_width, width) & real
        maps = input[image]
        for i in range(pooled_height):
            inside = maps.masked_fill(~rows[:, None, i, :, None], -torch.inf)
            tallest, row = inside.max(dim=2)
            for j in range(pooled_width):
                value, column = tallest.masked_fill(~columns[:, None, j], -torch.inf).max(dim=2)
                covered = value > -torch.inf
                output[part, :, i, j] = torch.where(covered, value, 0)
                flat = row.gather(2, column[..., None])[..., 0] * width + column
                argmax[part, :, i, j] = torch.where(covered, flat, -1).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Each pooled value's gradient goes to the pixel that it was taken from."""
    channels, height, width = grad_input.shape[1:]
    flat = argmax.long().flatten(2)
    image = rois[:, 0].long()[:, None, None].expand_as(flat)
    channel = torch.arange(channels, device=flat.device)[None, :, None].expand_as(flat)
    from_pixel = flat >= 0
    grad_input.view(-1, channels, height * width).index_put_(
        (image[from_pixel], channel[from_pixel], flat[from_pixel]),
        grad_output.flatten(2)[from_pixel],
        accumulate=True,
    )
