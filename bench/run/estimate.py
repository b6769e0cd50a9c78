"""What cells will take, by earlier runs of like cells in the store: time, memory, and machines."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.config.cell import Cell
from bench.store import Kept

SECONDS = "train_seconds"
MEMORY = "peak_memory_bytes"
GPU_MEMORY = "peak_gpu_memory_bytes"
"""Names of metrics of a cell's run."""
_LIKE: Sequence[Callable[[Cell], tuple[str, ...]]] = (
    lambda cell: (cell.board, cell.operator),
    lambda cell: (cell.board,),
)
"""Which cells are alike, the closest first: seeds of an arm, arms of a board."""


@dataclass(frozen=True)
class Estimate:
    """What a cell will take.

    Attributes:
        seconds: of training.
        memory_bytes: the most that its process holds, if earlier runs say.
        gpu_memory_bytes: the most that torch holds on a GPU, if they do.
    """

    seconds: float
    memory_bytes: float | None
    gpu_memory_bytes: float | None


def estimates(
    wanted: Iterable[Cell], known: Iterable[Cell], kept: Mapping[str, Kept]
) -> dict[str, Estimate]:
    """Return what each cell will take, by its hash; without those that no run is like.

    Args:
        wanted: the cells that are to run.
        known: those among which a like one may be, such as all of a suite.
        kept: the run that counts of every cell.
    """
    runs: dict[tuple[str, ...], list[Kept]] = {}
    for cell in known:
        run = kept.get(cell.hash)
        if run is not None and run.done and SECONDS in run.metrics:
            for key in _LIKE:
                runs.setdefault(key(cell), []).append(run)
    found = {}
    for cell in wanted:
        for key in _LIKE:
            like = runs.get(key(cell))
            if like:
                found[cell.hash] = Estimate(
                    seconds=median(run.metrics[SECONDS] for run in like),
                    memory_bytes=_most(like, MEMORY),
                    gpu_memory_bytes=_most(like, GPU_MEMORY),
                )
                break
    return found


def _most(runs: Iterable[Kept], metric: str) -> float | None:
    return max((run.metrics[metric] for run in runs if metric in run.metrics), default=None)


def makespan(seconds: Iterable[float], places: int) -> float:
    """Return how long jobs take on so many places, the longest first, each where one is free first.

    Example:
        >>> makespan([3, 3, 2, 2, 2], places=2), makespan([5, 1], places=4), makespan([], places=1)
        (7, 5, 0)
    """
    busy: list[float] = [0] * places
    for job in sorted(seconds, reverse=True):
        heapq.heappush(busy, heapq.heappop(busy) + job)
    return max(busy)
