"""mmcv's compiled convolutions and attention, answered through torchvision.ops and torch.

Signatures are those with which mmcv 2.x calls its compiled extension; see `tasks.openmm.boxes`.
"""

from __future__ import annotations

import torch
import torchvision.ops as tv
from torch import Tensor
from torch.nn import functional as F

from tasks.openmm.boxes import at_least_single


def _deform_conv(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: Tensor | None = None,
) -> Tensor:
    x, offset, weight = (at_least_single(t) for t in (x, offset, weight))
    bias, mask = (None if t is None else at_least_single(t) for t in (bias, mask))
    y: Tensor = tv.deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    return y


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
        _deform_conv(input, offset, weight, None, (dH, dW), (padH, padW), (dilationH, dilationW))
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
        y = _deform_conv(
            x, at, weight.detach(), None, (dH, dW), (padH, padW), (dilationH, dilationW)
        )
    for target, grad in zip(
        (grad_input, grad_offset), torch.autograd.grad(y, (x, at), grad_output.to(y)), strict=True
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
        y = _deform_conv(
            input.detach(),
            offset.detach(),
            w,
            None,
            (dH, dW),
            (padH, padW),
            (dilationH, dilationW),
        )
    grad_weight.add_(torch.autograd.grad(y, w, grad_output.to(y))[0], alpha=scale)


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
        _deform_conv(
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
        y = _deform_conv(
            x, at, w, None, (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), m
        )
    grads = torch.autograd.grad(y, leaves, grad_output.to(y))
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(grad_output.sum(dim=(0, 2, 3)))


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
