"""The order of the training samples: a function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from tasks.seeds import numpy_generator

Draw = tuple[int, int]
"""(epoch, index): what a training sample and its augmentation are a function of."""


class EpochSampler(Sampler[Draw]):
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
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        order = numpy_generator("order", self.seed, self.epoch).permutation(self.length)
        own = order[self.rank :: self.world_size][: len(self)]
        return ((self.epoch, int(index)) for index in own)
