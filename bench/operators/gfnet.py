"""GFNet's global filter: every spatial frequency of a channel has a learned complex gain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.operators.base import ConvSpec, Operator
from bench.operators.registry import register


def resample_filter(gains: Tensor, height: int, width: int) -> Tensor:
    """Resample a half spectrum (2, C, h, w // 2 + 1) for maps of height × width pixels.

    Bilinear. Row a is the frequency a/h cycles per pixel, which wraps around, so row 0 stays the
    constant one and stands again behind the last row; the columns from 0 to w // 2 go from end to
    end.

    Example:
        >>> gains = torch.arange(4.0).view(1, 1, 4, 1)
        >>> resample_filter(gains, 8, 1).flatten().tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 1.5]
    """
    columns = width // 2 + 1
    if gains.shape[2:] == (height, columns):
        return gains
    wrapped = torch.cat([gains, gains[:, :, :1]], dim=2)
    size = (height + 1, columns)
    return F.interpolate(wrapped, size, mode="bilinear", align_corners=True)[:, :, :height]


def global_filter(x: Tensor, gains: Tensor) -> Tensor:
    """Multiply the spectrum of x by complex gains: irfft2(rfft2(x) · (gains[0] + i·gains[1])).

    Half precision is computed in float32.

    Args:
        x: (N, C, H, W).
        gains: real and imaginary parts, (2, C, H, W // 2 + 1).

    Returns:
        (N, C, H, W).
    """
    size = (x.shape[2], x.shape[3])
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    gains = gains.to(wide.dtype)
    spectrum = torch.fft.rfft2(wide, norm="ortho") * torch.complex(gains[0], gains[1])
    out: Tensor = torch.fft.irfft2(spectrum, s=size, norm="ortho")
    return out.to(x.dtype)


@register("gfnet")
class GlobalFilter(Operator):
    """Global Fourier filter (GFNet, NeurIPS 2021, arXiv 2107.00645), depthwise, no bias.

    y[n, c] = irfft2(rfft2(x[n, c]) · G[c]): a circular convolution, over both axes at once, by a
    kernel as large as the map. G is stored for maps of size `resolution`, as real and imaginary
    parts drawn from N(0, 0.02²), and resampled for others. The kernel is global, so `kernel_size`,
    `dilation` and `padding_mode` of the replaced convolution do not matter. At stride s the value
    is the one at stride 1, taken at every s-th pixel.

    Args:
        spec: depthwise, padded to the same size, `resolution` given.

    Raises:
        ValueError: another convolution, or no resolution.

    Example:
        >>> spec = ConvSpec.make(
        ...     in_channels=6, out_channels=6, kernel_size=7, groups=6, resolution=(14, 20)
        ... )
        >>> op = GlobalFilter(spec)
        >>> op(torch.zeros(1, 6, 14, 20)).shape, op(torch.zeros(1, 6, 9, 31)).shape, op.params()
        (torch.Size([1, 6, 14, 20]), torch.Size([1, 6, 9, 31]), 1848)
    """

    requires = ("depthwise", "same_padding", "resolution")

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__(spec)
        assert spec.resolution is not None
        height, width = spec.resolution
        self.gains = nn.Parameter(0.02 * torch.randn(2, spec.in_channels, height, width // 2 + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/s⌉, ⌈W/s⌉)."""
        y = global_filter(x, resample_filter(self.gains, x.shape[2], x.shape[3]))
        return y[:, :, :: self.spec.stride[0], :: self.spec.stride[1]]

    def macs(self, h: int, w: int) -> int:
        """C·(2·1.25·H·W·log2(H·W) + 4·H·(W // 2 + 1)).

        A real transform of n pixels counts half of the usual 2.5·n·log2(n) operations, a complex
        product 4. A counter that does not know FFTs sees none of it.
        """
        transform = math.ceil(1.25 * h * w * math.log2(h * w))
        return self.spec.in_channels * (2 * transform + 4 * h * (w // 2 + 1))

    def params(self) -> int:
        """2·C·H·(W // 2 + 1) at the stored resolution."""
        assert self.spec.resolution is not None
        height, width = self.spec.resolution
        return 2 * self.spec.in_channels * height * (width // 2 + 1)
