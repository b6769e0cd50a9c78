"""Triton's kernels: depthwise correlations, their gradients, strips and circular correlations.

All turn a convolution along a line into a product with a banded matrix of its taps, which tensor
cores compute: T[a, b] = w[a − b·s + left] (Toeplitz) or w[(a − b) mod n] (circulant). The matrices
are gathered from the taps as they are needed and never stored. Sums are of float32; factors of
float32 are split into three parts (tf32x3), so that nothing of them is lost.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.operators.correlation import Geometry, Pair

FEW = 2048
"""Lines of all images, below which programs take few of them, so that there are more programs."""
PROGRAMS = 1024
"""Programs that share the gradients of all kernels, about."""


@triton.jit
def _correlate(
    x,
    w,
    bias,
    y,
    lines,
    image,
    plane,
    C,
    H: tl.constexpr,
    W: tl.constexpr,
    OH: tl.constexpr,
    OW: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    DH: tl.constexpr,
    DW: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    BIASED: tl.constexpr,
    LINES: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y[n, c, i, j] = bias[c] + Σ w[c, u, v] x[n, c, i·SH + u·DH − TOP, j·SW + v·DW − LEFT]."""
    across: tl.constexpr = (OW + COLUMNS - 1) // COLUMNS
    tile, c = tl.program_id(0), tl.program_id(1)
    line = (tile // across) * LINES + tl.arange(0, LINES)
    n, i = line // OH, line % OH
    j = (tile % across) * COLUMNS + tl.arange(0, COLUMNS)
    first = 0
    if CHUNKS * DEPTH < W:  # the inputs of a tile begin somewhere; at multiples of 16 for speed
        first = tl.maximum((tile % across) * COLUMNS * SW - LEFT, 0) // 16 * 16
    depth = tl.arange(0, DEPTH)
    sums = tl.zeros((LINES, COLUMNS), tl.float32)
    if BIASED:
        sums += tl.load(bias + c).to(tl.float32)
    source = x + n.to(tl.int64) * image + c * plane
    for turn in range(KH * CHUNKS):
        u = turn // CHUNKS
        a = first + (turn % CHUNKS) * DEPTH + depth
        row = i * SH + u * DH - TOP
        there = (line < lines) & (row >= 0) & (row < H)
        values = tl.load(
            source[:, None] + (row * W)[:, None] + a[None, :],
            mask=there[:, None] & (a < W)[None, :],
            other=0.0,
        )
        far = a[:, None] - j[None, :] * SW + LEFT
        v = far // DW
        inside = (far >= 0) & (v < KW)
        if DW > 1:
            inside = inside & (far % DW == 0)
        band = tl.load(w + (c * KH + u) * KW + v, mask=inside, other=0.0)
        sums = tl.dot(values, band, sums, input_precision=PRECISION)
    target = y + (n.to(tl.int64) * C + c)[:, None] * (OH * OW) + (i * OW)[:, None] + j[None, :]
    tl.store(target, sums.to(y.dtype.element_ty), mask=(line < lines)[:, None] & (j < OW)[None, :])


@triton.jit
def _kernel_gradient(
    x,
    g,
    out,
    lines,
    share,
    image,
    plane,
    image_of_g,
    plane_of_g,
    C,
    H: tl.constexpr,
    W: tl.constexpr,
    OH: tl.constexpr,
    OW: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    DH: tl.constexpr,
    DW: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    LINES: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out[part, c, u, v] = Σ g[n, c, i, j] x[n, c, i·SH + u·DH − TOP, j·SW + v·DW − LEFT].

    The sum is over the lines (n, i) of a part. One product has all pairs of an output column and
    an input column; the taps are its diagonals.
    """
    tiles: tl.constexpr = (OW + COLUMNS - 1) // COLUMNS
    whole: tl.constexpr = tiles == 1  # all columns lie in one tile, wherever it begins
    u, part, c = tl.program_id(0) % KH, tl.program_id(0) // KH, tl.program_id(1)
    b, a = tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    start: tl.constexpr = 0 if whole and DEPTH >= W else -LEFT
    pairs = tl.zeros((COLUMNS, DEPTH), tl.float32)
    for turn in range(share * tiles):
        line = (part * share + turn // tiles) * LINES + tl.arange(0, LINES)
        shift = (turn % tiles) * COLUMNS
        n, i = (line // OH).to(tl.int64), line % OH
        row = i * SH + u * DH - TOP
        j, column = shift + b, shift * SW + start + a
        grads = tl.load(
            g + (n * image_of_g + c * plane_of_g + i * OW)[None, :] + j[:, None],
            mask=(line < lines)[None, :] & (j < OW)[:, None],
            other=0.0,
        )
        there = (line < lines) & (row >= 0) & (row < H)
        values = tl.load(
            x + (n * image + c * plane + row * W)[:, None] + column[None, :],
            mask=there[:, None] & ((column >= 0) & (column < W))[None, :],
            other=0.0,
        )
        pairs = tl.dot(grads, values, pairs, input_precision=PRECISION)
    far = start + a[None, :] - b[:, None] * SW + LEFT
    for v in range(KW):
        tap = tl.sum(tl.sum(tl.where(far == v * DW, pairs, 0.0), 1), 0)
        tl.store(out + ((part * C + c) * KH + u) * KW + v, tap)


@triton.jit
def _strips(
    x,
    source,
    across,
    upright,
    bias,
    y,
    images,
    image,
    plane,
    active,
    C,
    H: tl.constexpr,
    W: tl.constexpr,
    THIN: tl.constexpr,
    LONG: tl.constexpr,
    BEFORE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EACH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Both strips of a plane and the bias, or the plane as it is where it rests."""
    o = tl.program_id(1)
    first = tl.program_id(0) * EACH
    c = tl.load(source + o)
    i, j = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (i < H)[:, None] & (j < W)[None, :]
    for n in range(first, tl.minimum(first + EACH, images)):
        here = x + tl.cast(n, tl.int64) * image + c * plane
        target = y + (tl.cast(n, tl.int64) * C + o) * (H * W) + i[:, None] * W + j[None, :]
        if o >= active:
            tl.store(target, tl.load(here + i[:, None] * W + j[None, :], mask=inside), mask=inside)
        else:
            sums = tl.zeros((ROWS, COLUMNS), tl.float32) + tl.load(bias + o).to(tl.float32)
            far = j[:, None] - j[None, :] + BEFORE
            near = (far >= 0) & (far < LONG)
            for u in range(THIN):
                row = i + u - THIN // 2
                rows = (row >= 0) & (row < H)
                values = tl.load(
                    here + row[:, None] * W + j[None, :],
                    mask=rows[:, None] & (j < W)[None, :],
                    other=0.0,
                )
                taps = across + (o * THIN + u) * LONG + far
                band = tl.load(taps, mask=near, other=0.0)
                sums = tl.dot(values, band, sums, input_precision=PRECISION)
            far = i[None, :] - i[:, None] + BEFORE
            near = (far >= 0) & (far < LONG)
            for v in range(THIN):
                column = j + v - THIN // 2
                columns = (column >= 0) & (column < W)
                values = tl.load(
                    here + i[:, None] * W + column[None, :],
                    mask=(i < H)[:, None] & columns[None, :],
                    other=0.0,
                )
                taps = upright + (o * LONG + far) * THIN + v
                band = tl.load(taps, mask=near, other=0.0)
                sums = tl.dot(band, values, sums, input_precision=PRECISION)
            tl.store(target, sums.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _circular(
    x,
    w,
    table,
    y,
    images,
    image,
    plane,
    split,
    C,
    length,
    H: tl.constexpr,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EACH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The circular correlation of a plane with its kernel, and the bias of each position."""
    c = tl.program_id(1)
    first = tl.program_id(0) * EACH
    i, j = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (i < H)[:, None] & (j < W)[None, :]
    for n in range(first, tl.minimum(first + EACH, images)):
        here = x + tl.cast(n, tl.int64) * image + c * plane + i[:, None] * W + j[None, :]
        values = tl.load(here, mask=inside, other=0.0)
        if c < split:
            turn = (i[None, :] - i[:, None] + H) % H
            whole = (i < H)[:, None] & (i < H)[None, :]
            matrix = tl.load(w + c * length + turn, mask=whole, other=0.0)
            offset = tl.load(table + c * length + i, mask=i < H, other=0.0).to(tl.float32)
            sums = tl.zeros((ROWS, COLUMNS), tl.float32) + offset[:, None]
            sums = tl.dot(matrix, values, sums, input_precision=PRECISION)
        else:
            turn = (j[:, None] - j[None, :] + W) % W
            whole = (j < W)[:, None] & (j < W)[None, :]
            matrix = tl.load(w + c * length + turn, mask=whole, other=0.0)
            offset = tl.load(table + c * length + j, mask=j < W, other=0.0).to(tl.float32)
            sums = tl.zeros((ROWS, COLUMNS), tl.float32) + offset[None, :]
            sums = tl.dot(values, matrix, sums, input_precision=PRECISION)
        target = y + (tl.cast(n, tl.int64) * C + c) * (H * W) + i[:, None] * W + j[None, :]
        tl.store(target, sums.to(y.dtype.element_ty), mask=inside)


def _power(size: int) -> int:
    """Return the least power of two from `size` on; 16 at least, as a product has."""
    return 1 << max(4, (size - 1).bit_length())


def _precision(x: Tensor) -> str:
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Let the device of a map be the one that kernels are started on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _laid(x: Tensor) -> Tensor:
    """Return a map whose planes lie row behind row."""
    return x if x.stride()[2:] == (x.shape[3], 1) else x.contiguous()


def _shape(x: Tensor, out: Pair, kernel: Tensor, g: Geometry) -> dict[str, int]:
    return {
        "H": x.shape[2],
        "W": x.shape[3],
        "OH": out[0],
        "OW": out[1],
        "KH": kernel.shape[2],
        "KW": kernel.shape[3],
        "SH": g.stride[0],
        "SW": g.stride[1],
        "DH": g.dilation[0],
        "DW": g.dilation[1],
        "TOP": g.padding[0],
        "LEFT": g.padding[2],
    }


def _out_size(x: Tensor, kernel: Tensor, g: Geometry) -> Pair:
    top, bottom, left, right = g.padding
    height = x.shape[2] + top + bottom - g.dilation[0] * (kernel.shape[2] - 1)
    width = x.shape[3] + left + right - g.dilation[1] * (kernel.shape[3] - 1)
    return (height - 1) // g.stride[0] + 1, (width - 1) // g.stride[1] + 1


def correlate(x: Tensor, kernel: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """Return the depthwise correlation of a map (N, C, H, W) with kernels (C, 1, Kh, Kw).

    Args:
        x: the map.
        kernel: contiguous, of the map's dtype.
        bias: (C), or None.
        g: how the kernel is laid; any padding, stride and dilation.
    """
    x, out = _laid(x), _out_size(x, kernel, g)
    y = x.new_empty(len(x), x.shape[1], *out)
    how, lines = _tiling(x, out, kernel, g), len(x) * out[0]
    tiles = -(-lines // how["LINES"]) * -(-out[1] // how["COLUMNS"])
    with _on_device(x):
        _correlate[tiles, x.shape[1]](
            x,
            kernel,
            x if bias is None else bias,
            y,
            lines,
            x.stride(0),
            x.stride(1),
            x.shape[1],
            **_shape(x, out, kernel, g),
            BIASED=bias is not None,
            PRECISION=_precision(x),
            **how,
        )
    return y


def _tiling(x: Tensor, out: Pair, kernel: Tensor, g: Geometry) -> dict[str, int]:
    """Return how a correlation is cut into programs: what was the fastest on an H100."""
    half, few = x.dtype != torch.float32, len(x) * out[0] < FEW
    columns, depth = min(_power(out[1]), 64), min(_power(x.shape[3]), 64)
    if few:
        lines, columns = 32, 16 if half else columns
    elif half:
        lines, depth = 64 if columns == 16 else 128, max(16, depth // 2)
    else:
        lines, depth = 128, 16
        columns = 16 if columns == 64 and kernel.shape[3] < 16 else columns
    span = (columns - 1) * g.stride[1] + g.dilation[1] * (kernel.shape[3] - 1) + 16
    return {
        "LINES": lines,
        "COLUMNS": columns,
        "DEPTH": depth,
        "CHUNKS": -(-min(span, x.shape[3]) // depth),
        "num_warps": 4,
        "num_stages": 2 if few else 3,
    }


def kernel_gradient(x: Tensor, kernel: Tensor, grad: Tensor, g: Geometry) -> Tensor:
    """Return the gradient of a depthwise kernel (C, 1, Kh, Kw), in one pass over the map.

    Args:
        x: the map (N, C, H, W).
        kernel: the kernel, of which the shape and dtype count.
        grad: of the value, (N, C, H', W').
        g: how the kernel is laid.
    """
    x, grad, out = _laid(x), _laid(grad), (grad.shape[2], grad.shape[3])
    channels, _, height, width = kernel.shape
    how, lines = _gradient_tiling(x, out, kernel, g), len(x) * out[0]
    blocks = -(-lines // how["LINES"])
    share = -(-blocks // max(1, PROGRAMS // (channels * height)))
    parts = -(-blocks // share)
    sums = torch.empty(parts, channels, height, width, dtype=torch.float32, device=x.device)
    with _on_device(x):
        _kernel_gradient[parts * height, channels](
            x,
            grad,
            sums,
            lines,
            share,
            x.stride(0),
            x.stride(1),
            grad.stride(0),
            grad.stride(1),
            channels,
            **_shape(x, out, kernel, g),
            PRECISION=_precision(x),
            **how,
        )
    return sums.sum(0).to(kernel.dtype).view(kernel.shape)


def _gradient_tiling(x: Tensor, out: Pair, kernel: Tensor, g: Geometry) -> dict[str, int]:
    """Return how the gradient of a kernel is cut into programs: the fastest on an H100."""
    columns = min(_power(out[1]), 64)
    span = (columns - 1) * g.stride[1] + g.dilation[1] * (kernel.shape[3] - 1) + 1
    whole = out[1] <= columns and x.shape[3] <= span
    return {
        "LINES": 64,
        "COLUMNS": columns,
        "DEPTH": _power(x.shape[3] if whole else span),
        "num_warps": 4,
        "num_stages": 2 if x.dtype == torch.float32 and columns == 64 else 3,
    }


def strips(
    x: Tensor, source: Tensor, across: Tensor, upright: Tensor, bias: Tensor, before: int
) -> Tensor:
    """Return both strips of the first channels that `source` names, and the others as they are.

    Args:
        x: the map (N, C, H, W), of at most WHOLE rows and columns.
        source: which channel of x each channel of the value reads, int64, (C).
        across: horizontal strips (C', 1, n, L), contiguous.
        upright: vertical strips (C', 1, L, n), contiguous.
        bias: (C').
        before: taps of a strip in front of the output pixel.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    x, (images, channels, height, width), how = _laid(x), x.shape, _sharing(x)
    with _on_device(x):
        _strips[-(-images // how["EACH"]), channels](
            x,
            source,
            across,
            upright,
            bias,
            y,
            images,
            x.stride(0),
            x.stride(1),
            len(across),
            channels,
            H=height,
            W=width,
            THIN=across.shape[2],
            LONG=across.shape[3],
            BEFORE=before,
            ROWS=_power(height),
            COLUMNS=_power(width),
            PRECISION=_precision(x),
            **how,
        )
    return y


def circular(x: Tensor, weight: Tensor, table: Tensor, split: int) -> Tensor:
    """Return circular correlations of planes, as `bench.operators.jit.circular` writes them.

    Those of the first `split` channels run along the height, the others along the width.

    Args:
        x: the map (N, C, H, W), of at most WHOLE rows and columns.
        weight: (C, L), the first H or W of a row are read.
        table: (C, L) likewise: what is added at each position.
        split: how many channels run along the height.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    x, (images, channels, height, width), how = _laid(x), x.shape, _sharing(x)
    with _on_device(x):
        _circular[-(-images // how["EACH"]), channels](
            x,
            weight,
            table,
            y,
            images,
            x.stride(0),
            x.stride(1),
            split,
            channels,
            weight.shape[1],
            H=height,
            W=width,
            ROWS=_power(height),
            COLUMNS=_power(width),
            PRECISION=_precision(x),
            **how,
        )
    return y


def _sharing(x: Tensor) -> dict[str, int]:
    """Return how whole planes are shared out among programs."""
    each = max(1, min(4, len(x) * x.shape[1] // 2048))
    return {"EACH": each, "num_warps": 4, "num_stages": 2}
