"""A small square, two bands and an identity, on a part of the channels each (InceptionNeXt)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench.errors import require
from bench.operators import ConvSpec, Operator


class InceptionDepthwise(Operator):
    """Depthwise s×s, 1×b and b×1 kernels on g channels each; the other C − 3g pass unchanged.

    y = concat(x[:g] ∗ s×s, x[g:2g] ∗ 1×b, x[2g:3g] ∗ b×1, x[3g:]), with g = ⌊C · ratio⌋: the
    kernel of a large depthwise convolution, taken apart. Its own s and b stand in for the replaced
    kernel's size.

    Paper: InceptionNeXt, CVPR 2024, arXiv 2303.16900: s = 3, b = 11, ratio = 1/8. As one dense
    depthwise kernel it would have b² taps a channel in place of its few, so nothing is fused.

    Args:
        spec: the convolution replaced; depthwise, odd kernel, zero padding that keeps the map's
            size, no dilation, stride 1.
        square_kernel: s, odd.
        band_kernel: b, odd.
        ratio: share of the channels of each branch, > 0 and <= 1/3, so that g >= 1.

    Raises:
        UserError: as said above, a ValueError.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=16, out_channels=16, kernel_size=7, groups=16)
        >>> op = InceptionDepthwise(spec)
        >>> op.params(), op.macs(14, 20), op(torch.zeros(1, 16, 14, 20)).shape
        (68, 17360, torch.Size([1, 16, 14, 20]))
    """

    requires = ("depthwise", "odd_kernel", "no_dilation", "same_padding", "zeros")

    def __init__(
        self,
        spec: ConvSpec,
        *,
        square_kernel: int = 3,
        band_kernel: int = 11,
        ratio: float = 0.125,
    ) -> None:
        super().__init__(spec)
        for name, size in (("square_kernel", square_kernel), ("band_kernel", band_kernel)):
            odd = isinstance(size, int) and size >= 1 and size % 2 == 1
            require(name, size, odd, "an odd integer >= 1")
        require("stride", spec.stride, spec.stride == (1, 1), "1: what is left alone can't shrink")
        channels = spec.in_channels
        holds = isinstance(ratio, float) and 0 < ratio <= 1 / 3 and int(channels * ratio) >= 1
        rule = f"a share of the {channels} channels that is one at least, and a third at most"
        require("ratio", ratio, holds, rule)
        self.part = int(channels * ratio)
        shapes = [(square_kernel, square_kernel), (1, band_kernel), (band_kernel, 1)]
        self.inner = [self._branch(*shape) for shape in shapes]
        self.square, self.across, self.down = (branch.conv() for branch in self.inner)

    def _branch(self, height: int, width: int) -> ConvSpec:
        g = self.part
        return replace(
            self.spec,
            in_channels=g,
            out_channels=g,
            groups=g,
            kernel_size=(height, width),
            padding=(height // 2, width // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        g = self.part
        square, across, down, rest = x.split([g, g, g, x.shape[1] - 3 * g], dim=1)
        return torch.cat([self.square(square), self.across(across), self.down(down), rest], dim=1)

    def macs(self, h: int, w: int) -> int:
        """g·H·W·(s² + 2·b)."""
        return sum(branch.conv_macs(h, w) for branch in self.inner)

    def params(self) -> int:
        """g·(s² + 2·b), and 3·g for the biases."""
        return sum(branch.conv_params() for branch in self.inner)
