"""From raw samples to numbers with intervals.

Samples lie as [process][round]. Samples of one round are paired, since the arms took turns within
it; processes are the independent repetitions, so intervals are formed across processes only.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy.stats import theilslopes

from bench.statistics.ratios import Samples

#: A sample whose modified z-score (0.6745·|x − median| / MAD) is above this is an outlier
#: (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5
#: noise class → largest (quartile range within a process, standard deviation between processes,
#: absolute drift over the run), as fractions; beyond both it is unstable.
#: What is classed is what is compared: of the baseline its times, of any other arm its ratios.
NOISE = {"stable": (0.03, 0.02, 0.03), "noisy": (0.10, 0.05, 0.10)}

Noise = Literal["stable", "noisy", "unstable"]


def ratios(arm: Samples, baseline: Samples) -> list[list[float]]:
    """Return time / baseline's time of each round; what both have in common is gone.

    Example:
        >>> ratios([[2.0, 4.0, 6.0]], [[1.0, 2.0, 2.0]])
        [[2.0, 2.0, 3.0]]
    """
    return [
        [a / b for a, b in zip(mine, theirs, strict=True)]
        for mine, theirs in zip(arm, baseline, strict=True)
    ]


def log_medians(arm: Samples) -> list[float]:
    """Return, for each process, the log of the median time."""
    return [math.log(float(np.median(samples))) for samples in arm]


def drift_pct(baseline: Samples) -> float | None:
    """Slope of the baseline over the whole run, in per cent of its median from end to end.

    The median of the slopes of all pairs of samples in the order of time (Theil and Sen), so that
    outliers do not make a drift. None with fewer than three samples.

    Example:
        >>> round(drift_pct([[100.0, 101.0, 102.0], [103.0, 104.0]]), 2)
        3.92
    """
    times = np.asarray([t for process in baseline for t in process])
    if times.size < 3:
        return None
    slope = float(theilslopes(times).slope)
    return 100 * slope * (times.size - 1) / float(np.median(times))


def outliers(arm: Samples) -> int:
    """Count the samples that lie far from the median of their process; they stay in.

    Example:
        >>> outliers([[1.0, 1.01, 0.99, 1.02, 0.98, 5.0]])
        1
    """
    count = 0
    for samples in arm:
        distance = np.abs(np.asarray(samples) - np.median(samples))
        mad = max(float(np.median(distance)), 1e-3 * float(np.median(samples)))
        count += int((0.6745 * distance / mad > OUTLIER_Z).sum())
    return count


def noise_class(samples: Samples, drift: float | None = None) -> Noise:
    """Class the noise of samples by NOISE.

    Args:
        samples: the times of the baseline, or the `ratios` of another arm.
        drift: of times, in per cent; ratios have none, as the arms take turns.

    Example:
        >>> noise_class([[1.0, 1.01, 1.0], [1.0, 1.0, 1.01]], drift=0.5)
        'stable'
    """
    quartiles = [np.percentile(process, [25, 50, 75]) for process in samples]
    within = float(np.median([(q[2] - q[0]) / q[1] for q in quartiles]))
    medians = log_medians(samples)
    between = float(np.std(medians, ddof=1)) if len(medians) > 1 else 0.0
    spreads = (within, between, abs(drift or 0.0) / 100)
    if all(value <= limit for value, limit in zip(spreads, NOISE["stable"], strict=True)):
        return "stable"
    if all(value <= limit for value, limit in zip(spreads, NOISE["noisy"], strict=True)):
        return "noisy"
    return "unstable"
