"""Decoded samples are kept in memory, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from bench.machine import usable_cores

Decoded = tuple[Tensor, ...]
AT_ONCE = 256
"""Samples that are decoded before it is looked whether there is room for more."""


class Memory:
    """Decodes each sample once, and keeps it while there is room; what is left is decoded anew.

    Args:
        decode: index → tensors of a sample, which nobody changes.
        memory_mb: room in MiB, of this process.

    Example:
        >>> import torch
        >>> calls = []
        >>> memory = Memory(lambda index: (calls.append(index) or torch.zeros(2**18),), 1)
        >>> [memory[i][0].shape[0] for i in (0, 1, 0, 1)], calls
        ([262144, 262144, 262144, 262144], [0, 1, 1])
    """

    def __init__(self, decode: Callable[[int], Decoded], memory_mb: int) -> None:
        self.decode = decode
        self.samples: dict[int, Decoded] = {}
        self.room = memory_mb * 2**20

    def __getitem__(self, index: int) -> Decoded:
        if index in self.samples:
            return self.samples[index]
        sample = self.decode(index)
        self._keep(index, sample)
        return sample

    def fill(self, count: int) -> None:
        """Decode the first so many samples at once, on all cores, while there is room."""
        with ThreadPoolExecutor(usable_cores()) as pool:
            for start in range(0, count if self.room else 0, AT_ONCE):
                indices = range(start, min(start + AT_ONCE, count))
                decoded = zip(indices, pool.map(self.decode, indices), strict=True)
                if not all(self._keep(index, sample) for index, sample in decoded):
                    return

    def _keep(self, index: int, sample: Decoded) -> bool:
        """Keep a sample, if there is room."""
        size = sum(tensor.nbytes for tensor in sample)
        if size > self.room:
            return False
        self.room -= size
        self.samples[index] = sample
        return True
