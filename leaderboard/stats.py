"""Statistics of a board: intervals over seeds, paired differences, ranks with ties.

The arms of a board are run with the same seeds, so a board is a randomised block design: the score
of arm a with seed s is y[a, s] = μ[a] + β[s] + ε[a, s]. Two or three seeds alone cannot separate
two arms; the residual ε of the whole board can, and its standard deviation is taken to be the same
for every arm. Where arms lack seeds, μ is the least-squares estimate, which takes the seeds out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from bench.intervals import LEVEL, t_interval
from bench.record import Interval

POWER = 0.8

Scores = Mapping[str, Mapping[int, float]]
"""Row → seed → score."""


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


@dataclass(frozen=True)
class Difference:
    """Difference of two arms in the block design; without residual degrees of freedom no interval.

    `p` is that of the two-sided t-test that the difference is zero, before any adjustment.
    """

    value: float
    interval: Interval | None
    p: float | None


class Blocks:
    """Least-squares fit of y[a, s] = μ[a] + β[s] + ε[a, s].

    Example:
        >>> fit = Blocks({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 3.2}, "c": {0: 0.0, 1: 0.9}})
        >>> fit.freedom, round(fit.sd, 4), round(fit.difference("b", "a").value, 4)
        (2, 0.108, 1.1)
    """

    def __init__(self, scores: Scores) -> None:
        self.arms = sorted(arm for arm, by_seed in scores.items() if by_seed)
        seeds = sorted({seed for arm in self.arms for seed in scores[arm]})
        cells = [(arm, seed) for arm in self.arms for seed in sorted(scores[arm])]
        y = np.array([scores[arm][seed] for arm, seed in cells], dtype=np.float64)
        x = np.zeros((len(cells), len(self.arms) + len(seeds)))
        for row, (arm, seed) in enumerate(cells):
            x[row, self.arms.index(arm)] = 1
            x[row, len(self.arms) + seeds.index(seed)] = 1
        self._inverse: NDArray[np.floating] = np.linalg.pinv(x.T @ x, hermitian=True)
        self._estimable: NDArray[np.floating] = self._inverse @ x.T @ x
        self._coefficients: NDArray[np.floating] = self._inverse @ x.T @ y
        self.freedom = len(cells) - int(np.linalg.matrix_rank(x)) if cells else 0
        self.fewest_seeds = min((len(scores[arm]) for arm in self.arms), default=0)
        residual = y - x @ self._coefficients
        self.sd: float | None = None
        if self.freedom > 0:
            sd = float(np.sqrt(residual @ residual / self.freedom))
            # rounding leaves a residual of some 1e-16 where there is none
            self.sd = sd if sd > 1e-12 * max(1.0, float(np.abs(y).max())) else 0.0

    def difference(self, of: str, to: str) -> Difference | None:
        """Row `of` minus arm `to`; None where no chain of shared seeds links the two."""
        if of not in self.arms or to not in self.arms or of == to:
            return None
        contrast = np.zeros(len(self._coefficients))
        contrast[self.arms.index(of)], contrast[self.arms.index(to)] = 1, -1
        if not np.allclose(contrast @ self._estimable, contrast, atol=1e-8):
            return None
        value = float(contrast @ self._coefficients)
        if self.sd is None:
            return Difference(value, None, None)
        error = self.sd * float(np.sqrt(contrast @ self._inverse @ contrast))
        half = float(stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * error
        method = f"t, paired by seed, residual of the board with {self.freedom} degrees of freedom"
        interval = Interval(
            value=value, low=value - half, high=value + half, level=LEVEL, method=method
        )
        if error == 0:
            return Difference(value, interval, 1.0 if abs(value) < 1e-12 else 0.0)
        return Difference(value, interval, float(2 * stats.t.sf(abs(value) / error, self.freedom)))

    def detectable(self) -> float | None:
        """Difference found with 80 % power at the 5 % level between the arms of fewest seeds.

        It solves P(t' > t₀.₉₇₅) = 0.8 for the non-centrality of t', times s·√(2/n); that the test
        finds a difference of the wrong sign is next to impossible and left out.
        """
        if self.sd is None:
            return None
        critical = float(stats.t.ppf((1 + LEVEL) / 2, self.freedom))

        def excess(shift: float) -> float:
            return float(stats.nct.sf(critical, self.freedom, shift)) - POWER

        shift = float(optimize.brentq(excess, 0.0, 3 * critical + 3))
        return shift * self.sd * float(np.sqrt(2 / self.fewest_seeds))


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


@dataclass(frozen=True)
class Rank:
    """Place of an arm: the tie group's first place, and the places that the tests leave open."""

    place: int
    tied: bool
    best: int
    worst: int


def ranks(scores: Scores, means: Mapping[str, float], higher_is_better: bool) -> dict[str, Rank]:
    """Rank arms with ties, by t-tests of all pairs (Holm-adjusted) in the block design.

    In the order of their means, an arm opens a new group when it differs significantly from the
    first of the group before it. `best` is 1 + the number of arms significantly better, `worst`
    the number of arms − the number significantly worse. A pair that cannot be tested is no
    evidence of a difference.

    Example:
        >>> scores = {
        ...     "a": {0: 0.80, 1: 0.82}, "b": {0: 0.79, 1: 0.82}, "c": {0: 0.60, 1: 0.63},
        ... }
        >>> found = ranks(scores, {"a": 0.81, "b": 0.805, "c": 0.615}, higher_is_better=True)
        >>> {arm: (rank.place, rank.tied) for arm, rank in found.items()}
        {'a': (1, True), 'b': (1, True), 'c': (3, False)}
    """
    fit = Blocks(scores)
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(fit.arms, key=lambda arm: (sign * means[arm], arm))
    tested: dict[tuple[str, str], float] = {}
    for better, worse in combinations(order, 2):
        found = fit.difference(better, worse)
        if found is not None and found.p is not None:
            tested[better, worse] = found.p
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    apart = {pair for pair, p in adjusted.items() if p < 1 - LEVEL}

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
