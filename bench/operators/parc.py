"""ParC and Fast-ParC: position-aware circular convolution with a kernel as long as the map."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.operators import gpu, jit
from bench.operators.base import ConvSpec, Operator
from bench.operators.forms import Compute, Formed, like, traced
from bench.operators.parc_circular import (
    CIRCULAR,
    circulant,
    circular_macs,
    position_bias,
    prepared,
    resample,
)
from bench.operators.registry import register

Axis = Literal["height", "width", "both"]
Form = Literal["auto", "direct", "fft", "circulant"]

DEPTHWISE = ("circulant", "merged", "direct", "channels_last", "fft")
"""The forms of a depthwise kernel; the rule's is the first."""
TOGETHER = ("axes", "stacked", "lines", "at once")
"""The forms of both axes: each in a form of its own, or both written into one map."""


class CircularConv(Formed):
    """One axis of ParC: y = circ(x + pe) + b, with tables of `length` taps per channel.

    Args:
        channels: C, in and out.
        fan: input channels that an output channel reads: 1 (depthwise) or C (dense).
        length: K, the size that the tables are stored at.
        dim: 2 to run along the height, 3 along the width.
        stride: of the replaced convolution.
        position_embedding: whether there is a `pe` (C, K) beside `weight` (C, fan, K) and
            `bias` (C).
    """

    pe: Tensor | None
    position_bias: Tensor | None

    def __init__(
        self,
        channels: int,
        fan: int,
        length: int,
        dim: int,
        stride: tuple[int, int],
        position_embedding: bool,
    ) -> None:
        super().__init__()
        self.dim, self.stride = dim, stride
        self.weight = nn.Parameter(torch.empty(channels, fan, length))
        self.bias = nn.Parameter(torch.empty(channels))
        bound = (fan * length) ** -0.5  # as torch starts a convolution of this fan
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        pe = nn.Parameter(torch.empty(channels, length)) if position_embedding else None
        if pe is not None:
            nn.init.trunc_normal_(pe, std=0.02)
        self.register_parameter("pe", pe)
        self.register_parameter("position_bias", None)

    def fold(self) -> None:
        """Turn the embedding into a bias per position: circ(x + pe) = circ(x) + circ(pe).

        `position_bias` (C, K) takes over as the learned table. The bias and the embedding stay
        as buffers, because on a map of another size the bias follows from them: resampling does
        not commute with the correlation.
        """
        if self.pe is None:
            return
        table = position_bias(self.pe.double(), self.weight.double(), self.bias.double())
        self.position_bias = nn.Parameter(table.detach().to(self.bias.dtype))
        for name in ("bias", "pe"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)

    def tables(self, n: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return kernel, embedding and bias (C, n or 1) for lines of n pixels.

        Folded, there is no embedding: it is in the bias.
        """
        weight = resample(self.weight, n)
        pe = None if self.pe is None else resample(self.pe, n)
        if pe is None or self.position_bias is None:
            return weight, pe, self.bias.unsqueeze(-1)
        if n == self.weight.shape[-1]:
            return weight, None, self.position_bias
        return weight, None, position_bias(pe, weight, self.bias)

    def forms(self, x: Tensor) -> tuple[str, ...]:
        """Return the forms that can compute the kernel, the rule's first."""
        dense = self.weight.shape[1] > 1
        able = ("direct", "circulant", "fft") if dense else DEPTHWISE
        if torch.compiler.is_exporting():  # exports know real sums alone
            return tuple(form for form in able if form != "fft")
        return able

    def described(self) -> dict[str, Any]:
        """Return what the time depends on beside the map."""
        embedded = self.pe is not None and self.position_bias is None
        return {"dim": self.dim, "stride": self.stride, "embedded": embedded}

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return the circular correlation in a form, with embedding and bias."""
        along, across = self.stride if self.dim == 2 else self.stride[::-1]
        across_dim, dim = 4 - self.dim, self.dim  # of a table (C, n) beside a map (C, H, W)
        weight, pe, offset = self.tables(x.shape[dim])
        embedding = None if pe is None else pe.unsqueeze(across_dim).to(x.dtype)
        offset = offset[:, ::along].unsqueeze(across_dim)
        correlate = prepared(form, weight, dim, along)

        def compute(x: Tensor) -> Tensor:
            if embedding is not None:
                x = x + embedding
            if across > 1:  # lines that the stride leaves out need not be computed
                x = x[..., ::across] if dim == 2 else x[:, :, ::across]
            out = correlate(x)
            return out + offset.to(out.dtype)

        return compute


@register("parc")
class Parc(Formed, Operator):
    """Position-aware circular convolution (ParC-Net, arXiv 2203.03952; Fast-ParC, 2210.04020).

    Along the height, with a kernel w of H taps and an embedding pe of H positions per channel,

        y[n, c, i, j] = b[c] + Σ_k w[c, k] · (x + pe)[n, c, (i + k) mod H, j],

    tap 0 on the output pixel; along the width likewise. With `axis="both"` the first ⌊C/2⌋
    channels run along the height and the others along the width. With groups=1 the sum also runs
    over the input channels of the same half (the paper's ResNet-50). At stride s the value is the
    one at stride 1, taken at every s-th pixel.

    The kernel is global: `kernel_size`, `dilation` and `padding_mode` of the replaced convolution
    do not matter, and there is always a bias. Tables are stored at the size `resolution` and
    resampled (linearly, corners aligned) to other maps, each axis from its own length.

    Three forms compute the same value: "direct" (one convolution over the map continued once),
    "fft" (irfft(rfft(x + pe) · conj(rfft(w)), n=H), Fast-ParC) and "circulant" (one matrix per
    channel). Which is fastest depends on shape, device and dtype: with "auto" it is measured where
    that is asked for (`fuse(example)`), else the circulant form is taken for a depthwise kernel
    and the direct one for a dense kernel. `form` may be set at any time. The FFT is computed in
    float32 under half precision, and exports as the circulant form.

    Args:
        spec: depthwise or dense (groups=1), as many channels out as in, `resolution` given.
        axis: "height" (the papers' ParC-V), "width" or "both".
        position_embedding: whether to add pe to the input.
        form: "auto", "direct", "fft" or "circulant".

    Raises:
        ValueError: no resolution, other groups, padding other than "same", or one channel for
            two axes.

    Example:
        >>> import torch
        >>> spec = ConvSpec.make(
        ...     in_channels=5, out_channels=5, kernel_size=7, groups=5, resolution=(14, 20)
        ... )
        >>> op = Parc(spec, form="fft")
        >>> op(torch.zeros(1, 5, 14, 20)).shape, op.params()
        (torch.Size([1, 5, 14, 20]), 181)
        >>> op(torch.zeros(1, 5, 9, 31)).shape
        torch.Size([1, 5, 9, 31])
    """

    requires = ("same_padding", "resolution")
    depthwise = True

    def __init__(
        self,
        spec: ConvSpec,
        *,
        axis: Axis = "both",
        position_embedding: bool = True,
        form: Form = "auto",
    ) -> None:
        super().__init__(spec)
        if spec.in_channels != spec.out_channels:
            raise UserError(
                f"parc keeps the channels: `out_channels` (={spec.out_channels}) must equal "
                f"`in_channels` (={spec.in_channels})."
            )
        if spec.groups not in (1, spec.in_channels):
            raise UserError(
                f"parc is depthwise or dense: `groups` (={spec.groups}) must be "
                f"`in_channels` (={spec.in_channels}) or 1."
            )
        assert spec.resolution is not None
        if axis not in ("height", "width", "both"):
            raise UserError(f"`axis` (={axis!r}) must be 'height', 'width' or 'both'.")
        if axis == "both" and spec.in_channels < 2:
            raise UserError(
                f"parc gives each axis its own channels: `in_channels` (={spec.in_channels}) "
                "must be >= 2 for `axis` (='both')."
            )
        self.axis = axis
        first = {"height": spec.in_channels, "width": 0, "both": spec.in_channels // 2}[axis]
        self.split = (first, spec.in_channels - first)
        self.axes = nn.ModuleList(
            CircularConv(
                channels,
                channels if spec.groups == 1 else 1,
                spec.resolution[dim - 2],
                dim,
                spec.stride,
                position_embedding,
            )
            for dim, channels in zip((2, 3), self.split, strict=True)
            if channels
        )
        self.form = form

    @property
    def form(self) -> str:
        """How the value is computed; setting it checks the name."""
        return self._form

    @form.setter
    def form(self, form: str) -> None:
        if form not in ("auto", *CIRCULAR, *TOGETHER):
            raise UserError(f"`form` (={form!r}) must be one of {('auto', *CIRCULAR)}.")
        self._form = form
        for conv in getattr(self, "axes", ()):  # not yet there when the module begins
            assert isinstance(conv, CircularConv)
            conv.form = "auto" if form in TOGETHER else form

    def computed_form(self) -> str:
        """Return the form that the rule takes, which MACs are counted for."""
        if self._form in ("auto", *TOGETHER):
            return "direct" if self.spec.groups == 1 < self.spec.in_channels else "circulant"
        return self._form

    def forms(self, x: Tensor) -> tuple[str, ...]:
        """Return "axes", each in a form of its own, and those that write both into one map."""
        embedded = any(conv.pe is not None and conv.position_bias is None for conv in self.parts())
        plain = self.spec.stride == (1, 1) and self.spec.groups > 1 and not embedded
        if not plain or self._form not in ("auto", *TOGETHER) or traced():
            return ("axes",)
        fits = {"lines": jit.usable(x), "at once": gpu.takes_whole(x) and self._is_of(x.dtype)}
        return tuple(form for form in TOGETHER if fits.get(form, True))

    def described(self) -> dict[str, Any]:
        """Return what the time depends on beside the map."""
        return {"module": self.extra_repr(), "split": self.split}

    def _is_of(self, dtype: torch.dtype) -> bool:
        return all(conv.weight.dtype == dtype for conv in self.parts())

    def learnable(self, form: str) -> bool:
        """Return whether torch computes it all."""
        return form == "axes"

    def prepared(self, form: str, x: Tensor) -> Compute:
        """Return ParC in a form."""
        if form == "axes":
            return self._by_axes
        by = self._by_products if form == "stacked" else partial(self._by_lines, form)
        return by(x.shape[2], x.shape[3])

    def _by_axes(self, x: Tensor) -> Tensor:
        parts = (x,) if len(self.axes) == 1 else torch.split(x, list(self.split), dim=1)
        outs = [conv(part) for conv, part in zip(self.axes, parts, strict=True)]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)

    def _by_products(self, height: int, width: int) -> Compute:
        """Return one product with circulant matrices per image and axis, biases included."""
        products: list[tuple[slice, Tensor, Tensor, bool]] = []
        start = 0
        for conv in self.parts():
            high = conv.dim == 2
            weight, _, offset = conv.tables(height if high else width)
            matrix = circulant(weight)[:, 0]
            table = offset.unsqueeze(4 - conv.dim).expand(-1, height, width)
            matrix = (matrix if high else matrix.transpose(1, 2)).contiguous()
            products.append((slice(start, start + len(weight)), matrix, table, high))
            start += len(weight)

        def compute(x: Tensor) -> Tensor:
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            for image, into in zip(x.contiguous(), out, strict=True):
                for part, matrix, table, high in products:
                    lines = (matrix, image[part]) if high else (image[part], matrix)
                    torch.baddbmm(table, *lines, out=into[part])
            return like(out, x)

        return compute

    def _by_lines(self, form: str, height: int, width: int) -> Compute:
        """Return both axes in one call of a kernel: numba's, or on a GPU Triton's."""
        size, kernels, offsets = max(height, width), [], []
        for conv in self.parts():
            n = (height, width)[conv.dim - 2]
            weight, _, offset = conv.tables(n)
            kernels.append(F.pad(weight[:, 0], (0, size - n)))
            offsets.append(F.pad(offset.expand(-1, n), (0, size - n)))
        kernel, table = torch.cat(kernels), torch.cat(offsets)
        if form == "at once":
            run = partial(gpu.kernels().circular, weight=kernel, table=table, split=self.split[0])
            return lambda x: like(run(x), x)

        def compute(x: Tensor) -> Tensor:
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            jit.circular(x.contiguous(), kernel, table, self.split[0], out)
            return like(out, x)

        return compute

    def parts(self) -> list[CircularConv]:
        """Return the axes."""
        return [conv for conv in self.axes if isinstance(conv, CircularConv)]

    def macs(self, h: int, w: int) -> int:
        """H·⌈H/s⌉·⌈W/s⌉ per channel and input channel along the height; likewise the width.

        The FFT form counts 1.25·n·log2(n) MACs for a real transform of n pixels (half of the
        usual 2.5·n·log2(n) operations) and 4 for a complex product; it computes all positions of
        a line, whatever the stride; a counter that does not know FFTs sees less. The fused form
        computes its bias per position, one line an axis, on maps of another size than stored.
        """
        size, total = (h, w), 0
        for conv in self.parts():
            axis = conv.dim - 2
            lines = -(-size[1 - axis] // self.spec.stride[1 - axis])
            channels, fan, length = conv.weight.shape
            n, stride = size[axis], self.spec.stride[axis]
            total += lines * circular_macs(self.computed_form(), channels, fan, n, stride)
            if conv.position_bias is not None and n != length:
                total += circular_macs("circulant", channels, fan, n, 1)
        return total

    def params(self) -> int:
        """K·fan·C + C·K + C per axis, with K the stored length and fan 1 or the axis' channels.

        Without an embedding C·K less; folded C less, as the bias is in the table.
        """
        assert self.spec.resolution is not None
        total = 0
        for conv in self.parts():
            channels, length = conv.weight.shape[0], self.spec.resolution[conv.dim - 2]
            fan = channels if self.spec.groups == 1 else 1
            tables = 0 if conv.pe is None else 1
            bias = 0 if conv.position_bias is not None else channels
            total += channels * length * (fan + tables) + bias
        return total

    def fused(self) -> Operator:
        """Fold the embedding into a bias per position, exact at every size of the map."""
        fused = super().fused()
        assert isinstance(fused, Parc)
        for conv in fused.axes:
            assert isinstance(conv, CircularConv)
            conv.fold()
        return fused
