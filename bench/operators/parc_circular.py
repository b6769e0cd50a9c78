"""Circular correlation along one axis of a map, in the forms that ParC offers."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.operators.depthwise import depthwise_conv2d
from bench.operators.forms import Compute, like


def resample(table: Tensor, size: int) -> Tensor:
    """Resample the last axis of (A, K) or (A, B, K) to `size`, linearly with aligned corners.

    Example:
        >>> resample(torch.tensor([[0.0, 1.0, 4.0]]), 5)
        tensor([[0.0000, 0.5000, 1.0000, 2.5000, 4.0000]])
    """
    if table.shape[-1] == size:
        return table
    if table.dim() == 2:
        return resample(table[None], size)[0]
    return F.interpolate(table, size, mode="linear", align_corners=True)


def circular_direct(x: Tensor, weight: Tensor, dim: int, stride: int = 1) -> Tensor:
    """Circular correlation as one convolution over the map continued once.

    Along the height y[n, o, i, j] = Σ_{c, k} weight[o, c, k] · x[n, c, (i·stride + k) mod H, j].

    Args:
        x: (N, C, H, W).
        weight: (O, C / groups, K), with K the size of x along `dim`.
        dim: 2 for the height, 3 for the width.
        stride: step along `dim`.

    Returns:
        (N, O, ⌈H / stride⌉, W), or the same with the stride on W.
    """
    wrapped = torch.cat([x, x.narrow(dim, 0, x.shape[dim] - 1)], dim=dim)
    kernel = weight.unsqueeze(5 - dim)
    steps = (stride, 1) if dim == 2 else (1, stride)
    groups = x.shape[1] // weight.shape[1]
    if groups == x.shape[1]:
        return depthwise_conv2d(wrapped, kernel, stride=steps)
    return F.conv2d(wrapped, kernel, stride=steps, groups=groups)


def circular_fft(x: Tensor, weight: Tensor, dim: int, stride: int = 1) -> Tensor:
    """`circular_direct` by the convolution theorem: irfft(rfft(x) · conj(rfft(w)), n=K).

    Half precision is computed in float32: transforms of long lines overflow float16, and few
    backends have them in bfloat16. Depthwise or dense (one group).
    """
    n = x.shape[dim]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    lines = torch.fft.rfft(wide, dim=dim)
    taps = torch.fft.rfft(weight.to(wide.dtype), dim=2).conj()
    if weight.shape[1] == 1:
        product = lines * taps[:, 0].unsqueeze(4 - dim)
    else:
        equation = "ncfw,ocf->nofw" if dim == 2 else "nchf,ocf->nohf"
        product = torch.einsum(equation, lines, taps)
    out = torch.fft.irfft(product, n=n, dim=dim)
    strided: Tensor = out[:, :, ::stride] if dim == 2 else out[..., ::stride]
    return strided.to(x.dtype)


def circulant(weight: Tensor, stride: int = 1) -> Tensor:
    """Return the matrices (O, fan, ⌈K/s⌉, K) whose row i is the kernel turned by i · stride."""
    n = weight.shape[2]
    windows = torch.cat([weight, weight], 2).unfold(2, n, 1)  # [..., start, j] = w[start + j]
    return windows[:, :, 1:].flip(2)[:, :, ::stride]  # row i starts at n − i


def circular_product(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """Circular correlation as a matrix product, line by line.

    Args:
        x: (N, C, H, W).
        matrix: of `circulant`; depthwise or dense (one group).
        dim: 2 for the height, 3 for the width.
    """
    if matrix.shape[1] == 1:
        rows = matrix[:, 0]
        out: Tensor = rows @ x if dim == 2 else x @ rows.transpose(1, 2)
        return out
    equation = "ocik,nckw->noiw" if dim == 2 else "ocik,nchk->nohi"
    return torch.einsum(equation, matrix, x)


def circular_merged(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """`circular_product` of a depthwise kernel, with one product a channel for all images."""
    rows, (n, channels, height, width) = matrix[:, 0], x.shape
    if dim == 2:
        lines = x.permute(1, 2, 0, 3).reshape(channels, height, n * width)
        merged = torch.unflatten(rows @ lines, 2, (n, width))
        return merged.permute(2, 0, 1, 3).contiguous()
    lines = x.transpose(0, 1).reshape(channels, n * height, width)
    merged = torch.unflatten(lines @ rows.transpose(1, 2), 1, (n, height))
    return merged.transpose(0, 1).contiguous()


def circular_circulant(x: Tensor, weight: Tensor, dim: int, stride: int = 1) -> Tensor:
    """`circular_direct` as a matrix product; depthwise or dense (one group)."""
    return circular_product(x, circulant(weight, stride), dim)


CIRCULAR = {
    "direct": circular_direct,
    "fft": circular_fft,
    "circulant": circular_circulant,
}


def prepared(form: str, weight: Tensor, dim: int, stride: int) -> Compute:
    """Return what correlates maps with `weight` in a form; matrices are made once."""
    if form in ("circulant", "merged"):
        product = circular_product if form == "circulant" else circular_merged
        return partial(product, matrix=circulant(weight, stride).contiguous(), dim=dim)
    if form == "channels_last":
        direct = partial(circular_direct, weight=weight, dim=dim, stride=stride)
        return lambda x: like(direct(x.contiguous(memory_format=torch.channels_last)), x)
    return partial(CIRCULAR[form], weight=weight, dim=dim, stride=stride)


def position_bias(pe: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the bias per position that an embedding amounts to: b + circ(pe).

    Args:
        pe: (C, K), added to every line.
        weight: (O, C / groups, K), depthwise or dense.
        bias: (O).

    Returns:
        (O, K).
    """
    return circular_circulant(pe[None, :, :, None], weight, 2)[0, :, :, 0] + bias.unsqueeze(-1)


def circular_macs(form: str, channels: int, fan: int, n: int, stride: int) -> int:
    """MACs of one line of n pixels, C channels in and out, each reading `fan` channels.

    A real transform of n pixels counts 1.25·n·log2(n), half of the usual 2.5·n·log2(n)
    operations; a complex product counts 4.

    Example:
        >>> circular_macs("direct", 8, 1, 16, 2), circular_macs("fft", 8, 1, 16, 2)
        (1024, 1568)
    """
    if form != "fft":
        return channels * fan * n * -(-n // stride)
    transform = math.ceil(1.25 * n * math.log2(n))
    return channels * (2 * transform + 4 * (n // 2 + 1) * fan)
