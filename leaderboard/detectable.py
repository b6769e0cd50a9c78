"""The least difference of two arms that a board can show, and how many seeds would show less."""

from __future__ import annotations

import math

from bench.statistics.blocks import Blocks
from bench.statistics.ranks import FAMILY
from leaderboard.show import Show
from leaderboard.wording import counted

MOST_SEEDS = 100


def level(arms: int, looks: int) -> float:
    """Return the level of the first of Holm's tests of all pairs: what tells any pair apart."""
    return FAMILY / looks / max(1, arms * (arms - 1) // 2)


def words(blocks: Blocks, arms: int, looks: int, show: Show) -> str:
    """Say what differences a board of so many compared arms can show; empty without a residual.

    E.g. 'A true difference of 5.4 points is found four times out of five with two seeds; about 9
    seeds would find 2 points as often.'
    """
    least = blocks.detectable(level(arms, looks)) if arms > 1 else None
    if not least:
        return ""
    seeds = blocks.fewest_seeds
    text = f"A true difference of {show.amount(least)} is found four times out of five with "
    text += f"{counted(seeds, 'seed')}"
    wanted = _round_below(least / 2)
    needed = _seeds_for(blocks, wanted, level(arms, looks))
    many = f"more than {MOST_SEEDS}" if needed is None else f"about {needed}"
    return f"{text}; {many} seeds would find {show.amount(wanted)} as often."


def _round_below(value: float) -> float:
    """Return the largest of … 0.1, 0.2, 0.5, 1, 2, 5, 10 … that is not above a value.

    Example:
        >>> [_round_below(value) for value in (2.7, 0.0999, 5.0)]
        [2.0, 0.05, 5.0]
    """
    decade = 10.0 ** math.floor(math.log10(value) + 1e-9)
    step = max(step for step in (1, 2, 5) if step * decade <= value * (1 + 1e-9))
    return float(f"{step * decade:.6g}")


def _seeds_for(blocks: Blocks, wanted: float, sure: float) -> int | None:
    """Return how many seeds of every arm would show a difference; None for very many."""

    def enough(seeds: int) -> bool:
        least = blocks.detectable(sure, seeds)
        return least is not None and least <= wanted

    low, high = max(1, blocks.fewest_seeds), MOST_SEEDS
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
