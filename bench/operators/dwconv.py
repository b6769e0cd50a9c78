"""The depthwise control: one K × K kernel per channel, any K."""

from __future__ import annotations

from bench.operators.conv import Conv
from bench.operators.registry import register


@register("dwconv")
class DepthwiseConv(Conv):
    """Depthwise convolution: y[n, c] = b[c] + w[c] ∗ x[n, c], any kernel size.

    Example:
        >>> from bench.operators import ConvSpec
        >>> op = DepthwiseConv(
        ...     ConvSpec.make(in_channels=8, out_channels=8, kernel_size=31, groups=8)
        ... )
        >>> op.params(), op.macs(14, 14)
        (7696, 1506848)
    """

    requires = ("depthwise",)
