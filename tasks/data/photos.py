"""Real photographs that come with scikit-image and scikit-learn, cut into train and val regions.

coffee, chelsea, brick, grass, gravel, hubble_deep_field, rocket and ihc (scikit-image) are CC0 or
in the public domain. china by danielbuechele and flower by vultilion (scikit-learn, from Flickr)
are CC BY 2.0.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import DataError
from tasks.data.opencv import cv2

SOURCES = {
    "skimage/data": (
        "coffee.png",
        "chelsea.png",
        "brick.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "rocket.jpg",
        "ihc.png",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
TRAIN_SHARE = 0.7


@cache
def photos(split: str) -> tuple[NDArray[np.uint8], ...]:
    """Return the region of every photo that belongs to a split, each (H, W, 3) RGB.

    The left 70 % of the width are "train", the others "val".

    Example:
        >>> [photos(split)[0].shape for split in ("train", "val")]
        [(400, 420, 3), (400, 180, 3)]
    """
    regions = []
    for folder, names in SOURCES.items():
        for name in names:
            photo = _read(folder, name)
            cut = round(TRAIN_SHARE * photo.shape[1])
            regions.append(photo[:, :cut] if split == "train" else photo[:, cut:])
    return tuple(regions)


def _read(folder: str, name: str) -> NDArray[np.uint8]:
    """Read a file of an installed package: its own functions would download what is missing."""
    package, _, inside = folder.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"The photo {name} comes with the package {package}: not installed.")
    path = Path(spec.submodule_search_locations[0]) / inside / name
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"The photo {path} cannot be read: {error}") from None


def crop(rng: np.random.Generator, split: str, size: int) -> NDArray[np.uint8]:
    """Return a random crop of a random photo's region, scaled to (size, size, 3).

    The side of the crop is drawn between `size` and twice that, as far as the region allows.
    """
    regions = photos(split)
    region = regions[rng.integers(len(regions))]
    height, width = region.shape[:2]
    side = min(int(size * rng.uniform(1, 2)), height, width)
    top = rng.integers(height - side + 1)
    left = rng.integers(width - side + 1)
    cut = region[top : top + side, left : left + side]
    shrinking = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (size, size), interpolation=shrinking), dtype=np.uint8)
