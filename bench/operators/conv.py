"""The control: a plain convolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from bench.operators.base import ConvSpec, Operator
from bench.operators.depthwise import DepthwiseConv2d
from bench.operators.kernels import contained
from bench.operators.registry import register


@register("conv")
class Conv(Operator):
    """Plain convolution; dense unless the replaced one has groups.

    y[n, o, i, j] = b[o] + Σ_{c, u, v} w[o, c, u, v] · x[n, c, i·s + u·d − p, j·s + v·d − p], with c
    over the channels of o's group. It is every convolution, so it replaces every convolution.

    Example:
        >>> import torch
        >>> op = Conv(ConvSpec.make(in_channels=3, out_channels=8, kernel_size=3, stride=2))
        >>> op(torch.zeros(1, 3, 15, 20)).shape, op.params()
        (torch.Size([1, 8, 8, 10]), 224)
    """

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__(spec)
        self.conv = spec.conv()

    @classmethod
    def holding(cls, spec: ConvSpec, weight: Tensor, bias: Tensor | None) -> Self:
        """Return the convolution with these weights: the fused form of several operators."""
        with torch.device("meta"):  # nothing is drawn from the global generator
            held = cls(replace(spec, bias=bias is not None))
        state = (
            {"conv.weight": weight} if bias is None else {"conv.weight": weight, "conv.bias": bias}
        )
        held.load_state_dict({k: v.detach().clone() for k, v in state.items()}, assign=True)
        return held.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H', W')."""
        conv = self._modules["conv"]
        if type(conv) is DepthwiseConv2d and conv.is_settled():
            return conv.direct(x)  # small maps feel every call of a module
        out: Tensor = self.conv(x)
        return out

    def macs(self, h: int, w: int) -> int:
        """H'·W'·Kh·Kw·Cin·Cout / groups."""
        return self.spec.conv_macs(h, w)

    def params(self) -> int:
        """Kh·Kw·Cin·Cout / groups, and Cout for the bias."""
        return self.spec.conv_params()

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Take over the weights of a convolution whose taps are among this one's.

        A smaller kernel goes in the middle, among zeros; a bias that is missing becomes 0.
        """
        kernel = contained(conv, self.spec)
        if kernel is None or (conv.bias is not None and self.conv.bias is None):
            return False
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            if self.conv.bias is not None:
                self.conv.bias.copy_(torch.zeros(()) if conv.bias is None else conv.bias)
        return True
