"""Long depthwise strips made of small kernels, as a horizontal and a vertical convolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.operators.depthwise import Ends, depthwise_conv2d


def blocks_for(kernel_size: int, small_kernel: int) -> int:
    """Return nk = ⌈M / N⌉, the number of N × N kernels in a strip of M taps."""
    return -(-kernel_size // small_kernel)


def horizontal(blocks: Tensor) -> Tensor:
    """Lay blocks (C, nk, N, N) side by side: (C, 1, N, nk·N)."""
    c, nk, n, _ = blocks.shape
    return blocks.permute(0, 2, 1, 3).reshape(c, 1, n, nk * n)


def vertical(blocks: Tensor) -> Tensor:
    """Lay blocks (C, nk, N, N) below each other: (C, 1, nk·N, N)."""
    c, nk, n, _ = blocks.shape
    return blocks.reshape(c, 1, nk * n, n)


def strip_conv(
    x: Tensor,
    kernel: Tensor,
    before: int,
    stride: tuple[int, int],
    bias: Tensor | None = None,
) -> Tensor:
    """Depthwise convolution by a strip with `before` taps in front of the output pixel.

    Args:
        x: (N, C, H, W).
        kernel: (C, 1, n, L) along the width or (C, 1, L, n) along the height, n odd, L >= n.
        before: how many of the L taps lie before the output pixel (M // 2 for a kernel of M).
        stride: (along the height, along the width).
        bias: (C), or None.

    Returns:
        (N, C, ⌈H/s⌉, ⌈W/s⌉); what lies outside the map counts as zero.

    Example:
        >>> x = torch.arange(6.0).view(1, 1, 1, 6)
        >>> kernel = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3)
        >>> strip_conv(x, kernel, 1, (1, 1)).flatten()
        tensor([0., 0., 1., 2., 3., 4.])
    """
    return depthwise_conv2d(x, kernel, bias, stride, strip_padding(kernel, before))


def strip_padding(kernel: Tensor, before: int) -> Ends:
    """Return the zeros at top, bottom, left and right that keep the size of the map.

    Example:
        >>> strip_padding(torch.ones(1, 1, 3, 15), 6)
        (1, 1, 6, 8)
    """
    height, width = kernel.shape[2:]
    if width >= height:
        return height // 2, height // 2, before, width - 1 - before
    return before, height - 1 - before, width // 2, width // 2


def add_to_strip(strip: Tensor, kernel: Tensor, before: int) -> Tensor:
    """Add centred kernels (C, 1, n, n) to horizontal strips (C, 1, n, L) around tap `before`."""
    n = kernel.shape[3]
    first = before - n // 2
    return strip + F.pad(kernel, (first, strip.shape[3] - first - n))


def identity_kernel(channels: int, size: int, like: Tensor) -> Tensor:
    """Depthwise kernels (C, 1, size, size) that leave the map as it is."""
    kernel = torch.zeros(channels, 1, size, size, dtype=like.dtype, device=like.device)
    kernel[:, :, size // 2, size // 2] = 1
    return kernel
