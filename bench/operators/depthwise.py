"""Depthwise convolution that trains quickly on a CPU, exactly.

torch's own backward pass of a depthwise convolution is many times slower than its forward pass on
a CPU. Both gradients are depthwise convolutions themselves, and are computed as such here; taps
that never meet the map are left out first. Without gradients it is torch's convolution.

    ∂L/∂x = ∂L/∂y ∗ w turned by 180°, padded by dilation · (K − 1) − padding (stride 1)
    ∂L/∂w[c] = Σ_n x[n, c] ∗ ∂L/∂y[n, c], with one group per image and channel; the stride of the
    one is the dilation of the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

Pair = tuple[int, int]


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """Return `torch.nn.functional.conv2d` with one group per channel, the quickest exact way.

    Args:
        x: (N, C, H, W).
        weight: (M · C, 1, Kh, Kw), M kernels per channel.
        bias: (M · C).
        stride: along height and width; as are the others.
        padding: zeros on both sides.
        dilation: step between taps.

    Returns:
        (N, M · C, H', W').

    Example:
        >>> x, weight = torch.rand(2, 4, 5, 5), torch.rand(4, 1, 13, 13)
        >>> y = depthwise_conv2d(x, weight, padding=(6, 6))
        >>> bool(torch.allclose(y, F.conv2d(x, weight, padding=6, groups=4), atol=1e-6))
        True
    """
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if learning and x.is_cpu and not torch.compiler.is_compiling():
        weight, padding = reached(x, weight, stride, padding, dilation)
        if _supported(x, weight, padding, dilation):
            out: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)
            return out if bias is None else out + bias[:, None, None]
    return F.conv2d(x, weight, bias, stride, padding, dilation, x.shape[1])


def reached(
    x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[Tensor, Pair]:
    """Return the kernel without its outer taps that lie outside the map wherever it stands.

    Example:
        >>> kernel, padding = torch.rand(1, 1, 13, 13), (6, 6)
        >>> kernel, padding = reached(torch.rand(1, 1, 2, 4), kernel, (1, 1), padding, (1, 1))
        >>> kernel.shape, padding
        (torch.Size([1, 1, 3, 7]), (1, 3))
    """
    remaining_padding = list(padding)
    for axis in (0, 1):
        s, p, d = stride[axis], padding[axis], dilation[axis]
        size, taps = x.shape[axis + 2], weight.shape[axis + 2]
        last = (size + 2 * p - d * (taps - 1) - 1) // s * s
        before = -((last - p) // d)  # taps left of the map at the last position
        after = taps - 1 - (size - 1 + p) // d  # taps right of it at the first
        beyond = min(before, after)
        if beyond > 0:
            weight = weight.narrow(axis + 2, beyond, taps - 2 * beyond)
            remaining_padding[axis] = p - beyond * d
    return weight, (remaining_padding[0], remaining_padding[1])


def _supported(x: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> bool:
    """Whether the gradients can be written as convolutions, and torch's types need no care."""
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    return (
        weight.shape[0] == x.shape[1]
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and all(p <= r for p, r in zip(padding, reach, strict=True))
    )


class _Depthwise(torch.autograd.Function):
    """One kernel per channel; differentiable twice, since its backward pass is made of torch's."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = stride, padding, dilation  # type: ignore[attr-defined]
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride, padding, dilation = ctx.shape  # type: ignore[attr-defined]
        wants_x, wants_weight = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        return (
            _of_x(x, weight, grad, stride, padding, dilation) if wants_x else None,
            _of_weight(x, weight, grad, stride, padding, dilation) if wants_weight else None,
            None,
            None,
            None,
        )


def _of_x(
    x: Tensor, weight: Tensor, grad: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    if stride != (1, 1):
        gradient: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            x.shape, weight, grad, stride, padding, dilation, x.shape[1]
        )
        return gradient
    rotated = weight.flip(2, 3)
    full_padding = [
        d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)
    ]
    return F.conv2d(grad, rotated, None, 1, full_padding, dilation, x.shape[1])


def _of_weight(
    x: Tensor, weight: Tensor, grad: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    n, channels, height, width = x.shape
    images = x.reshape(1, n * channels, height, width)
    kernels = grad.reshape(n * channels, 1, *grad.shape[2:])
    correlations = F.conv2d(images, kernels, None, dilation, padding, stride, n * channels)
    kh, kw = weight.shape[2:]
    return correlations[0, :, :kh, :kw].reshape(n, channels, 1, kh, kw).sum(0)


class DepthwiseConv2d(nn.Conv2d):
    """torch.nn.Conv2d with one group per channel, computed by `depthwise_conv2d`.

    Example:
        >>> conv = DepthwiseConv2d(4, 4, 7, padding=3, groups=4)
        >>> conv(torch.rand(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(input)
        return depthwise_conv2d(
            input,
            self.weight,
            self.bias,
            (self.stride[0], self.stride[1]),
            (self.padding[0], self.padding[1]),
            (self.dilation[0], self.dilation[1]),
        )
