"""The exact forms of a depthwise correlation: what a depthwise convolution and its gradients are.

    y[n, m, i, j] = b[m] + Σ_{u, v} w[m, u, v] · x[n, c(m), i·s + u·d − top, j·s + v·d − left]

Libraries differ by a factor of ten to a hundred between equal ways to ask for it: oneDNN's kernel
refuses paddings wider than a few columns and falls to reference code, kernels are written for one
layout, and a strip may lie along the wrong axis. Every form here is one way to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.operators import gpu
from bench.operators.choices import by_channels, is_channels_last
from bench.operators.forms import Compute, like, traced

Pair = tuple[int, int]

WIDEST = 6 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 4
"""The most columns of padding that oneDNN's depthwise kernel takes on a CPU."""
FFT_TAPS = 225
"""An FFT is not tried for kernels of fewer taps."""


class Geometry(NamedTuple):
    """How a kernel is laid over a map; what lies outside is zero.

    Attributes:
        stride: along height and width.
        padding: top, bottom, left, right; never negative.
        dilation: step between taps, along height and width.
    """

    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair

    @property
    def symmetric(self) -> bool:
        """Whether both ends of either axis are padded alike, as torch's convolution does it."""
        top, bottom, left, right = self.padding
        return (top, left) == (bottom, right)

    def turned(self) -> Geometry:
        """Return the same with height and width exchanged."""
        top, bottom, left, right = self.padding
        return Geometry(self.stride[::-1], (left, right, top, bottom), self.dilation[::-1])


