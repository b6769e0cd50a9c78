"""Small kernels on the bands of a wavelet transform, for a very large reach (WTConv)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import require
from bench.operators import ConvSpec, Operator
from bench.operators.kernels import contained


def haar(like: Tensor) -> Tensor:
    """Return the four Haar filters (4, 1, 2, 2): means, and differences across, down and both."""
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    return torch.tensor(signs, dtype=like.dtype, device=like.device).view(4, 1, 2, 2) / 2


def analyse(x: Tensor) -> Tensor:
    """Split (N, C, H, W), of even sides, into its four bands: (N, C, 4, H/2, W/2)."""
    n, c, h, w = x.shape
    return F.conv2d(x.reshape(n * c, 1, h, w), haar(x), stride=2).view(n, c, 4, h // 2, w // 2)


def synthesise(bands: Tensor) -> Tensor:
    """Put (N, C, 4, H/2, W/2) together again: the inverse of `analyse`, and its transpose."""
    n, c, _, h, w = bands.shape
    joined = F.conv_transpose2d(bands.reshape(n * c, 4, h, w), haar(bands), stride=2)
    return joined.view(n, c, 2 * h, 2 * w)


class Level(NamedTuple):
    """Sides of the map that enters a level, and of its bands."""

    side: tuple[int, int]
    band: tuple[int, int]


def pyramid(h: int, w: int, levels: int) -> list[Level]:
    """Return the levels; odd sides are padded by one, so every band has ⌈side / 2⌉ pixels.

    Example:
        >>> [level.band for level in pyramid(9, 14, 3)]
        [(5, 7), (3, 4), (2, 2)]
    """
    out = []
    for _ in range(levels):
        band = (-(-h // 2), -(-w // 2))
        out.append(Level((h, w), band))
        h, w = band
    return out


class WTConv(Operator):
    """A depthwise K×K convolution of the map, and one of the bands of each wavelet level.

    With x₀ = x, and for i = 1 … L (analysis W, Haar, orthonormal; x padded to even sides):

        (xᵢ, hᵢ) = W xᵢ₋₁        the means of 2 × 2 pixels, and their three differences
        (lᵢ, dᵢ) = sᵢ ⊙ (kᵢ ∗ (xᵢ, hᵢ))      depthwise over all 4C bands, no bias
        zᵢ = W⁻¹(lᵢ + zᵢ₊₁, dᵢ), z_L+1 = 0, cut to the size of xᵢ₋₁
        y = s₀ ⊙ (k₀ ∗ x + b) + z₁

    A K×K kernel at level i reaches over K·2ⁱ pixels. With a stride, y is every s-th pixel.

    Paper: WTConv, ECCV 2024, arXiv 2407.05848; s₀ starts at 1, sᵢ at 0.1. K there is 5, the levels
    5, 4, 3 and 2 for maps of 56, 28, 14 and 7 pixels: ⌊log₂(side)⌋, which is the default here.
    `fuse()` folds the scales into the kernels. It is no convolution, as it moves with the map only
    by steps of 2ᴸ pixels: no single kernel equals it.

    Args:
        spec: the convolution replaced; depthwise, odd square kernel, zero padding that keeps the
            map's size, no dilation, any stride.
        levels: L >= 1; None for ⌊log₂(shorter side)⌋ of `resolution`, or 3 if that isn't known.

    Raises:
        UserError: as said above, a ValueError.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(
        ...     in_channels=8, out_channels=8, kernel_size=5, groups=8, resolution=14)
        >>> op = WTConv(spec)
        >>> len(op.bands), op.params(), op.fuse().params(), op(torch.zeros(1, 8, 14, 20)).shape
        (3, 2712, 2608, torch.Size([1, 8, 14, 20]))
    """

    requires = ("depthwise", "odd_square", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, levels: int | None = None) -> None:
        super().__init__(spec)
        if levels is None:
            side = 8 if spec.resolution is None else min(spec.resolution)
            levels = max(1, side.bit_length() - 1)
        whole = isinstance(levels, int) and not isinstance(levels, bool)
        require("levels", levels, whole and levels >= 1, "an integer >= 1")
        c = spec.in_channels
        inner = replace(
            spec, in_channels=4 * c, out_channels=4 * c, groups=4 * c, stride=(1, 1), bias=False
        )
        self.base = spec.conv()
        self.base_scale: nn.Parameter | None = nn.Parameter(torch.ones(c, 1, 1))
        self.bands = nn.ModuleList(inner.conv() for _ in range(levels))
        self.band_scales: nn.ParameterList | None = nn.ParameterList(
            nn.Parameter(torch.full((4 * c, 1, 1), 0.1)) for _ in range(levels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/s⌉, ⌈W/s⌉)."""
        down, across = self.spec.stride
        base: Tensor = self.base(x)
        if self.base_scale is not None:
            base = base * self.base_scale
        return base + self._wavelets(x)[:, :, ::down, ::across]

    def _wavelets(self, x: Tensor) -> Tensor:
        """Return z₁."""
        levels = pyramid(x.shape[2], x.shape[3], len(self.bands))
        filtered = []
        for number, (conv, ((h, w), (bh, bw))) in enumerate(zip(self.bands, levels, strict=True)):
            split = analyse(F.pad(x, (0, 2 * bw - w, 0, 2 * bh - h)))
            x = split[:, :, 0]
            out = conv(split.flatten(1, 2))
            if self.band_scales is not None:
                out = out * self.band_scales[number]
            filtered.append(out.view_as(split))
        z = torch.zeros_like(x)
        for bands, ((h, w), _) in zip(reversed(filtered), reversed(levels), strict=True):
            means = bands[:, :, :1] + z.unsqueeze(2)
            z = synthesise(torch.cat([means, bands[:, :, 1:]], dim=2))[:, :, :h, :w]
        return z

    def macs(self, h: int, w: int) -> int:
        """C·H'·W'·K² + Σᵢ 4·C·Hᵢ·Wᵢ·(K² + 8): the transforms, 4 taps each way, are counted."""
        taps = self.spec.kernel_size[0] ** 2 + 8
        bands = sum(bh * bw for _, (bh, bw) in pyramid(h, w, len(self.bands)))
        return self.spec.conv_macs(h, w) + 4 * self.spec.in_channels * bands * taps

    def params(self) -> int:
        """C·K² + 4·L·C·K², C for the bias, and (1 + 4·L)·C for the scales until they are folded."""
        k, c = self.spec.kernel_size[0], self.spec.in_channels
        kernels = (1 + 4 * len(self.bands)) * c
        scales = kernels if self.base_scale is not None else 0
        return kernels * k * k + self.spec.bias * c + scales

    @torch.no_grad()
    def fused(self) -> WTConv:
        """Return it with every scale inside its kernel."""
        fused = copy.deepcopy(self).eval()
        if fused.base_scale is None or fused.band_scales is None:
            return fused
        fused.base.weight.mul_(fused.base_scale[:, :, :, None])
        if fused.base.bias is not None:
            fused.base.bias.mul_(fused.base_scale[:, 0, 0])
        for conv, scale in zip(fused.bands, fused.band_scales, strict=True):
            assert isinstance(conv, nn.Conv2d)
            conv.weight.mul_(scale[:, :, :, None])
        fused.base_scale = fused.band_scales = None
        return fused

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Start with the value of `conv` if its taps fit in the kernel: the bands' scales at 0."""
        kernel = contained(conv, self.spec)
        if kernel is None or (conv.bias is not None and self.base.bias is None):
            return False
        assert self.base_scale is not None
        assert self.band_scales is not None
        with torch.no_grad():
            self.base.weight.copy_(kernel)
            if self.base.bias is not None:
                self.base.bias.copy_(torch.zeros(()) if conv.bias is None else conv.bias)
            self.base_scale.fill_(1)
            for scale in self.band_scales:
                scale.zero_()
        return True
