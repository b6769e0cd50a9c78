"""Kernels for GPUs, written in Triton: forms of operators like any others, chosen by measuring.

What only a GPU runs is here, and counts in the hash of an operator's code on machines that have
one (`bench.run.code`): a kernel that is changed leaves the records of CPUs as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

INSTALLED = find_spec("triton") is not None
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST = 2**31 - 1
"""Numbers of a map: the kernels count them in 32 bits."""
CHANNELS = 65535
"""The most channels: a grid of programs has no more along its second axis."""
WHOLE = 64
"""Rows and columns of the largest map that a program takes whole."""

_interpreted = False


def usable(x: Tensor) -> bool:
    """Whether the kernels take this map: on a GPU, in float32, float16 or bfloat16.

    Example:
        >>> usable(torch.zeros(1, 1, 2, 2))
        False
    """
    return (
        (x.is_cuda or _interpreted)
        and INSTALLED
        and x.dim() == 4
        and x.dtype in DTYPES
        and 0 < x.numel() <= MOST
        and x.shape[1] <= CHANNELS
    )


def takes_whole(x: Tensor) -> bool:
    """Whether the kernels take this map, and a program of theirs a whole plane of it."""
    return usable(x) and max(x.shape[2:]) <= WHOLE


@contextmanager
def interpreted() -> Iterator[None]:
    """Let Triton's interpreter run the kernels, on a CPU, slowly; with TRITON_INTERPRET=1 set.

    The variable must be set before anything imports Triton.
    """
    global _interpreted
    before, _interpreted = _interpreted, True
    try:
        yield
    finally:
        _interpreted = before


def kernels() -> ModuleType:
    """Return the kernels, which Triton is loaded for."""
    from bench.operators.gpu import triton_kernels

    return triton_kernels
