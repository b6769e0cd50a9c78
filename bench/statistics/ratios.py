"""Ratios of times: one per process of a speed run, and what they say of an arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from bench.intervals import LEVEL, t_interval

MARGIN = 0.01
"""Times within ±1 % count as the same."""

Samples = Sequence[Sequence[float]]
"""Times as [process][round]; those of one round are paired, as the arms took turns within it."""
Verdict = Literal["faster", "slower", "same", "unclear"]


def log_ratios(arm: Samples, baseline: Samples) -> list[float]:
    """Return, for each process, the median over its rounds of log(time / baseline's time).

    Example:
        >>> [round(math.exp(r), 6) for r in log_ratios([[2.0, 4.0, 6.0]], [[1.0, 2.0, 2.0]])]
        [2.0]
    """
    counts = [len(rounds) for rounds in arm]
    if len(set(counts)) == 1 and counts == [len(rounds) for rounds in baseline]:  # all at once
        logs: list[float] = np.median(np.log(arm) - np.log(baseline), axis=1).tolist()
        return logs
    return [
        float(np.median(np.log(np.asarray(a)) - np.log(np.asarray(b))))
        for a, b in zip(arm, baseline, strict=True)
    ]


def verdict(
    ratios: Sequence[float], margin: float = MARGIN, level: float = 1 - LEVEL
) -> Verdict | None:
    """Judge an arm by its log-ratios, one per process; None with fewer than two of them.

    `same`: two one-sided t-tests at `level` both reject a difference of ±1 % (at 5 %: the 90 %
    interval lies within the margins), even where the difference is significant. Otherwise `faster`
    or `slower` where the two-sided interval lies on one side of 1, and `unclear` where it does not.

    Example:
        >>> verdict([-0.51, -0.50, -0.49]), verdict([0.001, -0.001, 0.0]), verdict([-0.3, 0.3])
        ('faster', 'same', 'unclear')
    """
    wide, narrow = t_interval(ratios, 1 - level), t_interval(ratios, 1 - 2 * level)
    if wide is None or narrow is None:
        return None
    if math.log1p(-margin) < narrow[1] and narrow[2] < math.log1p(margin):
        return "same"
    if wide[2] < 0:
        return "faster"
    return "slower" if wide[1] > 0 else "unclear"
