"""EDO (efficient dilation optimisation): a dilation per output channel, read off a supernet.

Paper: Inception Convolution with Efficient Dilation Search, CVPR 2021, arXiv 2012.13587. The
supernet's convolutions hold every dilation; after its training, each output channel keeps the
dilated kernel within its large one whose expected output is nearest. The public code has no
search, and the paper leaves the expectation open, so that there are two readings here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.operators.base import ConvSpec, Operator, require_count
from bench.operators.conv import Conv
from bench.operators.icconv_patterns import key
from bench.operators.registry import register

Reading = Literal["output", "weight"]
READINGS: tuple[Reading, ...] = ("output", "weight")


@register("edo")
class Supernet(Operator):
    """EDO's supernet: one dense convolution that holds every dilation up to `dmax`.

    A K×K convolution becomes one of (dmax·(K − 1) + 1)², (2·dmax + 1)² for K = 3, with the same
    channels, groups and stride. It stands exactly where `icconv` can stand. It never takes over
    the weights of the replaced convolution: a small kernel among zeros would start the search
    with an answer.

    Args:
        spec: odd kernel, dilation 1, padded with zeros to the same size.
        dmax: largest dilation of an axis.

    Raises:
        ValueError: another convolution, or `dmax` < 1.

    Example:
        >>> import torch
        >>> op = Supernet(ConvSpec.make(in_channels=8, out_channels=6, bias=False))
        >>> op(torch.zeros(1, 8, 14, 20)).shape, op.wide.spec.kernel_size, op.params()
        (torch.Size([1, 6, 14, 20]), (9, 9), 3888)
    """

    requires = ("odd_kernel", "no_dilation", "same_padding", "zeros")

    def __init__(self, spec: ConvSpec, *, dmax: int = 4) -> None:
        super().__init__(spec)
        require_count("dmax", dmax)
        self.dmax = dmax
        kh, kw = (dmax * (k - 1) + 1 for k in spec.kernel_size)
        self.wide = Conv(replace(spec, kernel_size=(kh, kw), padding=(kh // 2, kw // 2)))

    @property
    def weight(self) -> Tensor:
        """The large kernels, (Cout, Cin / groups, dmax·(Kh − 1) + 1, dmax·(Kw − 1) + 1)."""
        return self.wide.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, ⌈H/s⌉, ⌈W/s⌉)."""
        out: Tensor = self.wide(x)
        return out

    def macs(self, h: int, w: int) -> int:
        """As the large convolution."""
        return self.wide.macs(h, w)

    def params(self) -> int:
        """As the large convolution."""
        return self.wide.params()

    def fused(self) -> Operator:
        """Return the large convolution."""
        return self.wide.fuse()


def dilations(dmax: int) -> list[tuple[int, int]]:
    """Return the dmax² dilations (height, width) in the order of a pattern, height slowest.

    Example:
        >>> dilations(2)
        [(1, 1), (1, 2), (2, 1), (2, 2)]
    """
    return [(i, j) for i in range(1, dmax + 1) for j in range(1, dmax + 1)]


