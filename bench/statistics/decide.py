"""When a board is decided: which arms still run after each round of seeds, and why others stopped.

Arms run in rounds of one seed each, so that what is compared is paired. After each round every arm
in play is compared with the one that leads, by the block design of the board, at the level of
`bench.statistics.boundary`. All follows from the scores alone: a run that was cut off comes to the
same decisions as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.intervals import critical
from bench.statistics.blocks import Blocks, Scores
from bench.statistics.boundary import levels

RISK = 0.04
"""That the winner named is wrong; as often as a board may be wrong that nothing decided, see
`bench.statistics.ranks.FAMILY`."""
MOST_SEEDS = 1000

Reason = Literal["worse", "beaten", "failed"]


@dataclass(frozen=True)
class Plan:
    """What is to be decided, and how.

    Attributes:
        arms: all of them.
        seeds: in the order in which they are run; the last round has them all.
        margin: difference of scores below which two arms count as the same, in the metric's unit.
        higher_is_better: direction of the metric.
        risk: that the winner named is wrong.

    Raises:
        ValueError: fewer than two arms or seeds, or a margin that is not above zero.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    margin: float
    higher_is_better: bool = True
    risk: float = RISK

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or len(self.seeds) < 2:
            raise ValueError(
                f"`arms` (={len(self.arms)}) and `seeds` (={len(self.seeds)}) must be at least 2."
            )
        if not self.margin > 0:
            raise ValueError(f"`margin` (={self.margin}) must be above 0.")


@dataclass(frozen=True)
class Stopped:
    """Why an arm runs no more.

    Attributes:
        reason: worse than `by` by more than the margin; worse than `by`, which is surely faster
            too; or failed. Each by a test of these two: of many arms that were left out, one may
            be as good as the best more often than `RISK`, though it is not often the best.
        seeds: how many it ran with.
        by: the other arm.
        least: by how much it is worse at least, in the metric's unit.
    """

    reason: Reason
    seeds: int
    by: str | None = None
    least: float | None = None


@dataclass(frozen=True)
class Decision:
    """How far a board is.

    Attributes:
        ended: best: one arm is surely the best; same: the arms in `same` are within the margin of
            it; seeds: all seeds are run and something is open; None: go on with `wanted`.
        rounds: whole rounds that were judged.
        best: the arm that leads; None before the first look.
        same: arms that are within the margin of it, surely.
        worse: arms in play that are worse than it, by whatever little, by a test of the two.
        open: arms in play of which neither is known.
        stopped: arms that run no more.
        wanted: what to run next, as (arm, seed).
    """

    ended: Literal["best", "same", "seeds"] | None
    rounds: int
    best: str | None
    same: tuple[str, ...]
    worse: tuple[str, ...]
    open: tuple[str, ...]
    stopped: Mapping[str, Stopped]
    wanted: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Apart:
    """By how much an arm is worse than another: at least `low` and at most `high`.

    `low` holds for one pair over all looks: to name a wrong winner it takes an arm that is surely
    better than the true best and than every other, which is likeliest where two are best and near.
    `high` holds for all arms at once: of those called the same any may be wrong.
    """

    low: float
    high: float


def decide(
    scores: Scores,
    plan: Plan,
    *,
    failed: Collection[str] = (),
    faster: Collection[tuple[str, str]] = (),
) -> Decision:
    """Return how far a board is, round by round from the first.

    Args:
        scores: arm → seed → score of what has been run; what no round asked for is not looked at.
        plan: what is to be decided.
        failed: arms of which a seed cannot be run.
        faster: pairs (one, other) of arms of which the one is surely faster.

    Example:
        >>> plan = Plan(("a", "b", "c"), seeds=(0, 1, 2), margin=1.0)
        >>> decide({}, plan).wanted
        (('a', 0), ('b', 0), ('c', 0), ('a', 1), ('b', 1), ('c', 1))
        >>> scores = {"a": {0: 90, 1: 91}, "b": {0: 89.9, 1: 91.2}, "c": {0: 50, 1: 51}}
        >>> decision = decide(scores, plan)
        >>> decision.stopped["c"].reason, decision.same, decision.ended
        ('worse', ('a',), 'same')
    """
    play = [arm for arm in plan.arms if arm not in failed]
    stopped = {
        arm: Stopped("failed", len(scores.get(arm, {}))) for arm in plan.arms if arm in failed
    }
    level, level_same = _levels(plan)
    used: dict[str, dict[int, float]] = {arm: {} for arm in play}
    state = _State(None, (), (), tuple(play))  # also where all others failed
    rounds = 0
    for count in range(2, len(plan.seeds) + 1):
        if len(play) < 2:
            break
        asked = plan.seeds[:count]
        wanted = [(arm, seed) for seed in asked for arm in play if seed not in scores.get(arm, {})]
        if wanted:
            return _decision(None, rounds, state, stopped, wanted)
        for arm in play:
            used[arm] = {seed: scores[arm][seed] for seed in asked}
        rounds = count
        compared = _Compared(used, play, plan, level[count - 2], level_same[count - 2])
        for arm, why in compared.leaving(count, faster).items():
            stopped[arm] = why
            play.remove(arm)
        state = compared.state(play)
        if not state.open:
            return _decision("same" if state.same else "best", rounds, state, stopped, [])
    return _decision("seeds", rounds, state, stopped, [])


