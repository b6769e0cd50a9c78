"""Intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.intervals import LEVEL, t_interval
from bench.record import Interval, Metric
from bench.statistics.blocks import Bounds


def bounds_of(metric: Metric | None) -> Bounds:
    """Return the range of a metric.

    Example:
        >>> bounds_of(Metric(value=0.5, unit="fraction", higher_is_better=True))
        (0.0, 1.0)
    """
    if metric is not None and metric.unit == "fraction":
        return 0.0, 1.0
    return float("-inf"), float("inf")


def mean_interval(
    values: Sequence[float], what: str = "seeds", bounds: Bounds = (float("-inf"), float("inf"))
) -> Interval | None:
    """Mean of the values with Student's t interval, cut at bounds; None for fewer than two values.

    Example:
        >>> interval = mean_interval([0.70, 0.72, 0.74])
        >>> round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)
        (0.72, 0.6703, 0.7697)
    """
    found = t_interval(values)
    if found is None:
        return None
    mean, low, high = found
    low, high = max(low, bounds[0]), min(high, bounds[1])
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