def crop(weight: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Cut the kernel of one dilation out of a large one: the taps at 0, ±d, ±2d, … of each axis.

    Args:
        weight: (Cout, Cin / groups, Dh, Dw), both sides odd.
        kernel_size: (Kh, Kw) of what is cut out.
        dilation: (dh, dw) with d·(K − 1) + 1 at most D.

    Returns:
        (Cout, Cin / groups, Kh, Kw), a view.

    Example:
        >>> import torch
        >>> crop(torch.arange(25).view(1, 1, 5, 5), (3, 3), (2, 1)).tolist()
        [[[[1, 2, 3], [11, 12, 13], [21, 22, 23]]]]
    """
    for axis, (k, d) in enumerate(zip(kernel_size, dilation, strict=True)):
        first = weight.shape[2 + axis] // 2 - d * (k // 2)
        weight = weight.narrow(2 + axis, first, d * (k - 1) + 1)
    return weight[:, :, :: dilation[0], :: dilation[1]]


def weight_errors(weight: Tensor, spec: ConvSpec, dmax: int) -> Tensor:
    """Measure how much weight each dilation leaves out: Σ |W − W_crop| per output channel.

    Args:
        weight: of the supernet's layer, (Cout, Cin / groups, Dh, Dw).
        spec: of the K×K convolution that is searched.
        dmax: largest dilation of an axis.

    Returns:
        (Cout, dmax²) float64, in the order of `dilations`.
    """
    large = weight.detach().abs().sum(1, keepdim=True, dtype=torch.float64)
    retained = [crop(large, spec.kernel_size, d).sum((1, 2, 3)) for d in dilations(dmax)]
    return large.sum((1, 2, 3))[:, None] - torch.stack(retained, 1)


def output_errors(weight: Tensor, spec: ConvSpec, dmax: int, expectation: Tensor) -> Tensor:
    """Measure how far each dilation moves the expected output: mean over p of |E[y] − E[y_crop]|.

    With M[c, q] = E[x[c, q]], the mean of the layer's input over images at channel c and position
    q (0 outside the map), convolution is linear, so that for output channel o and position p

        E[y − y_crop][o, p] = Σ_{c, u off the crop's taps} W[o, c, u] · M[c, p·s + u],

    and the error of a dilation is the mean over p of its absolute value: the L1 distance of the
    two expected maps. The bias is in both. Keeping the positions, in place of one mean per
    channel, keeps left-out taps of opposite signs from cancelling by accident, and counts that
    dilated taps leave the map at its borders.

    Args:
        weight: of the supernet's layer, (Cout, Cin / groups, Dh, Dw).
        spec: of the K×K convolution that is searched.
        dmax: largest dilation of an axis.
        expectation: M, (Cin, H, W), from `expectations`.

    Returns:
        (Cout, dmax²), in the order of `dilations`, in units of the output.
    """
    large = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    mean = expectation.to(large.dtype)[None]
    centre = (large.shape[2] // 2, large.shape[3] // 2)
    expected_output = F.conv2d(mean, large, None, spec.stride, centre, 1, spec.groups)
    errors = []
    for d in dilations(dmax):
        padding = (d[0] * (spec.kernel_size[0] // 2), d[1] * (spec.kernel_size[1] // 2))
        kernel = crop(large, spec.kernel_size, d)
        expected_crop = F.conv2d(mean, kernel, None, spec.stride, padding, d, spec.groups)
        errors.append((expected_output - expected_crop)[0].abs().mean((1, 2)))
    return torch.stack(errors, 1)


def expectations(
    run: Callable[[Tensor], Any], layers: Mapping[str, nn.Module], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Measure the mean of what enters each layer, at every channel and position.

    Args:
        run: passes a batch of images through the network, in evaluation mode.
        layers: the supernet's layers by name.
        batches: images (N, C, H, W). Where they are of several sizes, each map is resampled
            (bilinearly) to the size of the layer's first.

    Returns:
        Name → (Cin, H, W) float64.

    Raises:
        ValueError: there is no batch, or a layer never runs.

    Example:
        >>> import torch
        >>> layer = Supernet(ConvSpec.make(in_channels=2, out_channels=2))
        >>> batches = [torch.zeros(1, 2, 5, 5), torch.ones(3, 2, 5, 5)]
        >>> means = expectations(layer, {"only": layer}, batches)
        >>> means["only"].shape, means["only"].unique().tolist()
        (torch.Size([2, 5, 5]), [0.75])
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            total = args[0].detach().double().sum(0)
            if name in sums and sums[name].shape != total.shape:
                size = sums[name].shape[1:]
                total = F.interpolate(total[None], size, mode="bilinear", align_corners=False)[0]
            sums[name] = sums[name] + total if name in sums else total
            counts[name] += len(args[0])

        return add

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for images in batches:
                run(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, count in counts.items():
        if not count:
            raise UserError(f"`batches` must send something through every layer; {name} got none.")
    return {name: total / counts[name] for name, total in sums.items()}


def choose(errors: Tensor, dmax: int) -> Tensor:
    """Return the dilation (height, width) of least error per output channel, (Cout, 2).

    Equal errors go to the first in the order of `dilations`.

    Example:
        >>> import torch
        >>> choose(torch.tensor([[3.0, 1.0, 2.0, 1.0]]), dmax=2).tolist()
        [[1, 2]]
    """
    table = torch.tensor(dilations(dmax))
    return table[errors.argmin(1).cpu()]


def pattern_of(chosen: Tensor, dmax: int, unit: int = 1) -> dict[str, int]:
    """Count the output channels of every dilation, as a pattern of `icconv`.

    `icconv` counts in multiples of its groups. Counts that are none are rounded by largest
    remainder: each down, then those that lost most get a unit more, until all channels are there.

    Args:
        chosen: (Cout, 2), from `choose`.
        dmax: largest dilation of an axis; dilations without a channel count 0.
        unit: the number of groups, or 1 for a depthwise convolution.

    Example:
        >>> import torch
        >>> pattern_of(torch.tensor([[1, 1], [1, 2], [1, 2], [1, 2]]), dmax=2)
        {'(0, 0)': 1, '(0, 1)': 3, '(1, 0)': 0, '(1, 1)': 0}
        >>> pattern_of(torch.tensor([[1, 1], [1, 2], [1, 2], [1, 2]]), dmax=2, unit=2)
        {'(0, 0)': 2, '(0, 1)': 2, '(1, 0)': 0, '(1, 1)': 0}
    """
    pairs = [(int(h), int(w)) for h, w in chosen]
    counts = [pairs.count(d) for d in dilations(dmax)]
    units = [count // unit for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda place: -(counts[place] % unit))
    for place in by_remainder[: len(pairs) // unit - sum(units)]:
        units[place] += 1
    return {key(d): n * unit for d, n in zip(dilations(dmax), units, strict=True)}
