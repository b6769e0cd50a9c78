"""The Pareto front of score against time, with the certainty that an arm is on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SURE = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """How surely an arm is on the front.

    Attributes:
        probability: share of the joint draws in which no arm is at least as good in both, and
            better in one.
        low: the same, if every time that is not known spoke against the arm.
        high: the same, if every time that is not known spoke for it.
        word: `front` where `low` is at least 95 %, `no` where `high` is below 5 %, else `maybe`.
    """

    probability: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """front, maybe or no."""
        if self.low >= SURE:
            return "front"
        return "no" if self.high < 1 - SURE else "maybe"


def fronts(
    scores: Mapping[str, Array], log_times: Mapping[str, Array], unknown: Collection[str] = ()
) -> dict[str, Front]:
    """Return how surely each arm is on the front.

    Args:
        scores: arm → draws of its score, the higher the better.
        log_times: the same arms → draws of their time, the lower the better.
        unknown: arms whose times cannot be believed: they may be anything.

    Example:
        >>> scores = {"a": np.array([0.9, 0.9]), "b": np.array([0.8, 0.95])}
        >>> times = {"a": np.array([0.0, 0.0]), "b": np.array([0.1, 0.1])}
        >>> {arm: (front.probability, front.word) for arm, front in fronts(scores, times).items()}
        {'a': (1.0, 'front'), 'b': (0.5, 'maybe')}
        >>> fronts(scores, times, unknown=["b"])["a"]
        Front(probability=1.0, low=0.5, high=1.0)
    """
    arms = list(scores)
    y = np.stack([scores[arm] for arm in arms]) if arms else np.empty((0, 0))
    t = np.stack([log_times[arm] for arm in arms]) if arms else np.empty((0, 0))
    open_ = np.array([[arm in unknown] for arm in arms], dtype=bool)
    found = {}
    for i, arm in enumerate(arms):
        shares = [_share(y, t, i)] * 3
        if open_.any():
            shares[1:] = [_share(y, _extreme(t, open_, i, sign), i) for sign in (1, -1)]
        found[arm] = Front(*(round(share, 3) for share in shares))
    return found


def _extreme(t: Array, unknown: NDArray[np.bool_], i: int, sign: int) -> Array:
    """Return the worst (1) or the best (-1) that unknown times can do to arm i."""
    times = np.where(unknown, -sign * np.inf, t)
    if unknown[i]:
        times[i] = sign * np.inf
    return times


def _share(y: Array, t: Array, i: int) -> float:
    """Return the share of draws in which no other arm dominates arm i; arrays are (arms, draws)."""
    as_good = (y >= y[i]) & (t <= t[i])
    better = (y > y[i]) | (t < t[i])
    return float(1 - (as_good & better).any(axis=0).mean())
