"""How sure a comparison must be at each look, so that looking again and again is no cheating.

A board that is looked at after every round of seeds has many chances to name a wrong winner. The
levels of all looks are therefore lowered together, until among arms that are all equal the one that
counts as the true best is called surely worse by any other arm, at any look, in at most `risk` of
all boards. The share is counted on simulated boards, whose t statistics have all correlations
between arms and between looks; no approximation by normal distributions is needed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

BOARDS = 40_000
"""Simulated boards: they settle a risk of 5 % to ±0.1 % (one standard error)."""
PER_BATCH = 2_000_000
"""Simulated scores at a time."""

Array = NDArray[np.float64]


@cache
def levels(arms: int, seeds: int, risk: float = 0.05, power: float = 1.0) -> tuple[float, ...]:
    """Return the one-sided level of a comparison of two arms at each look.

    Look r comes after r seeds of every arm, from 2 seeds on; its level grows as (r / seeds)^power,
    so that little is spent while little is known.

    Args:
        arms: at the start.
        seeds: at most; there are seeds − 1 looks.
        risk: that a true best arm is called worse than another, over all looks.
        power: 0 spends alike at every look (Pocock), 3 nearly all at the end (O'Brien, Fleming).

    Raises:
        ValueError: fewer than two arms or two seeds.

    Example:
        >>> [round(level, 2) for level in levels(2, 2)]  # one look at one pair
        [0.05]
        >>> early, late = levels(7, 3)
        >>> 0 < early < late < 0.05 / 2
        True
    """
    if arms < 2 or seeds < 2:
        raise ValueError(f"`arms` (={arms}) and `seeds` (={seeds}) must be at least 2.")
    looks = np.arange(2, seeds + 1)
    weight = (looks / seeds) ** power
    draw = np.random.default_rng([arms, seeds])
    least = []
    batch = max(1, PER_BATCH // (arms * seeds))
    for start in range(0, BOARDS, batch):
        y = draw.standard_normal((min(batch, BOARDS - start), arms, seeds))
        least.append((_least_p(y) / weight).min(axis=1))
    common = float(np.quantile(np.concatenate(least), risk))
    return tuple(float(level) for level in common * weight)


def _least_p(y: Array) -> Array:
    """Return, board by board and look by look, the least p that arm 0 is worse than another.

    Args:
        y: scores of whole boards, (boards, arms, seeds).

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
    ahead = (means[:, 1:].max(axis=1) - means[:, 0])[:, 1:]
    p: Array = stdtr(freedom, -ahead / error)
    return p