def trimmed(kernel: Tensor, size: Pair, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """Return the kernel without the outer taps that lie outside the map wherever it stands.

    Args:
        kernel: (M, 1, Kh, Kw).
        size: (H, W) of the map.
        geometry: of the correlation.

    Example:
        >>> same = Geometry((1, 1), (6, 6, 6, 6), (1, 1))
        >>> kernel, less = trimmed(torch.rand(1, 1, 13, 13), (2, 4), same)
        >>> kernel.shape, less.padding
        (torch.Size([1, 1, 3, 7]), (1, 1, 3, 3))
    """
    ends = list(geometry.padding)
    for axis in (0, 1):
        s, d, n = geometry.stride[axis], geometry.dilation[axis], size[axis]
        before, after = ends[2 * axis], ends[2 * axis + 1]
        taps = kernel.shape[axis + 2]
        last = (n + before + after - d * (taps - 1) - 1) // s * s - before
        first = min(-(last // d), before // d) if last < 0 else 0
        behind = min(max(taps - 1 - (n - 1 + before) // d, 0), after // d, taps - 1 - first)
        if first or behind:
            kernel = kernel.narrow(axis + 2, first, taps - first - behind)
            ends[2 * axis : 2 * axis + 2] = before - first * d, after - behind * d
    top, bottom, left, right = ends
    return kernel, geometry._replace(padding=(top, bottom, left, right))


def forms(x: Tensor, kernel: Tensor, geometry: Geometry) -> tuple[str, ...]:
    """Return the forms that can compute it and are worth a trial, the rule's first.

    The rule is torch's convolution as it is; padded first where a CPU's kernel would refuse the
    padding. Compilers, exports and counters meet torch's convolution alone.
    """
    if traced():
        return ("direct",)
    able = [name for name, form in FORMS.items() if form.fits(x, kernel, geometry)]
    if torch.is_grad_enabled():
        able = [name for name in able if FORMS[name].differentiable]
    wide = x.is_cpu and max(geometry.padding[2:]) > WIDEST and not is_channels_last(x)
    if wide and "padded" in able:
        able.sort(key="padded".__ne__)
    return tuple(able)


def prepared(
    form: str, x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry
) -> Compute:
    """Return what correlates maps like x (N, C, H, W) with kernels (M · C, 1, Kh, Kw), in a form.

    Example:
        >>> x, kernel = torch.rand(2, 4, 9, 9), torch.rand(4, 1, 31, 31)
        >>> same = Geometry((1, 1), (15, 15, 15, 15), (1, 1))
        >>> plain = F.conv2d(x, kernel, padding=15, groups=4)
        >>> for form in forms(x, kernel, same):
        ...     assert torch.allclose(prepared(form, x, kernel, None, same)(x), plain, atol=1e-3)
    """
    return FORMS[form].prepare(x, kernel, bias, geometry)


class _Form(NamedTuple):
    """One way to compute the correlation: where it can, how, and whether torch can derive it."""

    fits: Callable[[Tensor, Tensor, Geometry], bool]
    prepare: Callable[[Tensor, Tensor, Tensor | None, Geometry], Compute]
    differentiable: bool = True


def _size(x: Tensor) -> Pair:
    return x.shape[2], x.shape[3]


def _convolution(channels: int, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    """Return torch's convolution, which pads by itself where both ends of an axis are alike."""
    if not g.symmetric:
        return _padded_convolution(channels, kernel, bias, g)
    padding = (g.padding[0], g.padding[2])
    return lambda x: F.conv2d(x, kernel, bias, g.stride, padding, g.dilation, channels)


def _padded_convolution(channels: int, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    """Return torch's convolution of a map whose lines are padded before.

    Rows above and below are the convolution's own affair, where they are as many.
    """
    top, bottom, left, right = g.padding
    rows = top if top == bottom else 0
    ends = (left, right) if top == bottom else (left, right, top, bottom)
    return lambda x: F.conv2d(
        F.pad(x, ends), kernel, bias, g.stride, (rows, 0), g.dilation, channels
    )


def _direct(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    return _convolution(x.shape[1], kernel, bias, g)


def _trimmed(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    kernel, less = trimmed(kernel, _size(x), g)
    return _convolution(x.shape[1], kernel.contiguous(), bias, less)


def _trims(x: Tensor, kernel: Tensor, g: Geometry) -> bool:
    return trimmed(kernel, _size(x), g)[0].shape != kernel.shape


def _padded(
    layout: torch.memory_format = torch.contiguous_format,
) -> Callable[[Tensor, Tensor, Tensor | None, Geometry], Compute]:
    """Return the form that pads first, and computes in a layout."""

    def prepare(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
        kernel, less = trimmed(kernel, _size(x), g)
        if by_channels(kernel):  # which is contiguous too where a group has one channel
            kernel = kernel.clone(memory_format=torch.contiguous_format)
        kernel = kernel.contiguous(memory_format=layout)
        convolve = _padded_convolution(x.shape[1], kernel, bias, less)
        return lambda x: like(convolve(x.contiguous(memory_format=layout)), x)

    return prepare


def _transposed(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    """Return the convolution of the turned map by the turned kernel, turned back."""
    kernel, less = trimmed(kernel, _size(x), g)
    turned = kernel.transpose(2, 3).contiguous()
    convolve = _padded_convolution(x.shape[1], turned, bias, less.turned())

    def compute(x: Tensor) -> Tensor:
        return like(convolve(x.transpose(2, 3).contiguous()).transpose(2, 3), x)

    return compute


def _fft(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    """Return the correlation theorem: irfft2(rfft2(x) · conj(rfft2(w))), on a map padded to it.

    Nothing wraps around into the part that is kept, since the lines are as long as the padded map.
    """
    kernel, less = trimmed(kernel, _size(x), g)
    top, bottom, left, right = less.padding
    height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
    lines = (_smooth(height), _smooth(width))
    out = (height - kernel.shape[2] + 1, width - kernel.shape[3] + 1)
    multiple = kernel.shape[0] // x.shape[1]
    taps = torch.fft.rfft2(kernel[:, 0], s=lines).conj()
    ends = (left, lines[1] - left - x.shape[3], top, lines[0] - top - x.shape[2])

    def compute(x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(F.pad(x, ends))
        if multiple > 1:
            spectrum = spectrum.repeat_interleave(multiple, 1)
        y = torch.fft.irfft2(spectrum * taps, s=lines)[:, :, : out[0], : out[1]]
        return like(y if bias is None else y + bias[:, None, None], x)

    return compute


def _smooth(size: int) -> int:
    """Return the least length from `size` on that has no prime factor above 5."""
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def _fft_fits(x: Tensor, kernel: Tensor, g: Geometry) -> bool:
    plain = g.stride == (1, 1) and g.dilation == (1, 1)
    less = trimmed(kernel, _size(x), g)[0] if plain else kernel
    wide = x.dtype in (torch.float32, torch.float64)
    return plain and wide and less.shape[2] * less.shape[3] >= FFT_TAPS


def _toeplitz(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Compute:
    """Return the products with banded matrices of the taps, on a GPU's tensor cores."""
    kernel, less = trimmed(kernel, _size(x), g)
    correlate = partial(gpu.kernels().correlate, kernel=kernel.contiguous(), bias=bias, g=less)
    return lambda x: like(correlate(x), x)


def _toeplitz_fits(x: Tensor, kernel: Tensor, g: Geometry) -> bool:
    return gpu.usable(x) and kernel.shape[0] == x.shape[1] and kernel.dtype == x.dtype


FORMS = {
    "direct": _Form(lambda x, kernel, g: True, _direct),
    "trimmed": _Form(_trims, _trimmed),
    "padded": _Form(lambda x, kernel, g: True, _padded()),
    "transposed": _Form(lambda x, kernel, g: kernel.shape[2] != kernel.shape[3], _transposed),
    "channels_last": _Form(lambda x, kernel, g: True, _padded(torch.channels_last)),
    "fft": _Form(_fft_fits, _fft),
    "toeplitz": _Form(_toeplitz_fits, _toeplitz, differentiable=False),
}
