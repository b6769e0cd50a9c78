"""Student's t interval of a mean: one for the seeds of a board and the processes of a speed run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
WIDEST = 100.0
"""An interval of a time, or of a ratio of times, that spans a larger factor tells nothing."""


@cache
def critical(freedom: int, level: float = LEVEL) -> float:
    """Return the two-sided critical value of Student's t at a confidence level.

    Example:
        >>> round(critical(2), 3)
        4.303
    """
    return float(stdtrit(freedom, 0.5 + level / 2))


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float] | None:
    """Mean of independent values and its Student t interval: (mean, low, high).

    mean ± t(n − 1) · s / √n. None with fewer than two values: one value has no spread.

    Example:
        >>> mean, low, high = t_interval([1.0, 2.0, 3.0])
        >>> round(mean, 3), round(low, 3), round(high, 3)
        (2.0, -0.484, 4.484)
        >>> t_interval([1.0]) is None
        True
    """
    n = len(values)
    if n < 2:
        return None
    mean = float(np.mean(values))
    half = critical(n - 1, level) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def bounds(low: float, high: float, digits: int) -> str:
    """Bounds of a time or of a ratio of times, for people: two or three processes may be too few.

    Example:
        >>> bounds(0.912, 1.071, 2), bounds(0.0004, 15266.178, 3)
        ('[0.91, 1.07]', '[unknown]')
    """
    if not 0 < high <= WIDEST * low:
        return "[unknown]"
    return f"[{low:,.{digits}f}, {high:,.{digits}f}]"
