"""Circular correlation along one axis of a map, in the three forms that ParC offers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.operators.depthwise import depthwise_conv2d


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


def circular_circulant(x: Tensor, weight: Tensor, dim: int, stride: int = 1) -> Tensor:
    """`circular_direct` as a matrix product: row i is the kernel turned by i · stride.

    Depthwise or dense (one group).
    """
    n = x.shape[dim]
    place = torch.arange(n, device=x.device)
    matrix = weight[:, :, (place[None, :] - place[::stride, None]) % n]  # (O, fan, ⌈n/s⌉, n)
    if weight.shape[1] == 1:
        rows = matrix[:, 0]
        out: Tensor = rows @ x if dim == 2 else x @ rows.transpose(1, 2)
        return out
    equation = "ocik,nckw->noiw" if dim == 2 else "ocik,nchk->nohi"
    return torch.einsum(equation, matrix, x)


CIRCULAR = {
    "direct": circular_direct,
    "fft": circular_fft,
    "circulant": circular_circulant,
}


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
