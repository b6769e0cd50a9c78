"""Kernels inside kernels: one convolution written as another with more taps."""

from __future__ import annotations

from torch import Tensor, nn

from bench.errors import require
from bench.operators.base import ConvSpec


def require_small_kernel(small_kernel: int, spec: ConvSpec) -> None:
    """UserError unless N (or k) is odd, and at most the size of the replaced kernel."""
    large = min(spec.kernel_size)
    holds = type(small_kernel) is int and 1 <= small_kernel <= large and small_kernel % 2 == 1
    rule = f"an odd integer from 1 to the size of `kernel_size` (={large})"
    require("small_kernel", small_kernel, holds, rule)


def embed(weight: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Spread a kernel's taps `dilation` apart and put it in the middle of a larger one of zeros.

    Args:
        weight: (Cout, Cin / groups, kh, kw).
        kernel_size: (Kh, Kw) with Kh − d_h·(kh − 1) − 1 even and not negative; likewise the width.
        dilation: (d_h, d_w).

    Returns:
        (Cout, Cin / groups, Kh, Kw).

    Example:
        >>> import torch
        >>> embed(torch.ones(1, 1, 1, 3), (3, 5), (1, 2))[0, 0].tolist()
        [[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    large = weight.new_zeros(*weight.shape[:2], *kernel_size)
    first = [
        (big - d * (small - 1)) // 2
        for big, small, d in zip(kernel_size, weight.shape[2:], dilation, strict=True)
    ]
    large[:, :, first[0] :: dilation[0], first[1] :: dilation[1]][
        :, :, : weight.shape[2], : weight.shape[3]
    ] = weight
    return large


def contained(conv: nn.Conv2d, spec: ConvSpec) -> Tensor | None:
    """Return the weights of `conv` as a kernel of the shape `spec`; None if it is not contained.

    A convolution of equal channels, groups, stride and padding mode is contained if its taps are
    among those of `spec` and both centre them alike.

    Example:
        >>> spec = ConvSpec.make(in_channels=4, out_channels=4, kernel_size=7, groups=4)
        >>> old = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
        >>> contained(old, spec).shape
        torch.Size([4, 1, 7, 7])
        >>> contained(nn.Conv2d(4, 4, 3, padding=0, groups=4), spec) is None
        True
    """
    padding = conv.padding
    if isinstance(padding, str):
        dilation, kernel_size = conv.dilation, conv.kernel_size
        reach = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        if padding == "same" and any(r % 2 for r in reach):
            return None
        padding = (reach[0] // 2, reach[1] // 2) if padding == "same" else (0, 0)
    shape = (conv.in_channels, conv.out_channels, conv.groups, conv.stride, conv.padding_mode)
    if shape != (spec.in_channels, spec.out_channels, spec.groups, spec.stride, spec.padding_mode):
        return None
    apart = []
    for axis in range(2):
        d, k = conv.dilation[axis], conv.kernel_size[axis]
        if d % spec.dilation[axis] and k > 1:
            return None
        slack = spec.dilation[axis] * (spec.kernel_size[axis] - 1) - d * (k - 1)
        # The taps left over on either side must be as many as the padding differs by.
        if slack < 0 or slack != 2 * (spec.padding[axis] - padding[axis]):
            return None
        if (slack // 2) % spec.dilation[axis]:
            return None
        apart.append(d // spec.dilation[axis] if k > 1 else 1)
    return embed(conv.weight.detach(), spec.kernel_size, (apart[0], apart[1]))
