"""Attention by two long strips, one after the other (Strip R-CNN)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.errors import require
from bench.operators import ConvSpec, Operator


class StripConv(Operator):
    """Weight x by a pointwise mix of what a small square and two long strips see around it.

    y = x ⊙ (P a + c), a = K×1 ∗ (1×K ∗ (k×k ∗ x)): three depthwise convolutions, with biases, one
    after the other, P a dense 1×1. The value is of second order in x, as every attention is.

    Paper: Strip R-CNN, arXiv 2501.03775: k = 5, K = 19; 1×19 comes before 19×1. `fuse()` moves the
    last strip's bias through P into c, which is exact. No strips are merged: each pads its own
    map with zeros, so that one dense kernel would be another function at the borders.

    Args:
        spec: the convolution replaced; depthwise, odd kernel, zero padding that keeps the map's
            size, no dilation, stride 1. k and K stand in for its kernel's size.
        small_kernel: k, odd.
        strip_kernel: K, odd.

    Raises:
        UserError: as said above, a ValueError.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=8, out_channels=8, kernel_size=7, groups=8)
        >>> op = StripConv(spec)
        >>> op.params(), op.fuse().params(), op(torch.zeros(1, 8, 14, 20)).shape
        (600, 592, torch.Size([1, 8, 14, 20]))
    """

    requires = ("depthwise", "odd_kernel", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, small_kernel: int = 5, strip_kernel: int = 19) -> None:
        super().__init__(spec)
        for name, size in (("small_kernel", small_kernel), ("strip_kernel", strip_kernel)):
            odd = isinstance(size, int) and size >= 1 and size % 2 == 1
            require(name, size, odd, "an odd integer >= 1")
        require("stride", spec.stride, spec.stride == (1, 1), "1: it weights the map that enters")
        k, long = small_kernel, strip_kernel
        self.taps = k * k + 2 * long
        self.small = self._depthwise(k, k)
        self.across = self._depthwise(1, long)
        self.down = self._depthwise(long, 1)
        self.mix = nn.Conv2d(spec.in_channels, spec.in_channels, 1)

    def _depthwise(self, height: int, width: int) -> nn.Conv2d:
        padding = (height // 2, width // 2)
        return replace(self.spec, kernel_size=(height, width), padding=padding, bias=True).conv()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        out: Tensor = x * self.mix(self.down(self.across(self.small(x))))
        return out

    def macs(self, h: int, w: int) -> int:
        """C·H·W·(k² + 2·K + C); the product with x is not counted."""
        channels = self.spec.in_channels
        return channels * h * w * (self.taps + channels)

    def params(self) -> int:
        """C·(k² + 2·K + C), and 4·C for the biases; 3·C when fused."""
        channels = self.spec.in_channels
        return channels * (self.taps + channels + 3 + (self.down.bias is not None))

    @torch.no_grad()
    def fused(self) -> StripConv:
        """Return it with one bias less: P (a + b) + c = P a + (P b + c)."""
        fused = copy.deepcopy(self).eval()
        bias = fused.down.bias
        if bias is None or fused.mix.bias is None:
            return fused
        moved = fused.mix.weight.double()[:, :, 0, 0] @ bias.double()
        fused.mix.bias.add_(moved.to(bias.dtype))
        fused.down.bias = None
        return fused
