"""The order of the training samples: a function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DistributedSampler

from tasks.seeds import numpy_generator

Draw = tuple[int, int]
"""(epoch, index): what a training sample and its augmentation are a function of."""


class EpochSampler(DistributedSampler[Any]):
    """Yield every index once per epoch, in an order that only seed and epoch decide.

    Yields pairs (epoch, index), so that the data set can derive the augmentation from them in
    whatever worker it runs. Lightning calls `set_epoch`. With several processes each takes every
    `world_size`-th sample; the last ones are left out where they do not divide.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> sampler.set_epoch(3)
        >>> first = list(sampler)
        >>> first == list(sampler), sorted(first)
        (True, [(3, 0), (3, 1), (3, 2), (3, 3)])
    """

    def __init__(self, length: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        # Lightning leaves a DistributedSampler as it is, and tells it the epoch.
        positions: Any = range(length)
        self.length = length
        super().__init__(positions, world_size, rank, shuffle=True, seed=seed, drop_last=True)

    def __iter__(self) -> Iterator[Draw]:
        """Return the pairs (epoch, index) of this process."""
        order = numpy_generator("order", self.seed, self.epoch).permutation(self.length)
        own = order[self.rank :: self.num_replicas][: len(self)]
        return ((self.epoch, int(index)) for index in own)
