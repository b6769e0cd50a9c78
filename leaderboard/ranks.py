"""Ranks with ties, by t-tests of all pairs in the block design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.intervals import LEVEL
from leaderboard.blocks import Blocks
from leaderboard.stats import holm


@dataclass(frozen=True)
class Rank:
    """Place of an arm: the tie group's first place, and the places that the tests leave open."""

    place: int
    tied: bool
    best: int
    worst: int


def ranks(
    blocks: Blocks, higher_is_better: bool, arms: Sequence[str] | None = None
) -> dict[str, Rank]:
    """Rank linked arms with ties, by t-tests of all pairs (Holm-adjusted) in the block design.

    In the order of their fitted means, an arm opens a new group when it differs significantly from
    the first of the group before it. `best` is 1 + the number of arms significantly better,
    `worst` the number of arms − the number significantly worse. Without degrees of freedom no
    pair can be tested, which is no evidence of a difference.

    Args:
        blocks: the fit of the board.
        higher_is_better: direction of the metric.
        arms: those to rank, linked by shared seeds; None for the largest group of linked arms.

    Example:
        >>> scores = {
        ...     "a": {0: 0.80, 1: 0.82}, "b": {0: 0.79, 1: 0.82}, "c": {0: 0.60, 1: 0.63},
        ... }
        >>> places = ranks(Blocks(scores), higher_is_better=True)
        >>> {arm: (rank.place, rank.tied) for arm, rank in places.items()}
        {'a': (1, True), 'b': (1, True), 'c': (3, False)}
        >>> holes = Blocks({"a": {0: 0.9, 1: 0.5}, "b": {1: 0.6}})
        >>> list(ranks(holes, higher_is_better=True))
        ['b', 'a']
    """
    if arms is None:
        arms = next(iter(blocks.groups()), [])
    sign = -1.0 if higher_is_better else 1.0
    # rounded: the last bits of equal means hang on the machine
    order = sorted(arms, key=lambda arm: (round(sign * blocks.mean(arm), 12), arm))
    pairs = list(combinations(order, 2)) if blocks.sd is not None else []
    adjusted = holm(blocks.p_values(pairs))
    apart = {pair for pair, p in zip(pairs, adjusted, strict=True) if p < 1 - LEVEL}

    groups: list[list[str]] = []
    for arm in order:
        if groups and (groups[-1][0], arm) not in apart:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    result: dict[str, Rank] = {}
    place = 1
    for group in groups:
        for arm in group:
            result[arm] = Rank(
                place=place,
                tied=len(group) > 1,
                best=1 + sum((other, arm) in apart for other in order),
                worst=len(order) - sum((arm, other) in apart for other in order),
            )
        place += len(group)
    return result
