"""Decoded samples are kept in memory, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Decoded = tuple[Tensor, ...]


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
        size = sum(tensor.nbytes for tensor in sample)
        if size <= self.room:
            self.room -= size
            self.samples[index] = sample
        return sample
