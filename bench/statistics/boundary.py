"""How sure a comparison must be at each look, so that looking again and again is no cheating.

A board that is looked at after every round of seeds has many chances of a wrong word. The levels of
all looks are therefore lowered together, until among arms that are equal one of them is called
surely worse than any of its rivals, at any look, in at most `risk` of all boards. The share is
counted on simulated boards, whose t statistics have all correlations between arms and between
looks; no approximation by normal distributions is needed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

BOARDS = 40_000
"""Simulated boards: they settle a risk of 5 % to ±0.1 % (one standard error)."""
POWER = 1.0
"""How fast levels grow; see `levels`. Chosen by simulation: 0 decides fewer boards, 2 costs more
cells where some arms are poor."""
PER_BATCH = 2_000_000
"""Simulated scores at a time."""

Array = NDArray[np.float64]


@cache
def levels(
    arms: int, seeds: int, risk: float = 0.05, *, rivals: int = 1, power: float = POWER
) -> tuple[float, ...]:
    """Return the one-sided level of a comparison of two arms at each look.

    Look r comes after r seeds of every arm, from 2 seeds on; its level grows as (r / seeds)^power,
    so that little is spent while little is known.

    Args:
        arms: at the start; their residual is pooled.
        seeds: at most; there are seeds − 1 looks.
        risk: that an arm is called worse than one of its equal rivals, over all looks.
        rivals: how many they are.
        power: 0 spends alike at every look (Pocock), 3 nearly all at the end (O'Brien, Fleming).

    Raises:
        ValueError: fewer than two arms or two seeds.

    Example:
        >>> [round(level, 2) for level in levels(2, 2)]  # one look at one pair
        [0.05]
        >>> early, late = levels(7, 3)
        >>> 0 < early < late < 0.05 < early + late
        True
    """
    if arms < 2 or seeds < 2:
        raise ValueError(f"`arms` (={arms}) and `seeds` (={seeds}) must be at least 2.")
    if not 1 <= rivals < arms:
        raise ValueError(f"`rivals` (={rivals}) must be 1 to {arms - 1}.")
    looks = np.arange(2, seeds + 1)
    weight = (looks / seeds) ** power
    draw = np.random.default_rng([arms, seeds])
    least = []
    batch = max(1, PER_BATCH // (arms * seeds))
    for start in range(0, BOARDS, batch):
        y = draw.standard_normal((min(batch, BOARDS - start), arms, seeds))
        least.append((_least_p(y, rivals) / weight).min(axis=1))
    common = float(np.quantile(np.concatenate(least), risk))
    return tuple(float(level) for level in common * weight)


def _least_p(y: Array, rivals: int) -> Array:
    """Return, board by board and look by look, the least p that arm 0 is worse than a rival.

    Args:
        y: scores of whole boards, (boards, arms, seeds).
        rivals: the arms 1 to so many.

    Returns:
        One-sided p of the t-tests with the pooled residual, (boards, seeds − 1).
    """
    arms, seeds = y.shape[1:]
    n = np.arange(1, seeds + 1)
    means = y.cumsum(axis=2) / n
    whole = means.mean(axis=1)
    squares = (y**2).sum(axis=1).cumsum(axis=1)
    by_arm = n * (means**2).sum(axis=1)
    by_seed = arms * (y.mean(axis=1) ** 2).cumsum(axis=1)
    residual = (squares - by_arm - by_seed + arms * n * whole**2)[:, 1:]
    freedom = (arms - 1) * (n[1:] - 1)
    error = np.sqrt(np.maximum(residual, 0) / freedom * 2 / n[1:])
    ahead = (means[:, 1 : 1 + rivals].max(axis=1) - means[:, 0])[:, 1:]
    p: Array = stdtr(freedom, -ahead / error)
    return p
