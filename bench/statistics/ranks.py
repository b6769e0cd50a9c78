"""Ranks of arms, by t-tests of all pairs in the block design."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bench.statistics.blocks import Blocks
from bench.statistics.letters import letters

FAMILY = 0.04
"""The chance that any two equal arms of a board are told apart. What a board says of accuracy may
be wrong so often; 1 % is left for what it says of times, so that both together are at most 5 %."""


@dataclass(frozen=True)
class Rank:
    """Place of an arm by its fitted mean, and what the tests leave open.

    Attributes:
        place: 1 + the number of arms with a better fitted mean.
        best: 1 + the number of arms that are surely better.
        worst: the number of arms − the number that are surely worse.
        letters: arms that share one cannot be told apart.
        tied: whether it shares a letter with another arm.
    """

    place: int
    best: int
    worst: int
    letters: str
    tied: bool


@dataclass(frozen=True)
class Pairs:
    """Arms in the order of their fitted means, the best first, and the pairs told apart.

    A pair (better, worse) is `apart` where its p, adjusted by Holm over all pairs, is below
    `FAMILY`, or where a decision on the board has found it. Without residual degrees of freedom no
    pair can be tested: that is no evidence of a difference.
    """

    order: tuple[str, ...] = ()
    apart: frozenset[tuple[str, str]] = frozenset()

    def knowing(self, apart: Collection[tuple[str, str]]) -> Pairs:
        """Return these pairs with those that other tests tell apart, where the means agree.

        Example:
            >>> pairs = Pairs(("a", "b", "c")).knowing({("a", "b"), ("c", "a")})
            >>> sorted(pairs.apart)
            [('a', 'b')]
        """
        agreed = {pair for pair in combinations(self.order, 2) if pair in apart}
        return replace(self, apart=self.apart | agreed)

    def better(self, arm: str) -> list[str]:
        """Return the arms that are surely better than this one, the best first."""
        return [other for other in self.order if (other, arm) in self.apart]

    def worse(self, arm: str) -> list[str]:
        """Return the arms that are surely worse than this one."""
        return [other for other in self.order if (arm, other) in self.apart]

    def open(self, arm: str) -> list[str]:
        """Return the arms that cannot be told from this one."""
        known = {arm, *self.better(arm), *self.worse(arm)}
        return [other for other in self.order if other not in known]


def compared(
    blocks: Blocks,
    higher_is_better: bool,
    arms: Sequence[str] | None = None,
    looks: int = 1,
) -> Pairs:
    """Compare all pairs of arms that shared seeds link.

    Args:
        blocks: the fit of the board.
        higher_is_better: direction of the metric.
        arms: those to compare, linked by shared seeds; None for the largest group of linked arms.
        looks: how often the scores may have been looked at before seeds were no longer added; the
            chance of an error is shared out among them.

    Example:
        >>> scores = {
        ...     "a": {0: 0.80, 1: 0.82}, "b": {0: 0.79, 1: 0.82}, "c": {0: 0.60, 1: 0.63},
        ... }
        >>> sorted(compared(Blocks(scores), higher_is_better=True).apart)
        [('a', 'c'), ('b', 'c')]
    """
    if arms is None:
        arms = next(iter(blocks.groups()), [])
    order = sorted(arms, key=lambda arm: (_standing(blocks, arm, higher_is_better), arm))
    pairs = list(combinations(order, 2)) if blocks.sd is not None else []
    adjusted = holm(blocks.p_values(pairs))
    apart = frozenset(pair for pair, p in zip(pairs, adjusted, strict=True) if p < FAMILY / looks)
    return Pairs(tuple(order), apart)


def ranks(blocks: Blocks, higher_is_better: bool, pairs: Pairs) -> dict[str, Rank]:
    """Rank the arms of `pairs` by their fitted means, the best first.

    Example:
        >>> scores = {
        ...     "a": {0: 0.80, 1: 0.82}, "b": {0: 0.79, 1: 0.82}, "c": {0: 0.60, 1: 0.63},
        ... }
        >>> blocks = Blocks(scores)
        >>> places = ranks(blocks, True, compared(blocks, True))
        >>> {arm: (r.place, r.best, r.worst, r.letters) for arm, r in places.items()}
        {'a': (1, 1, 2, 'a'), 'b': (2, 1, 2, 'a'), 'c': (3, 3, 3, 'b')}
    """
    shown = letters(pairs.order, pairs.apart)
    standing = {arm: _standing(blocks, arm, higher_is_better) for arm in pairs.order}
    return {
        arm: Rank(
            place=1 + sum(other < standing[arm] for other in standing.values()),
            best=1 + len(pairs.better(arm)),
            worst=len(pairs.order) - len(pairs.worse(arm)),
            letters=shown[arm],
            tied=bool(pairs.open(arm)),
        )
        for arm in pairs.order
    }


def _standing(blocks: Blocks, arm: str, higher_is_better: bool) -> float:
    """Return the fitted mean, the better the smaller.

    It is rounded: the last bits of equal means hang on the machine.
    """
    return round(-blocks.mean(arm) if higher_is_better else blocks.mean(arm), 12)


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
