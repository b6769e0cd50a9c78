"""IC-Conv (inception convolution): every output channel has a dilation of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.operators.base import ConvSpec, Operator
from bench.operators.conv import Conv
from bench.operators.depthwise import depthwise_conv2d
from bench.operators.icconv_patterns import (
    Strand,
    default_pattern,
    key,
    read_patterns,
    strands,
)
from bench.operators.kernels import contained
from bench.operators.registry import register

# Convolutions of fewer output channels (of a group) than this leave most lanes of a vector unit
# idle: libraries compute output channels in blocks of 8 to 32.
FEW = 16


class Arranged(NamedTuple):
    """Weights of an IC-Conv in the order in which the fast form multiplies them.

    Attributes:
        wide: (n, Cin / groups, Kh, Kw) of each strand that is a convolution of its own.
        points: (groups · rows, Cin / groups, 1, 1): the taps of all other strands as rows of one
            1 × 1 convolution, group by group, taps last and turned by 180°; None if there are none.
    """

    wide: list[Tensor]
    points: Tensor | None


def narrow(strand: Strand, spec: ConvSpec) -> bool:
    """Tell whether a strand goes through the common 1 × 1 convolution."""
    channels = (strand.stop - strand.start) // spec.groups
    alone = strand.dilation == (1, 1) or spec.stride != (1, 1) or spec.depthwise
    return channels < FEW and not alone


def arrange(weight: Tensor, layout: Sequence[Strand], spec: ConvSpec) -> Arranged:
    """Arrange the weights (Cout, Cin / groups, Kh, Kw) for `inception_conv`."""
    wide, rows = [], []
    for strand in layout:
        part = weight[strand.start : strand.stop]
        if narrow(strand, spec):
            taps = torch.unflatten(part.flip(2, 3), 0, (spec.groups, -1)).flatten(3)
            rows.append(taps.transpose(2, 3).flatten(1, 2))
        else:
            wide.append(part)
    return Arranged(wide, torch.cat(rows, 1).flatten(0, 1)[..., None, None] if rows else None)


def inception_conv(
    x: Tensor, arranged: Arranged, layout: Sequence[Strand], spec: ConvSpec
) -> Tensor:
    """Concatenate the dilated convolutions of x, exactly but not one by one.

    y[n, o, i, j] = Σ_{c, u, v} w[o, c, u, v] · x[n, c, i·s + (u − Kh//2)·dh(o), …] is a strand's
    convolution. Wide strands are computed so. For narrow ones, whose few output channels would
    leave a vector unit idle, the products of all taps are one 1 × 1 convolution,
    z[(o, u, v)] = Σ_c w[o, c, u, v] · x[c], and the taps are then added up at their places by
    `fold`, per dilation: the same MACs, in one large product.

    Args:
        x: (N, Cin, H, W).
        arranged: the weights, from `arrange`.
        layout: the strands.
        spec: the replaced convolution; depthwise, a strand reads its own channels only.

    Returns:
        (N, Cout, ⌈H/s⌉, ⌈W/s⌉).
    """
    kernel, size = spec.kernel_size, (x.shape[2], x.shape[3])
    outs, wide_weights, first = [], iter(arranged.wide), 0
    points = arranged.points
    z = None if points is None else F.conv2d(x, points, groups=spec.groups)
    for strand in layout:
        dilation = strand.dilation
        padding = (dilation[0] * (kernel[0] // 2), dilation[1] * (kernel[1] // 2))
        count = strand.stop - strand.start
        if narrow(strand, spec):
            assert z is not None
            rows = count // spec.groups * kernel[0] * kernel[1]
            grouped = torch.unflatten(z, 1, (spec.groups, -1))[:, :, first : first + rows]
            columns = grouped.flatten(1, 2).flatten(2)
            outs.append(F.fold(columns, size, kernel, dilation=dilation, padding=padding))
            first += rows
        else:
            weight = next(wide_weights)
            if spec.depthwise:
                part = x[:, strand.start : strand.stop]
                out = depthwise_conv2d(part, weight, None, spec.stride, padding, dilation)
            else:
                out = F.conv2d(x, weight, None, spec.stride, padding, dilation, spec.groups)
            outs.append(out)
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


@register("icconv")
class ICConv(Operator):
    """Inception convolution (CVPR 2021, arXiv 2012.13587): a dilation per output channel and axis.

    Channel o has dilation (dh, dw), and its taps lie at (u − Kh//2)·dh, (v − Kw//2)·dw around the
    pixel, zero outside the map. Channels of one dilation stand together, in the order of the
    pattern; parameters and MACs are the plain convolution's. The weights start with the fan of the
    whole layer.

    With groups every dilation is a grouped convolution of its own, over the same groups of the
    input, so its count must be a multiple of `groups`; a depthwise convolution keeps channel to
    channel instead, so that any count will do.

    Args:
        spec: odd kernel, dilation 1, padded with zeros to the same size.
        pattern: {"(i, j)": n}, n channels with dilation (i + 1, j + 1); None for a default without
            a search, by the next two arguments. Where slots of a host are filled, also a list of
            such, one per selected slot in the order in which they run, or the path of a pattern
            file, which holds that list.
        dmax: largest dilation of an axis in the default pattern.
        plain_share: share of the channels with dilation (1, 1) in the default pattern; the
            authors' fallback takes 0.5 in a network's first layer and 0.7 later.

    Raises:
        ValueError: another convolution, or a pattern that does not count its channels.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(in_channels=8, out_channels=6, bias=False)
        >>> op = ICConv(spec, pattern={"(0, 0)": 4, "(1, 3)": 2})
        >>> op(torch.zeros(1, 8, 14, 20)).shape, op.params(), op.macs(14, 20)
        (torch.Size([1, 6, 14, 20]), 432, 120960)
        >>> op.dilations.tolist()
        [[1, 1], [1, 1], [1, 1], [1, 1], [2, 4], [2, 4]]
    """

    requires = ("odd_kernel", "no_dilation", "same_padding", "zeros")
    dilations: Tensor

    def __init__(
        self,
        spec: ConvSpec,
        *,
        pattern: Mapping[str, int] | None = None,
        dmax: int = 4,
        plain_share: float = 0.7,
    ) -> None:
        super().__init__(spec)
        unit = 1 if spec.depthwise else spec.groups
        if pattern is None:
            pattern = default_pattern(spec.out_channels, dmax, plain_share, unit)
        self.layout = strands(pattern, spec.out_channels, unit)
        plain = spec.conv()
        self.weight = plain.weight
        self.bias = plain.bias
        table = [s.dilation for s in self.layout for _ in range(s.start, s.stop)]
        self.register_buffer("dilations", torch.tensor(table))

    @classmethod
    def with_files(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return `options` with the pattern file, where one is named, read."""
        pattern = options.get("pattern")
        if isinstance(pattern, str | Path):
            return {**options, "pattern": read_patterns(pattern)}
        return dict(options)

    @classmethod
    def for_slots(cls, options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        """Return the options of each of `count` slots: of a list of patterns, each its own."""
        patterns = cls.with_files(options).get("pattern")
        if not isinstance(patterns, list | tuple):
            return super().for_slots(options, count)
        if len(patterns) != count:
            raise UserError(
                f"`pattern` must hold one pattern for each of the {count} selected slots, not "
                f"{len(patterns)}; `where` selects."
            )
        return [{**options, "pattern": pattern} for pattern in patterns]

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Refuse weights of another pattern, which would fit by shape."""
        stored = state_dict.get(f"{prefix}dilations")
        if stored is not None and not torch.equal(stored.cpu(), self.dilations.cpu()):
            ours = {key(s.dilation): s.stop - s.start for s in self.layout}
            error_msgs.append(
                f"`pattern` (={ours}) must be that of the weights under {prefix!r}: their "
                "dilations differ."
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, ⌈H/s⌉, ⌈W/s⌉)."""
        arranged = arrange(self.weight, self.layout, self.spec)
        return add_bias(inception_conv(x, arranged, self.layout, self.spec), self.bias)

    def macs(self, h: int, w: int) -> int:
        """H'·W'·Kh·Kw·Cin·Cout / groups, as the plain convolution."""
        return self.spec.conv_macs(h, w)

    def params(self) -> int:
        """Kh·Kw·Cin·Cout / groups, and Cout for a bias, as the plain convolution."""
        return self.spec.conv_params()

    def fuse(self) -> Operator:
        """Arrange the weights once; with one dilation only, a plain dilated convolution."""
        if len(self.layout) == 1:
            spec, dilation = self.spec, self.layout[0].dilation
            padding = tuple(d * (k // 2) for d, k in zip(dilation, spec.kernel_size, strict=True))
            dilated = replace(spec, dilation=dilation, padding=(padding[0], padding[1]))
            return Conv.holding(dilated, self.weight, self.bias)
        return ArrangedICConv(self)

    def carry(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> bool:
        """Take over the weights of a plain convolution if every dilation is (1, 1)."""
        kernel = contained(conv, self.spec)
        dilated = [s.dilation for s in self.layout] != [(1, 1)]
        if dilated or kernel is None or (conv.bias is not None and self.bias is None):
            return False
        with torch.no_grad():
            self.weight.copy_(kernel)
            if self.bias is not None:
                self.bias.copy_(torch.zeros_like(self.bias) if conv.bias is None else conv.bias)
        return True


class ArrangedICConv(Operator):
    """Inference form of `icconv`: the same sum, its weights arranged beforehand."""

    def __init__(self, trained: ICConv) -> None:
        super().__init__(trained.spec)
        self.layout = trained.layout
        arranged = arrange(trained.weight.detach(), self.layout, self.spec)
        self.wide = nn.ParameterList(w.clone() for w in arranged.wide)
        points, bias = arranged.points, trained.bias
        self.points = None if points is None else nn.Parameter(points.clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, ⌈H/s⌉, ⌈W/s⌉)."""
        arranged = Arranged(list(self.wide), self.points)
        return add_bias(inception_conv(x, arranged, self.layout, self.spec), self.bias)

    def macs(self, h: int, w: int) -> int:
        """H'·W'·Kh·Kw·Cin·Cout / groups, as the plain convolution."""
        return self.spec.conv_macs(h, w)

    def params(self) -> int:
        """Kh·Kw·Cin·Cout / groups, and Cout for a bias, as the plain convolution."""
        return self.spec.conv_params()


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias (Cout) to every pixel, in the dtype of y."""
    return y if bias is None else y + bias.view(1, -1, 1, 1).to(y.dtype)
