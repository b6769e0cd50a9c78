"""Joint draws of what the true scores and times may be; the same records give the same draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.hashing import digest
from bench.statistics.blocks import Blocks

DRAWS = 4000

Array = NDArray[np.float64]


def generator(*key: str) -> np.random.Generator:
    """Return a generator that hangs on names alone, such as the key of a board."""
    return np.random.default_rng(int(digest(list(key))[:16], 16))


def scores(blocks: Blocks, higher_is_better: bool, arms: Sequence[str], key: str) -> Array | None:
    """Draw the true scores of linked arms, the higher the better: (DRAWS, arms).

    From the joint t distribution of the block design; None where it has no residual.
    """
    if blocks.sd is None:
        return None
    drawn = blocks.draw(DRAWS, generator("scores", key))
    columns = drawn[:, [blocks.arms.index(arm) for arm in arms]]
    return columns if higher_is_better else -columns


def p_best(
    blocks: Blocks, higher_is_better: bool, arms: Sequence[str], key: str
) -> dict[str, float]:
    """Return the probability of each linked arm to be the best; none without a residual.

    Arms that are equal in a draw share it.
    """
    drawn = scores(blocks, higher_is_better, arms, key)
    if drawn is None:
        return {}
    best = drawn >= drawn.max(axis=1, keepdims=True)
    share = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return {arm: round(float(p), 3) for arm, p in zip(arms, share, strict=True)}


def log_times(runs: Mapping[str, Mapping[str, Sequence[float]]], key: str) -> dict[str, Array]:
    """Draw the true log-ratios of times to the baseline: arm → (DRAWS,).

    The processes of a speed run are the independent repetitions. With n of them an arm's error is
    Σ cₚ (rₚ − r̄) / √(n(n − 1)) · √(ν/χ²), cₚ standard normal and ν = n − 1: for every arm the t
    distribution of its interval, and between the arms of one run the correlation that there is.

    Args:
        runs: speed run → arm → log-ratio of each process; arms with other numbers of processes
            are drawn by themselves. One process has no spread, and no draws.
        key: of the board.
    """
    drawn: dict[str, Array] = {}
    for run, arms in sorted(runs.items()):
        for count in sorted({len(ratios) for ratios in arms.values()} - {0, 1}):
            draw = generator("times", key, run, str(count))
            normal = draw.standard_normal((DRAWS, count))
            chi = np.sqrt(draw.chisquare(count - 1, size=DRAWS) / (count - 1))
            for arm, ratios in sorted(arms.items()):
                if len(ratios) == count:
                    r = np.asarray(ratios)
                    error = normal @ (r - r.mean()) / np.sqrt(count * (count - 1)) / chi
                    drawn[arm] = r.mean() + error
    return drawn
