"""mmcv's compiled calls, answered through torchvision.ops: no compiler, any device.

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
from torch.nn import functional as F

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


def _at_least_single(x: Tensor) -> Tensor:
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
    boxes, scores = _at_least_single(boxes), _at_least_single(scores)
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
    output.copy_(tv.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned))


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
        x = torch.zeros_like(grad_input, requires_grad=True)
        pooled = tv.roi_align(x, rois, size, spatial_scale, sampling_ratio, aligned)
    grad_input.copy_(torch.autograd.grad(pooled, x, grad_output)[0])


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
                found = value > -torch.inf
                output[part, :, i, j] = torch.where(found, value, 0)
                flat = row.gather(2, column[..., None])[..., 0] * width + column
                argmax[part, :, i, j] = torch.where(found, flat, -1).to(argmax.dtype)


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


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    dH: int,
    dW: int,
    padH: int,
    padW: int,
    dilationH: int,
    dilationW: int,
    **sizes: int,
) -> None:
    """Deformable convolution (Dai et al. 2017, arXiv 1703.06211); groups come from the shapes."""
    output.copy_(
        tv.deform_conv2d(
            input, offset, weight, None, (dH, dW), (padH, padW), (dilationH, dilationW)
        )
    )


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    *,
    dH: int,
    dW: int,
    padH: int,
    padW: int,
    dilationH: int,
    dilationW: int,
    **sizes: int,
) -> None:
    """Gradients of the input and of the offsets."""
    with torch.enable_grad():
        x, at = input.detach().requires_grad_(), offset.detach().requires_grad_()
        y = tv.deform_conv2d(
            x, at, weight.detach(), None, (dH, dW), (padH, padW), (dilationH, dilationW)
        )
    for target, grad in zip(
        (grad_input, grad_offset), torch.autograd.grad(y, (x, at), grad_output), strict=True
    ):
        target.copy_(grad)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    dH: int,
    dW: int,
    padH: int,
    padW: int,
    dilationH: int,
    dilationW: int,
    scale: float,
    **sizes: int,
) -> None:
    """Gradient of the weight, times `scale`, added to `grad_weight`."""
    with torch.enable_grad():
        # The convolution is linear in its weight, so the gradient is the same at zero.
        w = torch.zeros_like(grad_weight, requires_grad=True)
        y = tv.deform_conv2d(
            input.detach(),
            offset.detach(),
            w,
            None,
            (dH, dW),
            (padH, padW),
            (dilationH, dilationW),
        )
    grad_weight.add_(torch.autograd.grad(y, w, grad_output)[0], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Modulated deformable convolution (Zhu et al. 2019, arXiv 1811.11168)."""
    output.copy_(
        tv.deform_conv2d(
            input,
            offset,
            weight,
            bias if with_bias else None,
            (stride_h, stride_w),
            (pad_h, pad_w),
            (dilation_h, dilation_w),
            mask,
        )
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Gradients of everything that `modulated_deform_conv_forward` takes."""
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (input, weight, offset, mask)]
        x, w, at, m = leaves
        y = tv.deform_conv2d(
            x, at, w, None, (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), m
        )
    grads = torch.autograd.grad(y, leaves, grad_output)
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(grad_output.sum(dim=(0, 2, 3)))


def _class_weights(weight: Tensor, target: Tensor) -> Tensor | None:
    """Weight of each sample's class (N); the background, past the last class, weighs nothing."""
    if not weight.numel():
        return None
    return torch.where(target < len(weight), weight[target.clamp(max=len(weight) - 1)], 0)


def _is_class(input: Tensor, target: Tensor) -> Tensor:
    """Where a column is its row's label: (N, C); the background lies past the last column."""
    return target[:, None] == torch.arange(input.shape[1], device=target.device)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002) of logits (N, C), labels 0…C (C: none).

    With p = sigmoid(x): -alpha·(1-p)^gamma·log p for the label's class, and
    -(1-alpha)·p^gamma·log(1-p) for the others.
    """
    x = _at_least_single(input)
    p = x.sigmoid()
    right = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    wrong = -(1 - alpha) * p**gamma * F.logsigmoid(-x)
    loss = torch.where(_is_class(x, target), right, wrong)
    weights = _class_weights(weight, target)
    output.copy_(loss if weights is None else loss * weights[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of the sum of `sigmoid_focal_loss_forward`.

    By formula: that of (1-p)^gamma alone diverges at p = 1 for gamma < 1.
    """
    x = _at_least_single(input)
    p = x.sigmoid()
    right = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(x))
    wrong = -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-x) - p)
    grad = torch.where(_is_class(x, target), right, wrong)
    weights = _class_weights(weight, target)
    grad_input.copy_(grad if weights is None else grad * weights[:, None])


def _softmax_focal(p: Tensor, gamma: float, alpha: float) -> Tensor:
    return -alpha * (1 - p) ** gamma * p.clamp(min=torch.finfo(p.dtype).tiny).log()


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """-alpha·(1-p)^gamma·log p of the label's probability p; negative labels count nothing."""
    p = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = torch.where(target >= 0, _softmax_focal(p, gamma, alpha), 0)
    weights = _class_weights(weight, target.clamp(min=0))
    output.copy_(loss if weights is None else loss * weights)


def softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Gradient by the logits: p·dL/dp·(1[c = label] - softmax_c)."""
    label = target.clamp(min=0)
    p = softmax.gather(1, label[:, None])[:, 0]
    tiny = torch.finfo(p.dtype).tiny
    # (1 - p)^(gamma - 1) diverges at p = 1 for gamma < 1, where the loss itself is flat.
    slope = gamma * (1 - p).clamp(min=tiny) ** (gamma - 1) * p * p.clamp(min=tiny).log()
    buff.copy_(torch.where(target >= 0, alpha * (slope - (1 - p) ** gamma), 0))
    weights = _class_weights(weight, label)
    if weights is not None:
        buff.mul_(weights)
    one = F.one_hot(label, softmax.shape[1]).to(softmax.dtype)
    grad_input.copy_(buff[:, None] * (one - softmax))


def masked_im2col_forward(
    features: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    data_col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Patches of one map (1, C, H, W) at M pixels: (C·kh·kw, M)."""
    padded = F.pad(features[0], (pad_w, pad_w, pad_h, pad_h))
    patches = padded.unfold(1, kernel_h, 1).unfold(2, kernel_w, 1)
    data_col.copy_(patches[:, mask_h_idx, mask_w_idx].permute(0, 2, 3, 1).flatten(0, 2))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Put M columns (C, M) at their pixels of one map (1, C, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col


def _deformable_attention(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    sizes = [(int(h), int(w)) for h, w in shapes]
    parts: tuple[Tensor, ...] = torch.split(value, [h * w for h, w in sizes], dim=1)
    samples = []
    for level, part in enumerate(parts):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples.append(F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False))
    weight = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    out = (torch.cat(samples, dim=3) * weight).sum(dim=3)
    return out.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, arXiv 2010.04159).

    `value` is (N, Σ H·W, heads, C), `sampling_locations` (N, Q, heads, levels, points, 2) in
    0…1 as (x, y), `attention_weights` (N, Q, heads, levels, points); returned is (N, Q, heads·C).
    """
    return _deformable_attention(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of the values, the locations and the weights."""
    with torch.enable_grad():
        leaves = [
            t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)
        ]
        out = _deformable_attention(leaves[0], value_spatial_shapes, leaves[1], leaves[2])
    grads = torch.autograd.grad(out, leaves, grad_output)
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)
