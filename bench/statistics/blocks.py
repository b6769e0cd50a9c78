"""The block design of a board: fitted means of its arms, their intervals, and contrasts.

The arms of a board are run with the same seeds, so a board is a randomised block design: the score
of arm a with seed s is y[a, s] = μ[a] + β[s] + ε[a, s]. Two or three seeds alone cannot separate
two arms; the residual ε of the whole board can, and its standard deviation is taken to be the same
for every arm. Where arms lack seeds, the least-squares estimate takes the seeds out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from bench.intervals import LEVEL, critical
from bench.record import Interval

Scores = Mapping[str, Mapping[int, float]]
"""Arm → seed → score."""
Bounds = tuple[float, float]
"""Smallest and largest value that a metric can have."""
POWER = 0.8
UNBOUNDED: Bounds = (float("-inf"), float("inf"))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Difference of two arms in the block design; without residual degrees of freedom no interval.

    `p` is that of the two-sided t-test that the difference is zero, before any adjustment.
    """

    value: float
    interval: Interval | None
    p: float | None


@dataclass(frozen=True)
class Design:
    """What of a fit hangs on the arms and seeds alone, not on the scores.

    Attributes:
        group: of each arm, which of the groups of arms that shared seeds link, (A,).
        weights: scores → fitted means, (A, N).
        covariance: of the fitted means, in units of the residual's variance, (A, A); between
            groups it means nothing.
        residual: scores → residuals, (N, N).
        freedom: degrees of freedom of the residual.
    """

    group: tuple[int, ...]
    weights: Array
    covariance: Array
    residual: Array
    freedom: int


@lru_cache(maxsize=1024)
def design(cells: tuple[tuple[int, int], ...]) -> Design:
    """Return the design of the cells (arm, seed), arms counted from 0.

    A fitted mean is μ[a] + the mean of β over the seeds of the arm's group, so that an arm that
    lacks a seed is shown as it would be with it.
    """
    arms = 1 + max((arm for arm, _ in cells), default=-1)
    seeds = sorted({seed for _, seed in cells})
    x = np.zeros((len(cells), arms + len(seeds)))
    for row, (arm, seed) in enumerate(cells):
        x[row, arm] = x[row, arms + seeds.index(seed)] = 1
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-10, hermitian=True)
    group, seed_group = _groups(x, arms)
    count = len(set(group))
    means = np.zeros((arms, arms + len(seeds)))
    for arm in range(arms):
        means[arm, arm] = 1
        linked = [arms + s for s, other in enumerate(seed_group) if other == group[arm]]
        means[arm, linked] = 1 / len(linked)
    return Design(
        group=group,
        weights=means @ inverse @ x.T,
        covariance=means @ inverse @ means.T,
        residual=np.eye(len(cells)) - x @ inverse @ x.T,
        freedom=len(cells) - (arms + len(seeds) - count),
    )


