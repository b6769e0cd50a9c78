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
from bench.operators import correlation, jit
from bench.operators.base import ConvSpec, Operator
from bench.operators.conv import Conv
from bench.operators.correlation import Geometry
from bench.operators.depthwise import depthwise_conv2d
from bench.operators.forms import Compute, Formed, like
from bench.operators.icconv_patterns import (
    Strand,
    default_pattern,
    key,
    read_patterns,
    strands,
)
from bench.operators.kernels import contained, embed
from bench.operators.registry import register

# Convolutions of fewer output channels (of a group) than this leave most lanes of a vector unit
# idle: libraries compute output channels in blocks of 8 to 32.
FEW = 16
# The largest share of zeros that a kernel with the taps of all dilations is tried with.
SPARSEST = 16
# Bytes of a product whose taps are added up while it lies in a CPU's cache.
ROOM = 3 * 2**20


class Inception(NamedTuple):
    """An inception convolution: what all of its forms compute of x (N, Cin, H, W).

    y[n, o, i, j] = Σ_{c, u, v} w[o, c, u, v] · x[n, c, i·s + (u − Kh//2)·dh(o), …], strand by
    strand; to (N, Cout, ⌈H/s⌉, ⌈W/s⌉).

    Attributes:
        weight: (Cout, Cin / groups, Kh, Kw).
        layout: its strands.
        spec: the replaced convolution; depthwise, a strand reads its own channels only.
    """

    weight: Tensor
    layout: Sequence[Strand]
    spec: ConvSpec

    def narrow(self, strand: Strand) -> bool:
        """Tell whether a strand has too few channels to be a convolution of its own."""
        few = (strand.stop - strand.start) // self.spec.groups < FEW
        return few and strand.dilation != (1, 1)

    def strand(self, strand: Strand) -> Compute:
        """Return the dilated convolution of one strand, of the whole input."""
        spec, channels = self.spec, slice(strand.start, strand.stop)
        weight, dilation = self.weight[channels], strand.dilation
        kh, kw = spec.kernel_size
        padding = (dilation[0] * (kh // 2), dilation[1] * (kw // 2))
        if spec.depthwise:
            return lambda x: depthwise_conv2d(
                x[:, channels], weight, None, spec.stride, padding, dilation
            )
        return lambda x: F.conv2d(x, weight, None, spec.stride, padding, dilation, spec.groups)

    def strands(self) -> Compute:
        """Compute every strand as a convolution of its own, one after the other."""
        parts = [self.strand(strand) for strand in self.layout]
        if len(parts) == 1:
            return parts[0]
        return lambda x: torch.cat([part(x) for part in parts], dim=1)

    def points(self, strands: Sequence[Strand]) -> Tensor:
        """Return the taps of strands as rows of one 1 × 1 convolution, turned by 180°.

        (groups · rows, Cin / groups, 1, 1): group by group, then strand by strand, channel by
        channel, tap by tap.
        """
        rows = []
        for strand in strands:
            part = self.weight[strand.start : strand.stop].flip(2, 3)
            taps = torch.unflatten(part, 0, (self.spec.groups, -1)).flatten(3)
            rows.append(taps.transpose(2, 3).flatten(1, 2))
        return torch.cat(rows, 1).flatten(0, 1)[..., None, None]

    def folded(self) -> Compute:
        """Compute wide strands one by one; of the narrow ones the products of all taps at once.

        z[(o, u, v)] = Σ_c w[o, c, u, v] · x[c] is one 1 × 1 convolution; `fold` then adds the taps
        up at their places, per dilation: the same MACs, in one large product.
        """
        (kh, kw), groups = self.spec.kernel_size, self.spec.groups
        narrow = [strand for strand in self.layout if self.narrow(strand)]
        wide = {strand: self.strand(strand) for strand in self.layout if strand not in narrow}
        points = self.points(narrow)

        def compute(x: Tensor) -> Tensor:
            z = torch.unflatten(F.conv2d(x, points, groups=groups), 1, (groups, -1))
            outs, first = [], 0
            for strand in self.layout:
                if strand in wide:
                    outs.append(wide[strand](x))
                    continue
                (dh, dw), rows = strand.dilation, (strand.stop - strand.start) // groups * kh * kw
                columns = z[:, :, first : first + rows].flatten(1, 2).flatten(2)
                padding, size = (dh * (kh // 2), dw * (kw // 2)), (x.shape[2], x.shape[3])
                outs.append(F.fold(columns, size, (kh, kw), dilation=(dh, dw), padding=padding))
                first += rows
            return torch.cat(outs, dim=1)

        return compute

    def summed(self, strands: Sequence[Strand]) -> Compute:
        """Compute as `folded`, the taps of `strands` added up in a compiled pass; dense.

        The product is taken of bands of rows, or of several small images at once, and added up
        while it still lies in the cache; the other strands are convolutions of their own.
        """
        wide = {strand: self.strand(strand) for strand in self.layout if strand not in strands}
        channels = [channel for s in strands for channel in range(s.start, s.stop)]
        points = self.weight[channels].flatten(2).transpose(1, 2).flatten(0, 1).contiguous()
        taps = self.weight.shape[2] * self.weight.shape[3]
        steps = self.steps(strands)
        rows = torch.arange(len(channels) * taps, dtype=torch.int32).view(-1, taps, 1)
        places = torch.cat([rows, steps], 2).contiguous()
        ones, into = torch.ones(len(channels), taps), torch.tensor(channels, dtype=torch.int32)

        pixels = max(1, ROOM // points[:, 0].nbytes)

        def add(x: Tensor, out: Tensor) -> None:
            """Write the sums of images (N, C, H, W): of one, or of several that have room."""
            parts = -(-x[:, 0].numel() // pixels)
            first = 0
            for band in x.transpose(0, 1).tensor_split(min(parts, x.shape[2]), dim=2):
                z = torch.mm(points, band.flatten(1)).view(-1, *band.shape[1:])
                jit.sum_taps(z, first, places, ones, into, out)
                first += band.shape[2]

        def compute(x: Tensor) -> Tensor:
            out = x.new_empty(x.shape[0], self.spec.out_channels, x.shape[2], x.shape[3])
            at_once = max(1, pixels // (x.shape[2] * x.shape[3]))
            for n in range(0, len(x), at_once):
                add(x[n : n + at_once], out[n : n + at_once])
            for strand, convolve in wide.items():
                out[:, strand.start : strand.stop] = convolve(x)
            return like(out, x)

        return compute

    def added(self) -> Compute:
        """Compute a depthwise convolution in one compiled pass, whatever the dilations."""
        weight = self.weight.flatten(1).contiguous()
        into = torch.arange(len(weight), dtype=torch.int32)
        rows = into.view(-1, 1, 1).expand(-1, weight.shape[1], 1)
        places = torch.cat([rows, self.steps(self.layout)], 2).contiguous()

        def compute(x: Tensor) -> Tensor:
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            for image, sums in zip(x.contiguous(), out, strict=True):
                jit.sum_taps(image[:, None], 0, places, weight, into, sums[None])
            return like(out, x)

        return compute

    def steps(self, strands: Sequence[Strand]) -> Tensor:
        """Return where the taps of the strands' channels lie: (dy, dx), int32, (O, Kh·Kw, 2)."""
        kh, kw = self.spec.kernel_size
        taps = [(u - kh // 2, v - kw // 2) for u in range(kh) for v in range(kw)]
        return torch.tensor(
            [
                [(u * s.dilation[0], v * s.dilation[1]) for u, v in taps]
                for s in strands
                for _ in range(s.start, s.stop)
            ],
            dtype=torch.int32,
        )

    def embedded(self) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Return one kernel with the taps of all dilations, zeros between them, and its padding."""
        size = self.whole_size()
        parts = [embed(self.weight[s.start : s.stop], size, s.dilation) for s in self.layout]
        return torch.cat(parts), (size[0] // 2, size[0] // 2, size[1] // 2, size[1] // 2)

    def whole_size(self) -> tuple[int, int]:
        """Return the size of the one kernel that has room for the taps of all dilations."""
        kh, kw = self.spec.kernel_size
        down, across = (max(s.dilation[axis] for s in self.layout) for axis in (0, 1))
        return down * (kh - 1) + 1, across * (kw - 1) + 1


@register("icconv")
class ICConv(Formed, Operator):
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

    @property
    def inception(self) -> Inception:
        """What is computed, by the weights as they are."""
        return Inception(self.weight, self.layout, self.spec)

    def forms(self, x: Tensor) -> tuple[str, ...]:
        """Return the forms that can compute it, the rule's first."""
        spec, inception = self.spec, self.inception
        compiled = jit.usable(x) and spec.stride == (1, 1)
        if spec.depthwise:
            (height, width), taps = inception.whole_size(), self.weight[0].numel()
            if height * width > SPARSEST * taps:
                return ("strands", *["added"] * compiled)
            if torch.is_grad_enabled() and self._learns(x):
                return ("strands", "embedded")
            kernel, padding = inception.embedded()
            laid = Geometry(spec.stride, padding, (1, 1))
            embedded = [f"embedded, {form}" for form in correlation.forms(x, kernel, laid)]
            return ("strands", *["added"] * compiled, *embedded)
        if not any(inception.narrow(strand) for strand in self.layout) or spec.stride != (1, 1):
            return ("strands",)
        return ("folded", "strands", *["summed", "summed, all"] * (compiled and spec.groups == 1))

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return the inception convolution in a form."""
        inception, bias = self.inception, self.bias
        if form.startswith("embedded"):
            _, _, more = form.partition(", ")
            kernel, padding = inception.embedded()
            laid = Geometry(self.spec.stride, padding, (1, 1))
            if more:
                return correlation.prepared(more, x, kernel, bias, laid)
            return lambda x: depthwise_conv2d(x, kernel, bias, *laid)
        if form.startswith("summed"):
            every = form.endswith("all")
            compute = inception.summed([s for s in self.layout if every or inception.narrow(s)])
        else:
            compute = getattr(inception, form)()
        return lambda x: add_bias(compute(x), bias)

    def described(self) -> dict[str, Any]:
        """Return what the time depends on beside the map."""
        layout = [[*s.dilation, s.stop - s.start] for s in self.layout]
        return {"module": self.extra_repr(), "layout": layout}

    def learnable(self, form: str) -> bool:
        """Return whether torch computes it all."""
        return not form.startswith(("summed", "added"))

    def macs(self, h: int, w: int) -> int:
        """H'·W'·Kh·Kw·Cin·Cout / groups, as the plain convolution."""
        return self.spec.conv_macs(h, w)

    def params(self) -> int:
        """Kh·Kw·Cin·Cout / groups, and Cout for a bias, as the plain convolution."""
        return self.spec.conv_params()

    def fused(self) -> Operator:
        """Return it for inference; with one dilation only, a plain dilated convolution."""
        if len(self.layout) > 1:
            return super().fused()
        spec, dilation = self.spec, self.layout[0].dilation
        padding = tuple(d * (k // 2) for d, k in zip(dilation, spec.kernel_size, strict=True))
        dilated = replace(spec, dilation=dilation, padding=(padding[0], padding[1]))
        return Conv.holding(dilated, self.weight, self.bias)

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


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias (Cout) to every pixel, in the dtype of y."""
    return y if bias is None else y + bias.view(1, -1, 1, 1).to(y.dtype)
