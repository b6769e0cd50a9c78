"""A dense convolution on a part of the channels (FasterNet)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench.errors import require
from bench.operators import ConvSpec, Operator


class PartialConv(Operator):
    """Convolve the first 1/n of the channels with each other, and leave the others as they are.

    y[:, :p] = w ∗ x[:, :p] + b and y[:, p:] = x[:, p:], with p = C // n. The convolution is dense
    over its p channels whatever the groups of the replaced one; pointwise layers behind it mix the
    channels, as they do behind a depthwise one.

    Paper: FasterNet, CVPR 2023, arXiv 2303.03667, n = 4, without a bias; here there is one where
    the replaced convolution has one. Nothing is left to fuse.

    Args:
        spec: the convolution replaced; as many channels out as in, odd kernel, padding that keeps
            the map's size, stride 1.
        divisor: n, in 1..C.

    Raises:
        UserError: as said above, a ValueError.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=8, out_channels=8, kernel_size=3, bias=False)
        >>> op = PartialConv(spec)
        >>> op.params(), op.macs(14, 20), op(torch.zeros(1, 8, 14, 20)).shape
        (36, 10080, torch.Size([1, 8, 14, 20]))
    """

    requires = ("odd_kernel", "same_padding")

    def __init__(self, spec: ConvSpec, *, divisor: int = 4) -> None:
        super().__init__(spec)
        channels = spec.in_channels
        same = spec.out_channels == channels
        require("out_channels", spec.out_channels, same, f"`in_channels` (={channels})")
        require("stride", spec.stride, spec.stride == (1, 1), "1: what is left alone can't shrink")
        holds = isinstance(divisor, int) and not isinstance(divisor, bool)
        holds = holds and 1 <= divisor <= channels
        require("divisor", divisor, holds, f"an integer in 1..{channels}, `in_channels`")
        self.part = channels // divisor
        self.inner = replace(spec, in_channels=self.part, out_channels=self.part, groups=1)
        self.conv = self.inner.conv()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        return torch.cat([self.conv(x[:, : self.part]), x[:, self.part :]], dim=1)

    def macs(self, h: int, w: int) -> int:
        """H·W·Kh·Kw·p²."""
        return self.inner.conv_macs(h, w)

    def params(self) -> int:
        """Kh·Kw·p², and p for the bias."""
        return self.inner.conv_params()
