"""Samples that are held out of training, to tune on or to score: the same for every seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

Indices = NDArray[np.int64]


def evenly_spaced(length: int, count: int) -> Indices:
    """Return `count` positions in 0…length − 1, evenly spaced: sets are often sorted.

    Example:
        >>> evenly_spaced(10, 4).tolist()
        [0, 2, 5, 7]
    """
    return np.arange(count) * length // count


def held_out(labels: NDArray[np.int64], share: float) -> tuple[Indices, Indices]:
    """Split a training set into (trained, held out) indices.

    The samples at evenly spaced positions of each class are held out, at least one a class.

    Args:
        labels: class of each sample; one for all where a sample is of several.
        share: that is held out, in (0, 0.5].

    Raises:
        DataError: nothing would be left to train on.

    Example:
        >>> trained, held = held_out(np.array([0, 0, 0, 0, 1, 1]), 0.25)
        >>> trained.tolist(), held.tolist()
        ([1, 2, 3, 5], [0, 4])
    """
    held: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, round(share * len(of_class)))
        held += of_class[evenly_spaced(len(of_class), count)].tolist()
    chosen = np.array(sorted(held), dtype=np.int64)
    trained = np.setdiff1d(np.arange(len(labels)), chosen)
    if not len(trained):
        raise DataError(f"`holdout` (={share}) leaves no training image of {len(labels)}.")
    return trained, chosen


def drawn_split(labels: NDArray[np.int64], share: float) -> tuple[Indices, Indices]:
    """Split a set that has no splits into (train, val) indices, by a draw that is always the same.

    Of each class at least one sample is scored, and at least one trained on, which comes first.

    Args:
        labels: class of each sample; one for all where a sample is of several.
        share: that is scored, in (0, 0.5].

    Raises:
        DataError: nothing would be left to score.

    Example:
        >>> trained, scored = drawn_split(np.array([0, 0, 0, 0, 1, 1, 2]), 0.25)
        >>> len(trained), np.array([0, 0, 0, 0, 1, 1, 2])[scored].tolist()
        (5, [0, 1])
    """
    generator = np.random.default_rng(0)
    scored: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        scored += generator.permutation(of_class)[:count].tolist()
    if not scored:
        raise DataError(
            f"`val_share` (={share}) leaves nothing to score: no class has two of the "
            f"{len(labels)} images."
        )
    chosen = np.array(sorted(scored), dtype=np.int64)
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
