"""The random tables of Shiftwise: which channels rest, and where each small kernel goes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OFFICIAL_SEED = 123


class ShiftTables(NamedTuple):
    """What Shiftwise draws once, in construction, and keeps in its state_dict.

    Attributes:
        ghosts: the G channels that pass through unchanged, sorted, (G).
        horizontal: per edge and channel, the small kernel that each block of the horizontal strip
            takes, a permutation of 0 … nk − 1, (R, C − G, nk).
        vertical: likewise for the vertical strip.
        centre: per edge and channel, the small kernel added to the N × N one, (R, C − G).
    """

    ghosts: Tensor
    horizontal: Tensor
    vertical: Tensor
    centre: Tensor


def convolved_channels(channels: int, ghost_ratio: float) -> int:
    """Return how many channels are convolved, an even number: ⌊C·(1 − g)⌋ // 2 · 2.

    Example:
        >>> convolved_channels(12, 0.23), convolved_channels(80, 0.23)
        (8, 60)
    """
    return int(channels * (1 - ghost_ratio)) // 2 * 2


def choose(population: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` of `population` without replacement, as numpy's RandomState.choice does.

    torch's CPU generator and numpy's RandomState are the same Mersenne Twister with the same
    seeding, and numpy shuffles by Fisher and Yates' method from the end, each partner a masked
    32-bit draw that is repeated when too large. A private generator seeded alike therefore gives
    numpy's very channels, without numpy.
    """
    order = list(range(population))
    for last in range(population - 1, 0, -1):
        partner = last + 1
        while partner > last:
            partner = int(torch.randint(1 << last.bit_length(), (), generator=generator))
        order[last], order[partner] = order[partner], order[last]
    return torch.tensor(order[:count], dtype=torch.int64)


def draw(
    channels: int, ghost_ratio: float, blocks: int, edges: int, seed: int = OFFICIAL_SEED
) -> ShiftTables:
    """Draw the tables from private generators; seed 123 gives those of the public networks.

    The public code draws the ghosts from numpy's generator and the rest from torch's, both seeded
    alike: first the permutations of the horizontal direction, edge after edge and within it
    channel after channel, then those of the vertical direction, then the centre's picks.

    Args:
        channels: C.
        ghost_ratio: share of the channels that rest.
        blocks: nk, the number of small kernels in a strip.
        edges: R, how many permutations are added up per direction.
        seed: of the generators; the global ones are not touched.

    Example:
        >>> tables = draw(channels=12, ghost_ratio=0.23, blocks=5, edges=4)
        >>> tables.ghosts.tolist(), tables.centre[:, 0].tolist()
        ([0, 4, 5, 9], [0, 0, 0, 2])
    """
    convolved = convolved_channels(channels, ghost_ratio)
    ghosts = choose(channels, channels - convolved, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    directions = [
        torch.stack([torch.randperm(blocks, generator=generator) for _ in range(edges * convolved)])
        for _ in range(2)
    ]
    centre = torch.randint(blocks, (edges, convolved), generator=generator)
    horizontal, vertical = (d.view(edges, convolved, blocks) for d in directions)
    return ShiftTables(ghosts.sort().values, horizontal, vertical, centre)