def _levels(plan: Plan) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the level at each look: of a pair of arms, and of an arm against all others."""
    arms, seeds = len(plan.arms), len(plan.seeds)
    return levels(arms, seeds, plan.risk), levels(arms, seeds, plan.risk, rivals=arms - 1)


@dataclass(frozen=True)
class _State:
    best: str | None
    same: tuple[str, ...]
    worse: tuple[str, ...]
    open: tuple[str, ...]


def _decision(
    ended: Literal["best", "same", "seeds"] | None,
    rounds: int,
    state: _State,
    stopped: Mapping[str, Stopped],
    wanted: Sequence[tuple[str, int]],
) -> Decision:
    return Decision(
        ended,
        rounds,
        state.best,
        state.same,
        state.worse,
        state.open,
        dict(stopped),
        tuple(wanted),
    )


class _Compared:
    """One look: the arms in play, compared at one level."""

    def __init__(
        self, used: Scores, play: Sequence[str], plan: Plan, level: float, level_same: float
    ) -> None:
        self.blocks, self.play, self.plan = Blocks(used), list(play), plan
        sign = 1 if plan.higher_is_better else -1
        self.value = {arm: sign * self.blocks.mean(arm) for arm in play}
        self.best = max(play, key=lambda arm: (round(self.value[arm], 12), arm))
        self.sure = critical(self.blocks.freedom, 1 - 2 * level)
        self.sure_same = critical(self.blocks.freedom, 1 - 2 * level_same)

    def apart(self, worse: str, better: str) -> _Apart:
        """By how much one arm is worse than another."""
        value = self.value[better] - self.value[worse]
        error = self.blocks.error(better, worse)
        return _Apart(value - self.sure * error, value + self.sure_same * error)

    def leaving(self, seeds: int, faster: Collection[tuple[str, str]]) -> dict[str, Stopped]:
        """Return the arms that run no more: too far from the best, or beaten in time too."""
        left: dict[str, Stopped] = {}
        for arm in self.play:
            if arm == self.best:
                continue
            behind = self.apart(arm, self.best)
            if behind.low > self.plan.margin:
                left[arm] = Stopped("worse", seeds, self.best, behind.low)
                continue
            for other in self.play:
                low = self.apart(arm, other).low if (other, arm) in faster else 0.0
                if low > 0:
                    left[arm] = Stopped("beaten", seeds, other, low)
                    break
        return left

    def state(self, play: Sequence[str]) -> _State:
        """Say of the arms that are left how they stand to the best of them."""
        same, worse, open_ = [], [], []
        for arm in play:
            if arm == self.best:
                continue
            behind = self.apart(arm, self.best)
            if behind.high < self.plan.margin:
                same.append(arm)
            elif behind.low > 0:
                worse.append(arm)
            else:
                open_.append(arm)
        return _State(self.best, tuple(same), tuple(worse), tuple(open_))


def seeds_to_settle(scores: Scores, plan: Plan, decision: Decision) -> int | None:
    """Return about how many seeds would settle what is open; None for more than `MOST_SEEDS`.

    It takes the differences to be what they seem now: an open arm is settled when the half-width
    of the comparison is below its distance from zero, or from the margin, whichever is larger.
    """
    play = [arm for arm in (decision.best, *decision.open) if arm is not None]
    blocks = Blocks({arm: scores[arm] for arm in scores})
    if decision.best is None or not decision.open or blocks.sd is None:
        return None
    level = _levels(plan)[1][-1]
    distance = min(
        max(behind, plan.margin - behind)
        for behind in (abs(blocks.mean(decision.best) - blocks.mean(a)) for a in decision.open)
    )
    for seeds in range(len(plan.seeds), MOST_SEEDS + 1):
        freedom = max(blocks.freedom, (len(play) - 1) * (seeds - 1))
        if critical(freedom, 1 - 2 * level) * blocks.sd * math.sqrt(2 / seeds) < distance:
            return seeds
    return None
