"""Shift-Conv's first form: a strip of M × N taps split exactly into N × N kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.operators.base import ConvSpec, Operator, fold_norm
from bench.operators.depthwise import depthwise_conv2d
from bench.operators.kernels import require_small_kernel
from bench.operators.registry import register
from bench.operators.shift import Strips, subsample
from bench.operators.shift_strips import (
    add_to_strip,
    blocks_for,
    horizontal,
    vertical,
)


def split_strip(kernel: Tensor, small_kernel: int) -> Tensor:
    """Split strips into the small kernels that add up to them.

    Args:
        kernel: (C, 1, N, M) along the width, or (C, 1, M, N) along the height.
        small_kernel: N.

    Returns:
        (C, nk, N, N) with nk = ⌈M / N⌉, the last one filled up with zeros.

    Example:
        >>> split_strip(torch.ones(1, 1, 3, 7), 3).sum((2, 3))
        tensor([[9., 9., 3.]])
    """
    n = small_kernel
    if kernel.shape[2] == n:
        blocks = blocks_for(kernel.shape[3], n)
        filled = F.pad(kernel, (0, blocks * n - kernel.shape[3]))
        return filled.view(len(kernel), n, blocks, n).transpose(1, 2)
    blocks = blocks_for(kernel.shape[2], n)
    filled = F.pad(kernel, (0, 0, 0, blocks * n - kernel.shape[2]))
    return filled.view(len(kernel), blocks, n, n)


def shift_sum(y: Tensor, small_kernel: int, before: int, dim: int) -> Tensor:
    """Shift the outputs of the small kernels along a strip and add them up.

    Args:
        y: (N, C, nk, H + N − 1, W + N − 1), outputs of the N × N kernels padded by N − 1.
        small_kernel: N.
        before: taps of the strip before the output pixel.
        dim: 2 for a strip along the height, 3 along the width.

    Returns:
        (N, C, H, W): the strip's convolution, Σ_i y_i shifted by i·N − before.
    """
    n, blocks = small_kernel, y.shape[2]
    height, width = y.shape[3] - n + 1, y.shape[4] - n + 1
    centred = n - 1 - n // 2
    y = y.narrow(3 if dim == 3 else 4, centred, height if dim == 3 else width)
    first = n - 1 - before
    last = first + (blocks - 1) * n
    size, length = (height if dim == 2 else width), y.shape[dim + 1]
    lead, tail = max(-first, 0), max(last + size - length, 0)
    y = F.pad(y, (0, 0, lead, tail) if dim == 2 else (lead, tail))
    out = y[:, :, 0].narrow(dim, first + lead, size)
    for i in range(1, blocks):
        out = out + y[:, :, i].narrow(dim, first + i * n + lead, size)
    return out


@register("shift_split")
class ShiftSplit(Operator):
    """Shift-Conv, v1 (arXiv 2401.12736): strips by small kernels and shifts, depthwise.

    One grouped convolution C → C·nk with N × N kernels, nk = ⌈M / N⌉, serves both directions: its
    outputs, weighted by a learned mask per direction, are shifted by multiples of N along the
    strip and added, which equals a dense strip of nk·N taps, M // 2 of them before the pixel:

        y = BN(Σ_i σ(m_h[i])·shift_h(w_i ∗ x)) + BN(Σ_i σ(m_v[i])·shift_v(w_i ∗ x))
            + BN(s ∗ x),

    with s an N × N kernel of its own, and σ the logistic function. M is the size of the replaced
    kernel, also where N divides M. At stride s everything is taken at every s-th pixel. The
    inference form is two dense strips.

    Args:
        spec: depthwise, a square kernel of odd size, padded with zeros to the same size.
        small_kernel: N, odd, at most M.

    Raises:
        ValueError: another convolution, or an even small kernel.

    Example:
        >>> spec = ConvSpec.make(in_channels=4, out_channels=4, kernel_size=9, groups=4)
        >>> op = ShiftSplit(spec)
        >>> op(torch.zeros(1, 4, 14, 20)).shape, op.params()
        (torch.Size([1, 4, 14, 20]), 192)
    """

    requires = ("depthwise", "odd_square", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, small_kernel: int = 3) -> None:
        super().__init__(spec)
        require_small_kernel(small_kernel, spec)
        self.small_kernel = small_kernel
        self.blocks = blocks_for(spec.kernel_size[0], small_kernel)
        count, bound = spec.in_channels * self.blocks, 1 / small_kernel
        self.weight = nn.Parameter(torch.empty(count, 1, small_kernel, small_kernel))
        self.centre = nn.Parameter(torch.empty(spec.in_channels, 1, small_kernel, small_kernel))
        self.mask_horizontal = nn.Parameter(torch.empty(spec.in_channels, self.blocks))
        self.mask_vertical = nn.Parameter(torch.empty(spec.in_channels, self.blocks))
        for kernels in (self.weight, self.centre):
            nn.init.uniform_(kernels, -bound, bound)
        for mask in (self.mask_horizontal, self.mask_vertical):
            nn.init.uniform_(mask, -1, 1)
        self.norm_horizontal = nn.BatchNorm2d(spec.in_channels)
        self.norm_vertical = nn.BatchNorm2d(spec.in_channels)
        self.norm_centre = nn.BatchNorm2d(spec.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/s⌉, ⌈W/s⌉)."""
        n, stride, channels = self.small_kernel, self.spec.stride, self.spec.in_channels
        before = self.spec.kernel_size[0] // 2
        y = depthwise_conv2d(x, self.weight, padding=(n - 1, n - 1))
        y = torch.unflatten(y, 1, (channels, self.blocks))
        masks = (self.mask_horizontal, self.mask_vertical)
        kept_h, kept_v = (y * m.sigmoid()[..., None, None].to(y.dtype) for m in masks)
        strip_h = subsample(shift_sum(kept_h, n, before, 3), stride)
        strip_v = subsample(shift_sum(kept_v, n, before, 2), stride)
        centre = depthwise_conv2d(x, self.centre, None, stride, (n // 2, n // 2))
        out: Tensor = self.norm_horizontal(strip_h)
        out = out + self.norm_vertical(strip_v) + self.norm_centre(centre)
        return out

    def macs(self, h: int, w: int) -> int:
        """C·N²·(nk·(H + N − 1)·(W + N − 1) + H'·W'), whatever the stride: shifts need all pixels.

        Masks and sums are not counted.
        """
        n = self.small_kernel
        oh, ow = self.spec.output_size(h, w)
        pixels = self.blocks * (h + n - 1) * (w + n - 1) + oh * ow
        return self.spec.in_channels * n * n * pixels

    def params(self) -> int:
        """C·((nk + 1)·N² + 2·nk + 6)."""
        nk = self.blocks
        return self.spec.in_channels * ((nk + 1) * self.small_kernel**2 + 2 * nk + 6)

    def fused(self) -> Operator:
        """Assemble the two strips, fold the norms, put the centre into the horizontal strip."""
        blocks = torch.unflatten(self.weight.detach()[:, 0], 0, (-1, self.blocks))
        masks = (self.mask_horizontal.detach(), self.mask_vertical.detach())
        kept_h, kept_v = (blocks * m.sigmoid()[..., None, None] for m in masks)
        kernel_h, bias_h = fold_norm(horizontal(kept_h), None, self.norm_horizontal)
        kernel_v, bias_v = fold_norm(vertical(kept_v), None, self.norm_vertical)
        kernel_c, bias_c = fold_norm(self.centre, None, self.norm_centre)
        kernel_h = add_to_strip(kernel_h, kernel_c, self.spec.kernel_size[0] // 2)
        channels = torch.arange(self.spec.in_channels, device=self.weight.device)
        bias = bias_h + bias_v + bias_c
        return Strips(self.spec, kernel_h, kernel_v, bias, channels, channels[:0])
