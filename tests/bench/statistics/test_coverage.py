"""By simulation: intervals hold what they promise, and the best arm is not called beaten."""

import math

import numpy as np
import pytest

from bench.statistics.blocks import Blocks
from bench.statistics.ranks import FAMILY, compared

BOARDS = 2000
SEED_SD, NOISE = 0.02, 0.01
MEANS = np.array([0.80, 0.80, 0.80, 0.80, 0.79, 0.76, 0.802])
BEST = str(len(MEANS) - 1)
"""The planted best arm, hardly better than three others: the easiest to be called beaten."""


def masks(draw, seeds, holes):
    """Which cells of a board were run: all, or one of twenty boards with a fifth of them lost."""
    if not holes:
        return [np.ones((len(MEANS), seeds), dtype=bool)]
    chosen = []
    while len(chosen) < 20:
        mask = draw.random((len(MEANS), seeds)) > 0.2
        blocks = Blocks(
            {str(a): dict.fromkeys(np.flatnonzero(row), 0.0) for a, row in enumerate(mask)}
        )
        if len(blocks.arms) == len(MEANS) and len(blocks.groups()) == 1 and blocks.freedom:
            chosen.append(mask)
    return chosen


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_and_the_best_arm_is_not_beaten(seeds, holes):
    draw = np.random.default_rng([seeds, holes])
    patterns = masks(draw, seeds, holes)
    contrasts, intervals, beaten = [], [], 0
    for board in range(BOARDS):
        mask = patterns[board % len(patterns)]
        effects = draw.normal(scale=SEED_SD, size=seeds)
        y = MEANS[:, None] + effects + draw.normal(scale=NOISE, size=mask.shape)
        scores = {
            str(arm): {int(s): float(y[arm, s]) for s in np.flatnonzero(row)}
            for arm, row in enumerate(mask)
        }
        blocks = Blocks(scores)
        for arm, mean in enumerate(MEANS):
            interval = blocks.mean_interval(str(arm), (0.0, 1.0))
            intervals.append(interval.low <= mean + effects.mean() <= interval.high)
            if arm:
                interval = blocks.difference(str(arm), "0").interval
                contrasts.append(interval.low <= mean - MEANS[0] <= interval.high)
        beaten += bool(compared(blocks, higher_is_better=True).better(BEST))
    assert 0.93 <= np.mean(contrasts) <= 0.97
    assert 0.93 <= np.mean(intervals) <= 0.97
    assert beaten / BOARDS <= 0.05


def test_equal_arms_are_told_apart_as_rarely_as_promised():
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(BOARDS):
        y = 0.8 + draw.normal(scale=SEED_SD, size=3) + draw.normal(scale=NOISE, size=(5, 3))
        blocks = Blocks({str(arm): dict(enumerate(row)) for arm, row in enumerate(y)})
        wrong += bool(compared(blocks, True).apart)
    assert wrong / BOARDS < FAMILY + 3 * math.sqrt(FAMILY * (1 - FAMILY) / BOARDS)


def test_detectable_difference_is_found_four_times_out_of_five():
    draw = np.random.default_rng(3)
    detectable, detected = None, 0
    for _ in range(BOARDS):
        y = 0.8 + draw.normal(scale=SEED_SD, size=3) + draw.normal(scale=NOISE, size=(4, 3))
        if detectable is not None:
            y[0] += detectable
        blocks = Blocks({str(arm): dict(enumerate(row)) for arm, row in enumerate(y)})
        if detectable is None:  # a difference in units of the noise hangs on the design alone
            detectable = blocks.detectable() / blocks.sd * NOISE
        detected += blocks.difference("0", "1").p < 0.05
    assert detected / BOARDS == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / BOARDS))
