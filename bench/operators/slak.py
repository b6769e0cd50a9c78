"""Two crossed strips and a small kernel in place of a very large one (SLaK)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from bench.operators.base import ConvSpec, Operator
from bench.operators.branches import Branch, BranchSum, merge
from bench.operators.conv import Conv
from bench.operators.kernels import contained, require_small_kernel
from bench.operators.registry import register


def strip(spec: ConvSpec, height: int, width: int) -> ConvSpec:
    """Return `spec` with a centred kernel of height × width taps."""
    return replace(spec, kernel_size=(height, width), padding=(height // 2, width // 2))


@register("slak")
class SLaK(BranchSum):
    """BN(K×k ∗ x) + BN(k×K ∗ x) + BN(k×k ∗ x), depthwise; K = 51 and k = 5 in the paper.

    Paper: SLaK, ICLR 2023, arXiv 2207.03620 (dense here: its sparsity in training is no part of
    the operator). `fuse()` folds the norms and adds the small kernel to the middle of the first
    strip. What is left are two crossed strips, 2·K·k taps, or, added up, one dense kernel of K²
    taps, mostly zeros: the one with fewer taps is returned, so the strips where K > 2·k.

    Args:
        spec: the convolution replaced; depthwise, odd square kernel, zero padding that keeps the
            map's size, no dilation, any stride.
        small_kernel: k, odd and <= K.

    Raises:
        ValueError: as said above.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=8, out_channels=8, kernel_size=51, groups=8)
        >>> op = SLaK(spec).eval()
        >>> op.params(), op.fuse().params(), op(torch.zeros(1, 8, 14, 20)).shape
        (4328, 4088, torch.Size([1, 8, 14, 20]))
    """

    requires = ("depthwise", "odd_square", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, small_kernel: int = 5) -> None:
        super().__init__(spec)
        require_small_kernel(small_kernel, spec)
        self.small_kernel = k = small_kernel
        large = spec.kernel_size[0]
        self.vertical = Branch(strip(spec, large, k))
        self.horizontal = Branch(strip(spec, k, large))
        self.small = Branch(strip(spec, k, k))

    def parts(self) -> tuple[Branch, ...]:
        """Return both strips and the small kernel's."""
        return self.vertical, self.horizontal, self.small

    def _taps(self) -> int:
        large, k = self.spec.kernel_size[0], self.small_kernel
        return 2 * large * k + k * k

    def macs(self, h: int, w: int) -> int:
        """C·H'·W'·(2·K·k + k²)."""
        oh, ow = self.spec.output_size(h, w)
        return self.spec.in_channels * oh * ow * self._taps()

    def params(self) -> int:
        """C·(2·K·k + k² + 6)."""
        return self.spec.in_channels * (self._taps() + 6)

    def fused(self) -> Operator:
        """Return two strips, or one dense kernel where that has fewer taps; of equal value."""
        large, k = self.spec.kernel_size[0], self.small_kernel
        if large <= 2 * k:
            return merge(self.spec, self.parts())
        return CrossedStrips(
            merge(self.vertical_spec(), [self.vertical, self.small]),
            merge(strip(self.spec, k, large), [self.horizontal]),
            self.spec,
        )

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Start with the value of `conv`, in eval mode exactly, if its taps fit in one strip.

        The K×k strip takes the weights; the norms of the others start at γ = 0.
        """
        kernel = contained(conv, self.vertical_spec())
        if kernel is None:
            return False
        self.vertical.hold(kernel, conv.bias)
        self.horizontal.silence()
        self.small.silence()
        return True

    def vertical_spec(self) -> ConvSpec:
        """Return the shape of the K×k strip."""
        return strip(self.spec, self.spec.kernel_size[0], self.small_kernel)


class CrossedStrips(Operator):
    """The fused form of SLaK: a vertical and a horizontal strip with a bias, added.

    Args:
        vertical: K×k depthwise convolution with a bias.
        horizontal: k×K depthwise convolution; its bias is moved into the other.
        spec: the convolution replaced.
    """

    def __init__(self, vertical: Conv, horizontal: Conv, spec: ConvSpec) -> None:
        super().__init__(spec)
        bias = vertical.conv.bias
        if horizontal.conv.bias is not None:
            bias = horizontal.conv.bias if bias is None else bias + horizontal.conv.bias
        self.vertical = Conv.holding(vertical.spec, vertical.conv.weight, bias)
        self.horizontal = Conv.holding(horizontal.spec, horizontal.conv.weight, None)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/s⌉, ⌈W/s⌉)."""
        out: Tensor = self.vertical(x) + self.horizontal(x)
        return out

    def macs(self, h: int, w: int) -> int:
        """2·C·H'·W'·K·k."""
        return self.vertical.macs(h, w) + self.horizontal.macs(h, w)

    def params(self) -> int:
        """C·(2·K·k + 1)."""
        return self.vertical.params() + self.horizontal.params()
