"""Very large kernel beside a small one (RepLKNet)."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from bench.operators.base import ConvSpec
from bench.operators.branches import Branch, BranchSum, merge
from bench.operators.conv import Conv
from bench.operators.kernels import contained, require_small_kernel
from bench.operators.registry import register


@register("replk")
class RepLK(BranchSum):
    """Re-parameterised large kernel: BN(K×K ∗ x) + BN(k×k ∗ x), depthwise; 31 and 5 in the paper.

    Paper: RepLKNet, CVPR 2022, arXiv 2203.06717. The small kernel helps training to find local
    structure; `fuse()` folds the norms and adds it to the middle of the large one: one depthwise
    K×K convolution with a bias.

    Args:
        spec: the convolution replaced; depthwise, odd square kernel, zero padding that keeps the
            map's size, no dilation, any stride.
        small_kernel: k, odd and <= K.

    Raises:
        ValueError: as said above.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=8, out_channels=8, kernel_size=31, groups=8)
        >>> op = RepLK(spec).eval()
        >>> op.params(), op.fuse().params(), op(torch.zeros(1, 8, 14, 20)).shape
        (7920, 7696, torch.Size([1, 8, 14, 20]))
    """

    requires = ("depthwise", "odd_square", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, small_kernel: int = 5) -> None:
        super().__init__(spec)
        require_small_kernel(small_kernel, spec)
        self.small_kernel = k = small_kernel
        self.large = Branch(spec)
        self.small = Branch(replace(spec, kernel_size=(k, k), padding=(k // 2, k // 2)))

    def parts(self) -> tuple[Branch, ...]:
        """Return the large and the small kernel's."""
        return self.large, self.small

    def macs(self, h: int, w: int) -> int:
        """C·H'·W'·(K² + k²)."""
        oh, ow = self.spec.output_size(h, w)
        taps = self.spec.kernel_size[0] ** 2 + self.small_kernel**2
        return self.spec.in_channels * oh * ow * taps

    def params(self) -> int:
        """C·(K² + k² + 4)."""
        taps = self.spec.kernel_size[0] ** 2 + self.small_kernel**2
        return self.spec.in_channels * (taps + 4)

    def fused(self) -> Conv:
        """Return the one depthwise K×K convolution of equal value, with a bias."""
        return merge(self.spec, self.parts())

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Start with the value of `conv`, in eval mode exactly, if its taps fit in the kernel.

        The large kernel takes the weights; the norm of the small one starts at γ = 0.
        """
        kernel = contained(conv, self.spec)
        if kernel is None:
            return False
        self.large.hold(kernel, conv.bias)
        self.small.silence()
        return True