def _groups(x: Array, arms: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the group of each arm and of each seed: the parts that no shared seed links."""
    group = list(range(x.shape[1]))
    for row in x:
        arm, seed = np.flatnonzero(row)
        old, new = group[seed], group[arm]
        group = [new if other == old else other for other in group]
    return tuple(group[:arms]), tuple(group[arms:])


class Blocks:
    """Least-squares fit of y[a, s] = μ[a] + β[s] + ε[a, s].

    Example:
        >>> blocks = Blocks({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 3.2}, "c": {0: 0.0, 1: 0.9}})
        >>> blocks.freedom, round(blocks.sd, 4), round(blocks.difference("b", "a").value, 4)
        (2, 0.108, 1.1)
        >>> holes = Blocks({"a": {0: 0.9, 1: 0.5}, "b": {1: 0.6}})
        >>> {arm: round(holes.mean(arm), 4) for arm in holes.arms}
        {'a': 0.7, 'b': 0.8}
    """

    def __init__(self, scores: Scores) -> None:
        self.arms = sorted(arm for arm, by_seed in scores.items() if by_seed)
        self._index = {arm: index for index, arm in enumerate(self.arms)}
        cells = [(arm, seed) for arm in self.arms for seed in sorted(scores[arm])]
        y = np.array([scores[arm][seed] for arm, seed in cells], dtype=np.float64)
        self.design = design(tuple((self._index[arm], seed) for arm, seed in cells))
        self.freedom = self.design.freedom
        self.fewest_seeds = min((len(scores[arm]) for arm in self.arms), default=0)
        self.means: Array = self.design.weights @ y
        self.sd: float | None = None
        if self.freedom > 0:
            residual = self.design.residual @ y
            sd = float(np.sqrt(residual @ residual / self.freedom))
            # rounding leaves a residual of some 1e-16 where there is none
            self.sd = sd if sd > 1e-12 * max(1.0, float(np.abs(y).max())) else 0.0

    def groups(self) -> list[list[str]]:
        """Return the groups of arms that shared seeds link, the largest first."""
        by_group: dict[int, list[str]] = {}
        for arm, group in zip(self.arms, self.design.group, strict=True):
            by_group.setdefault(group, []).append(arm)
        return sorted(by_group.values(), key=lambda arms: (-len(arms), arms))

    def mean(self, arm: str) -> float:
        """Return the fitted mean of an arm: over the seeds of its group, had it run with all."""
        return float(self.means[self._index[arm]])

    def mean_interval(self, arm: str, bounds: Bounds = UNBOUNDED) -> Interval | None:
        """Return the fitted mean with the interval from the board's residual, cut at `bounds`.

        It is an interval of the mean over these very seeds, as the contrasts are; None where the
        board has no degrees of freedom left.
        """
        if self.sd is None:
            return None
        index = self._index[arm]
        value = float(self.means[index])
        variance = float(self.design.covariance[index, index])
        half = critical(self.freedom) * self.sd * float(np.sqrt(variance))
        value, low, high = np.clip([value, value - half, value + half], *bounds).tolist()
        cut = "" if bounds == UNBOUNDED else ", cut at the metric's range"
        method = f"t, these seeds, {self._residual_words}{cut}"
        return Interval(value=value, low=low, high=high, level=LEVEL, method=method)

    @property
    def _residual_words(self) -> str:
        plural = "" if self.freedom == 1 else "s"
        return f"residual of the board with {self.freedom} degree{plural} of freedom"

    def linked(self, one: str, other: str) -> bool:
        """Whether a chain of shared seeds links two arms."""
        group = self.design.group
        return group[self._index[one]] == group[self._index[other]]

    def difference(self, of: str, to: str) -> Difference | None:
        """Arm `of` minus arm `to`; None where no chain of shared seeds links the two."""
        if of == to or not {of, to} <= self._index.keys() or not self.linked(of, to):
            return None
        value = self.mean(of) - self.mean(to)
        if self.sd is None:
            return Difference(value, None, None)
        i, j = self._index[of], self._index[to]
        error = float(self._errors()[i, j])
        half = critical(self.freedom) * error
        interval = Interval(
            value=value,
            low=value - half,
            high=value + half,
            level=LEVEL,
            method=f"t, paired by seed, {self._residual_words}",
        )
        return Difference(value, interval, float(self._p(np.array(value), np.array(error))))

    def p_values(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the p of each pair of linked arms, before any adjustment."""
        if not pairs:
            return []
        i, j = np.array([[self._index[one], self._index[other]] for one, other in pairs]).T
        p: list[float] = self._p(self.means[i] - self.means[j], self._errors()[i, j]).tolist()
        return p

    def error(self, one: str, other: str) -> float:
        """Return the standard error of the difference of two linked arms; it needs a residual."""
        return float(self._errors()[self._index[one], self._index[other]])

    def _errors(self) -> Array:
        """Return the standard error of each difference of two arms, (A, A)."""
        assert self.sd is not None
        c = self.design.covariance
        alone = np.diag(c)
        variance = np.maximum(alone[:, None] + alone[None, :] - 2 * c, 0.0)
        errors: Array = self.sd * np.sqrt(variance)
        return errors

    def _p(self, value: Array, error: Array) -> Array:
        # without any residual a difference is certain, unless it is rounding
        certain = np.where(np.abs(value) < 1e-12, 1.0, 0.0)
        t = np.abs(value) / np.where(error > 0, error, 1.0)
        p: Array = np.where(error > 0, 2 * special.stdtr(self.freedom, -t), certain)
        return p

    def draw(self, count: int, generator: np.random.Generator) -> Array:
        """Draw what the true means may be, jointly for all arms, given these scores.

        The noise of the scores is drawn with the residual's standard deviation, taken through the
        fit and divided by √(χ²/ν), as the residual is only estimated: differences of linked arms
        have the t distribution of their tests, with all correlations.

        Returns:
            Means in the order of `arms`, (count, A).
        """
        assert self.sd is not None
        z = generator.standard_normal((count, self.design.weights.shape[1]))
        chi = generator.chisquare(self.freedom, size=(count, 1)) / self.freedom
        drawn: Array = self.means + self.sd * (z @ self.design.weights.T) / np.sqrt(chi)
        return drawn

    def detectable(self, level: float = 1 - LEVEL, seeds: int | None = None) -> float | None:
        """Difference found with 80 % power by a two-sided test at `level`.

        It solves P(t' > t₁₋ₗₑᵥₑₗ⁄₂) = 0.8 for the non-centrality of t', times s·√(2/n); that the
        test finds a difference of the wrong sign is next to impossible and left out.

        Args:
            level: of the test of one pair.
            seeds: n, had every arm so many; None for what there is: then it is of the arms with
                the fewest.
        """
        if self.sd is None:
            return None
        if seeds is None:
            freedom, seeds = self.freedom, self.fewest_seeds
        else:
            freedom = (len(self.arms) - 1) * (seeds - 1)
        return _shift(freedom, level) * self.sd * float(np.sqrt(2 / seeds))


@cache
def _shift(freedom: int, level: float) -> float:
    """Return the non-centrality at which a t-test at this level has the power `POWER`."""
    t = critical(freedom, 1 - level)

    def excess(shift: float) -> float:
        return float(stats.nct.sf(t, freedom, shift)) - POWER

    return float(optimize.brentq(excess, 0.0, 3 * t + 3))
