"""The operators' inference forms as their authors' public code computes them, in torch's calls.

They are what our own forms are measured against: the same value by the calls that the papers'
repositories make, written anew. A training form is timed against itself with torch's own
convolutions and gradients throughout.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.operators import Operator
from bench.operators.conv import Conv
from bench.operators.forms import plainly
from bench.operators.icconv import ICConv, add_bias
from bench.operators.parc import CircularConv, Parc
from bench.operators.shift import Shiftwise
from bench.operators.shift_split import shift_sum
from bench.operators.slak import CrossedStrips


class Published(nn.Module):
    """An operator whose timed form is the public one."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        if isinstance(operator, Parc):
            operator.form = "direct"  # the public code has one form

    def forward(self, x: Tensor) -> Tensor:
        """Compute the value of the training form, by torch's own calls."""
        with plainly():
            out: Tensor = self.operator(x)
        return out

    def timed(self) -> nn.Module:
        """Return the public inference form."""
        return published(self.operator)


def published(operator: Operator) -> nn.Module:
    """Return an operator's inference form as its public code computes it.

    Example:
        >>> from bench.operators import create
        >>> op = create("unireplk", in_channels=4, out_channels=4, kernel_size=13).eval()
        >>> published(op)(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """
    if isinstance(operator, Parc):
        return _PublicParc(operator)
    if isinstance(operator, Shiftwise):
        return _PublicShift(operator)
    if isinstance(operator, ICConv):
        return _PublicICConv(operator)
    return _torchs(operator.fuse())


def _torchs(fused: nn.Module) -> nn.Module:
    """Return fused convolutions as torch's."""
    if isinstance(fused, Conv):
        plain = nn.Conv2d(
            fused.spec.in_channels,
            fused.spec.out_channels,
            fused.spec.kernel_size,
            fused.spec.stride,
            fused.spec.padding,
            fused.spec.dilation,
            fused.spec.groups,
            fused.spec.bias,
            fused.spec.padding_mode,
        )
        plain.load_state_dict(fused.conv.state_dict())
        return plain.eval().requires_grad_(False)
    if isinstance(fused, CrossedStrips):
        return _Sum(_torchs(fused.vertical), _torchs(fused.horizontal))
    raise TypeError(f"`fused` (a {type(fused).__name__}) has no public form here.")


class _Sum(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, sum(part(x) for part in self.parts))


class _PublicParc(nn.Module):
    """The embedding added, the map continued once, and one convolution along each axis."""

    def __init__(self, operator: Parc) -> None:
        super().__init__()
        self.axes, self.split = operator.axes, list(operator.split)

    def forward(self, x: Tensor) -> Tensor:
        parts = (x,) if len(self.axes) == 1 else torch.split(x, self.split, dim=1)
        outs = []
        for part, axis in zip(parts, self.axes, strict=True):
            assert isinstance(axis, CircularConv)
            if axis.pe is not None:
                part = part + axis.pe.unsqueeze(4 - axis.dim)
            wrapped = torch.cat(
                [part, part.narrow(axis.dim, 0, part.shape[axis.dim] - 1)], axis.dim
            )
            groups = part.shape[1] // axis.weight.shape[1]
            kernel = axis.weight.unsqueeze(5 - axis.dim)
            outs.append(F.conv2d(wrapped, kernel, axis.bias, groups=groups))
        return torch.cat(outs, 1) if len(outs) > 1 else outs[0]


class _PublicShift(nn.Module):
    """One grouped convolution by all small kernels, and its outputs shifted, picked and added."""

    def __init__(self, operator: Shiftwise) -> None:
        super().__init__()
        self.operator = operator
        _, channels, blocks = operator.horizontal.shape
        order = {"horizontal": operator.horizontal, "vertical": operator.vertical}
        first = torch.arange(channels, device=operator.weight.device)[None, :, None] * blocks
        # the outputs of a channel in the order in which its strip lays them
        self.picks = {name: (table + first).flatten(1) for name, table in order.items()}
        self.centre = operator.centre + first[..., 0]
        self.weight = operator.weight.sum(0).unsqueeze(1).detach()

    def forward(self, x: Tensor) -> Tensor:
        op, n = self.operator, self.operator.small_kernel
        active = x[:, op.convolved]
        y = F.conv2d(active, self.weight, padding=n - 1, groups=active.shape[1])

        def strip(name: str, dim: int) -> Tensor:
            return cast(
                Tensor,
                sum(
                    shift_sum(
                        torch.unflatten(y[:, picked], 1, (active.shape[1], -1)), n, op.before, dim
                    )
                    for picked in self.picks[name]
                ),
            )

        crop = slice(n // 2, -(n // 2)) if n > 1 else slice(None)
        centre = cast(Tensor, sum(y[:, picked] for picked in self.centre))[:, :, crop, crop]
        out = op.norm_horizontal(strip("horizontal", 3)) + op.norm_vertical(strip("vertical", 2))
        return torch.cat([out + op.norm_centre(centre) + active, x[:, op.ghosts]], 1)


class _PublicICConv(nn.Module):
    """One dilated convolution after the other, and their outputs put side by side."""

    def __init__(self, operator: ICConv) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        op = self.operator
        outs = []
        for strand in op.layout:
            channels, (dh, dw) = slice(strand.start, strand.stop), strand.dilation
            kh, kw = op.spec.kernel_size
            part, groups = x, op.spec.groups
            if op.spec.depthwise:
                part, groups = x[:, channels], strand.stop - strand.start
            padding = (dh * (kh // 2), dw * (kw // 2))
            weight = op.weight[channels]
            outs.append(F.conv2d(part, weight, None, op.spec.stride, padding, (dh, dw), groups))
        return add_bias(torch.cat(outs, 1), op.bias)
