"""Kernels that numba compiles on the spot, where it is installed (`convboard[fast]`).

They are for sums that no library has a call for; on a CPU, in float32, without gradients. The
innermost loops run along memory, so that they become vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

INSTALLED = find_spec("numba") is not None
FAST = {"contract", "reassoc", "nsz"}
"""What a compiled sum may do to its order."""

_kernels: list[Any] = []


def usable(x: Tensor) -> bool:
    """Whether numba is there, and the kernels take this map."""
    return INSTALLED and x.is_cpu and x.dtype == torch.float32


def preload() -> None:
    """Load numba and the kernels, where it is installed: that takes longer than many a call.

    Nothing runs in parallel here, so that a process may be forked afterwards.
    """
    if INSTALLED:
        one, ones = torch.ones(1, 1, 1, 1), torch.ones(1, 1)
        places, channels = (
            torch.zeros(1, 1, 3, dtype=torch.int32),
            torch.zeros(1, dtype=torch.int32),
        )
        for name, arguments in (
            ("sum_taps", (one, 0, places, ones, channels, one.clone())),
            ("circular", (one, ones, ones, 1, one.clone())),
        ):
            _compiled(name, False)(*_arrays(arguments))


def sum_taps(
    z: Tensor, first: int, places: Tensor, weight: Tensor, channels: Tensor, out: Tensor
) -> None:
    """Add maps up, each moved and weighted, a band of their rows at a time.

    out[n, channels[o], i, j] = Σ_t weight[o, t] · map[n, r, i + dy, j + dx] with (r, dy, dx) of
    places[o, t]; what lies outside of a map is zero. The band that holds row 0 starts the sums,
    every other one adds to them.

    Args:
        z: rows of the maps from `first` on, (R, N, h, W), float32, contiguous.
        first: of the rows 0…H − 1.
        places: int32, (O, T, 3).
        weight: (O, T).
        channels: which channels of `out` are written, int32, (O).
        out: (N, C, H, W), contiguous.

    Example:
        >>> z, out = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.zeros(1, 1, 1, 3)
        >>> places = torch.tensor([[[0, 0, 0], [0, 0, 1]]], dtype=torch.int32)
        >>> if usable(z):
        ...     sum_taps(z, 0, places, torch.ones(1, 2), torch.zeros(1, dtype=torch.int32), out)
        ...     assert out.flatten().tolist() == [3.0, 5.0, 3.0]
    """
    run(partial(_compiled, "sum_taps"), z, first, places, weight, channels, out)


def circular(x: Tensor, weight: Tensor, table: Tensor, split: int, out: Tensor) -> None:
    """Correlate the first `split` channels circularly along the height, the others on the width.

    out[n, c, i, j] = table[c, i] + Σ_k weight[c, k] · x[n, c, (i + k) mod H, j], along the height.

    Args:
        x: (N, C, H, W), float32, contiguous.
        weight: (C, L), the first H or W of a row are read.
        table: (C, L) likewise: what is added at each position.
        split: how many channels run along the height.
        out: (N, C, H, W), contiguous, written to.

    Example:
        >>> x, weight = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[0.0, 1.0, 0.0]])
        >>> out = torch.zeros_like(x)
        >>> if usable(x):
        ...     circular(x, weight, torch.zeros(1, 3), 0, out)
        ...     assert out.flatten().tolist() == [2.0, 3.0, 1.0]
    """
    run(partial(_compiled, "circular"), x, weight, table, split, out)


def compiled(function: Any, parallel: bool) -> Any:
    """Return a function as a kernel, which numba compiles as it is called, and keeps on disk.

    On disk numba tells kernels apart by name, code and types, and not by whether threads share
    the work: the first that was compiled would be taken for both. So each has a name of its own.

    Args:
        function: of Python, with loops over `numba.prange`.
        parallel: whether threads share these.
    """
    import numba

    own = FunctionType(
        function.__code__, function.__globals__, function.__name__, None, function.__closure__
    )
    own.__qualname__ = f"{function.__qualname__}.{'threads' if parallel else 'one_thread'}"
    kernel = numba.njit(parallel=parallel, fastmath=FAST, cache=True)(own)
    _kernels.append(kernel)
    return kernel


def compiled_here() -> int:
    """Return how many kernels this process has compiled itself, and not read from disk."""
    return sum(sum(kernel.stats.cache_misses.values()) for kernel in _kernels)


def run(kernels: Callable[[bool], Any], *arguments: Tensor | float) -> None:
    """Run a kernel on tensors, with as many threads as torch has.

    Args:
        kernels: returns the compiled one, by whether threads share the work.
        arguments: the kernel's.
    """
    wanted = torch.get_num_threads()
    import numba

    threads = min(wanted, numba.config.NUMBA_NUM_THREADS)
    if threads > 1 and numba.get_num_threads() != threads:
        numba.set_num_threads(threads)
    kernels(threads > 1)(*_arrays(arguments))
    if torch.get_num_threads() != wanted:  # as it starts, numba sets OpenMP's threads, torch's too
        torch.set_num_threads(wanted)


def _arrays(arguments: Sequence[Tensor | float]) -> list[Any]:
    return [a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments]


@cache
def _compiled(name: str, parallel: bool) -> Any:
    import numba
    import numpy as np

    def sum_taps(z: Any, first: Any, places: Any, weight: Any, channels: Any, out: Any) -> None:
        images, _, height, width = out.shape
        count, terms, _ = places.shape
        rows = z.shape[2]
        for plane in numba.prange(images * count):
            image, o = plane // count, plane % count
            target = out[image, channels[o]]
            if first == 0:
                target[:] = 0
            for term in range(terms):
                r, dy, dx = places[o, term, 0], places[o, term, 1], places[o, term, 2]
                factor = weight[o, term]
                left, right = max(0, -dx), min(width, width - dx)
                for y in range(max(first, dy), min(first + rows, height + dy)):
                    row, source = target[y - dy], z[r, image, y - first]
                    for x in range(left, right):
                        row[x] += factor * source[x + dx]

    def circular(x: Any, weight: Any, table: Any, split: int, out: Any) -> None:
        images, channels, height, width = x.shape
        size, twice = height * width, 2 * width
        planes, parts = images * channels, 16
        for part in numba.prange(parts):
            # Lines that lie behind each other twice: a turn becomes a step in memory.
            flat = np.empty(2 * size, np.float32)
            sums = np.empty(2 * size, np.float32)
            for plane in range(part * planes // parts, (part + 1) * planes // parts):
                image, c = plane // channels, plane % channels
                source, target = x[image, c], out[image, c]
                if c < split:
                    for y in range(height):
                        for column in range(width):
                            flat[y * width + column] = source[y, column]
                            flat[size + y * width + column] = source[y, column]
                            sums[y * width + column] = table[c, y]
                    for k in range(height):
                        factor, first = weight[c, k], k * width
                        for place in range(size):
                            sums[place] += factor * flat[first + place]
                    for y in range(height):
                        for column in range(width):
                            target[y, column] = sums[y * width + column]
                else:
                    for y in range(height):
                        for column in range(width):
                            flat[y * twice + column] = source[y, column]
                            flat[y * twice + width + column] = source[y, column]
                            sums[y * twice + column] = table[c, column]
                    for k in range(width):
                        factor = weight[c, k]
                        for place in range(2 * size - width):
                            sums[place] += factor * flat[place + k]
                    for y in range(height):
                        for column in range(width):
                            target[y, column] = sums[y * twice + column]

    return compiled({"sum_taps": sum_taps, "circular": circular}[name], parallel)
