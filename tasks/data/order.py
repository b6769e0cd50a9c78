"""The order of the samples: a function of the seed and the epoch, shared out among processes.

Of W processes, process r takes what stands at r, r + W, r + 2W, … of the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from torch import distributed
from torch.utils.data import DistributedSampler

from tasks.seeds import numpy_generator

Draw = tuple[int, int]
"""(epoch, index): what a training sample and its augmentation are a function of."""

Row = TypeVar("Row")


class EpochSampler(DistributedSampler[Any]):
    """Yield every index once per epoch, in an order that only seed and epoch decide.

    Yields pairs (epoch, index), so that the data set can derive the augmentation from them in
    whatever worker it runs. Lightning calls `set_epoch`. With several processes the last ones are
    left out where they do not divide.

    Args:
        length: number of samples.
        seed: of the order.
        rank: of this process.
        world_size: number of processes.

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
        share = order[self.rank :: self.num_replicas][: len(self)]
        return ((self.epoch, int(index)) for index in share)


class AspectSampler(EpochSampler):
    """The order of `EpochSampler`, in which every batch in a row is of one kind.

    Of each kind the samples keep their order; what does not fill a batch comes, mixed, at the end.

    Args:
        kinds: of each sample, e.g. whether it is upright.
        batch_size: of the batches that are cut from the order.
        seed: of the order.
        rank: of this process.
        world_size: number of processes.

    Example:
        >>> draws = list(AspectSampler([True, False] * 5, 2, seed=0))
        >>> [len({index % 2 for _, index in draws[i : i + 2]}) for i in range(0, 10, 2)]
        [1, 1, 1, 1, 2]
    """

    def __init__(
        self,
        kinds: Sequence[bool],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(len(kinds), seed=seed, rank=rank, world_size=world_size)
        self.kinds = kinds
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Draw]:
        """Yield the pairs (epoch, index) of this process."""
        waiting: dict[bool, list[Draw]] = {False: [], True: []}
        for draw in super().__iter__():
            group = waiting[self.kinds[draw[1]]]
            group.append(draw)
            if len(group) == self.batch_size:
                yield from group
                group.clear()
        yield from waiting[False] + waiting[True]


def share_of(length: int, rank: int, world_size: int) -> int:
    """Return how many of `length` samples a process takes.

    Example:
        >>> [share_of(7, rank, 3) for rank in range(3)]
        [3, 2, 2]
    """
    return len(range(rank, length, world_size))


def joined(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of all processes in the order of the samples; every process must call it.

    Args:
        rows: one per sample of this process; on the CPU.

    Example:
        >>> joined([1, 2])  # one process
        [1, 2]
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(rows)
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, rows)
    every: list[Any] = [None] * sum(len(part) for part in parts)
    for rank, part in enumerate(parts):
        every[rank :: len(parts)] = list(part)
    return every
