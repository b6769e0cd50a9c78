"""Samples that are held out of training, to tune on or to score: the same for every seed."""

from __future__ import annotations

from collections.abc import Sequence

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

    The samples at evenly spaced positions of each class are held out; of each class at least one
    is, and at least one is trained on, which comes first.

    Args:
        labels: class of each sample; one for all where a sample is of several.
        share: that is held out, in (0, 0.5].

    Raises:
        DataError: nothing would be held out.

    Example:
        >>> trained, held = held_out(np.array([0, 0, 0, 0, 1, 1, 2]), 0.25)
        >>> trained.tolist(), held.tolist()
        ([1, 2, 3, 5, 6], [0, 4])
    """
    held: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = _part_of(len(of_class), share)
        held += of_class[evenly_spaced(len(of_class), count)].tolist()
    return _parted(len(labels), held, f"`holdout` (={share})")


def _part_of(count: int, share: float) -> int:
    """Return how many of a class are scored: at least one, where one is left to train on."""
    return min(max(1, round(share * count)), count - 1)


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
        count = _part_of(len(of_class), share)
        scored += generator.permutation(of_class)[:count].tolist()
    return _parted(len(labels), scored, f"`val_share` (={share})")


def _parted(count: int, scored: Sequence[int], said: str) -> tuple[Indices, Indices]:
    """Return the others of so many indices, and those that are scored; DataError if none are."""
    if not scored:
        raise DataError(f"{said} leaves nothing to score: no class has two of the {count} images.")
    chosen = np.array(sorted(scored), dtype=np.int64)
    return np.setdiff1d(np.arange(count), chosen), chosen
