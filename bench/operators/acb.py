"""Asymmetric convolution block (ACNet)."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor, nn

from bench.errors import require
from bench.operators.base import ConvSpec
from bench.operators.branches import Branch, BranchSum, Statistics, merge
from bench.operators.conv import Conv
from bench.operators.kernels import contained
from bench.operators.registry import register


@register("acb")
class ACB(BranchSum):
    """Asymmetric convolution block: BN(K×K ∗ x) + BN(K×1 ∗ x) + BN(1×K ∗ x), any odd K.

    Paper: ACNet, ICCV 2019, arXiv 1908.03930. It stands in for a convolution *and* the batch norm
    behind it; no norm follows the sum. The three branches, without biases, share stride, dilation,
    groups and padding mode. With padding p and dilation d, the K×1 branch must see the map padded
    by e = p − d·(K//2) across its strip, to stay on the central column of the K×K branch; where
    e < 0 the map is cropped by −e. Likewise the 1×K branch and the central row.

    `fuse()` folds the norms and adds the strips to the central column and row: one convolution.

    Args:
        spec: the convolution replaced; odd, square kernel.
        gamma_init: initial weight of the three norms: 1 in the paper's ImageNet runs, 1/3 in its
            CIFAR runs.

    Raises:
        ValueError: the kernel is not square and odd, or `gamma_init` is not a finite number.

    Example:
        >>> import torch
        >>> op = ACB(ConvSpec.make(in_channels=4, out_channels=8, kernel_size=5, dilation=2)).eval()
        >>> x = torch.randn(1, 4, 9, 14)
        >>> op(x).shape, torch.allclose(op(x), op.fuse()(x), atol=1e-5)
        (torch.Size([1, 8, 9, 14]), True)
    """

    requires = ("odd_square",)
    absorbs_norm = True

    def __init__(self, spec: ConvSpec, *, gamma_init: float = 1.0) -> None:
        super().__init__(spec)
        number = isinstance(gamma_init, int | float) and not isinstance(gamma_init, bool)
        holds = number and math.isfinite(gamma_init)
        require("gamma_init", gamma_init, holds, "a finite number")
        k = spec.kernel_size[0]
        ph, pw = spec.padding
        eh, ew = (p - d * (k // 2) for p, d in zip(spec.padding, spec.dilation, strict=True))
        self.crop = (max(-eh, 0), max(-ew, 0))
        self.square = Branch(spec)
        self.vertical = Branch(replace(spec, kernel_size=(k, 1), padding=(ph, max(ew, 0))))
        self.horizontal = Branch(replace(spec, kernel_size=(1, k), padding=(max(eh, 0), pw)))
        for branch in (self.square, self.vertical, self.horizontal):
            nn.init.constant_(branch.norm.weight, gamma_init)

    def parts(self) -> tuple[Branch, ...]:
        """Return the square and both strips."""
        return self.square, self.vertical, self.horizontal

    def by_terms(self, x: Tensor) -> Tensor:
        """Add the branches' values up, of maps cropped as each wants it."""
        ch, cw = self.crop
        out: Tensor = (
            self.square(x)
            + self.vertical(x[:, :, :, cw:-cw] if cw else x)
            + self.horizontal(x[:, :, ch:-ch] if ch else x)
        )
        return out

    def macs(self, h: int, w: int) -> int:
        """H'·W'·(K² + 2K)·Cin·Cout / groups."""
        k = self.spec.kernel_size[0]
        return self.spec.conv_macs(h, w) // k * (k + 2)

    def params(self) -> int:
        """(K² + 2K)·Cin·Cout / groups + 6·Cout."""
        s, k = self.spec, self.spec.kernel_size[0]
        return s.in_channels // s.groups * s.out_channels * (k * k + 2 * k) + 6 * s.out_channels

    def fused(self) -> Conv:
        """Return the one K×K convolution of equal value, with a bias."""
        return merge(self.spec, self.parts())

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Start with the value of `conv`, and of the batch norm behind it, in eval mode exactly.

        The K×K branch takes both over; the norms of the strips start at γ = 0, whatever
        `gamma_init` says, so that the strips add nothing at first but learn. False, and nothing
        carried, for a norm without running statistics, which this block cannot contain.
        """
        kernel = contained(conv, self.spec)
        statistics = None if norm is None else Statistics.of(norm)
        if kernel is None or (norm is not None and statistics is None):
            return False
        self.square.hold(kernel, conv.bias, statistics)
        self.vertical.silence()
        self.horizontal.silence()
        return True
