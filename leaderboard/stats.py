"""Intervals over seeds, and Holm's adjustment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.intervals import LEVEL, t_interval
from bench.record import Interval, Metric

Scores = Mapping[str, Mapping[int, float]]
"""Arm → seed → score."""
Bounds = tuple[float, float]
"""Smallest and largest value that a metric can have."""


def bounds_of(metric: Metric | None) -> Bounds:
    """Return the range of a metric.

    Example:
        >>> bounds_of(Metric(value=0.5, unit="fraction", higher_is_better=True))
        (0.0, 1.0)
    """
    if metric is not None and metric.unit == "fraction":
        return 0.0, 1.0
    return float("-inf"), float("inf")


def mean_interval(values: Sequence[float], what: str = "seeds") -> Interval | None:
    """Mean of the values with Student's t interval; None for fewer than two values.

    Example:
        >>> interval = mean_interval([0.70, 0.72, 0.74])
        >>> round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)
        (0.72, 0.6703, 0.7697)
    """
    found = t_interval(values)
    if found is None:
        return None
    mean, low, high = found
    method = f"t over {len(values)} {what}"
    return Interval(value=mean, low=low, high=high, level=LEVEL, method=method)


def paired_interval(of: Mapping[int, float], to: Mapping[int, float]) -> Interval | None:
    """Mean difference over the seeds that two arms share, by these two arms alone.

    Example:
        >>> difference = paired_interval({0: 0.80, 1: 0.84}, {0: 0.79, 1: 0.81, 2: 0.80})
        >>> round(difference.value, 4), difference.method
        (0.02, 't over 2 paired seeds')
    """
    return mean_interval([of[seed] - to[seed] for seed in sorted(of.keys() & to)], "paired seeds")


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the family-wise error stays below the level.

    Example:
        >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    running = 0.0
    for step, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - step) * p[index]))
        adjusted[index] = running
    return adjusted
