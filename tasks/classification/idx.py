"""Fashion-MNIST as Debian's package dataset-fashion-mnist installs it: gzipped idx files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.hashing import hash_files
from tasks.classification.labelled import (
    Labelled,
    Source,
    from_array,
    require_all_classes,
    revision,
)

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def open_debian_fashion(root: Path = FOLDER) -> Source:
    """Read the training and the test split.

    Raises:
        DataError: the package is not installed, or its files are damaged.
    """
    if not root.is_dir():
        raise DataError(
            f"`root` (={str(root)!r}) must be the folder of Debian's package "
            "dataset-fashion-mnist; there is none."
        )
    train, scored = _split(root, "train"), _split(root, "t10k")
    require_all_classes(train, scored)
    return Source("fashion-mnist-debian", revision(train, scored), train, scored)


def _split(root: Path, prefix: str) -> Labelled:
    files = [root / f"{prefix}-{kind}.gz" for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = (read_idx(path) for path in files)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{files[0]} and {files[1].name} must hold as many images as labels: "
            f"{images.shape}, {labels.shape}."
        )
    return from_array(images, labels.astype(np.int64), CLASS_NAMES, hash_files(root, files))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes, gzipped: two zero bytes, 8, rank, the sizes (big-endian), data.

    Raises:
        DataError: it is not there, truncated, or something else.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is no idx file of bytes.")
    start = 4 + 4 * raw[3]
    sizes = np.frombuffer(raw[4:start], dtype=">u4").tolist()
    if len(sizes) != raw[3] or len(raw) - start != int(np.prod(sizes)):
        raise DataError(f"{path} must hold {sizes} bytes; it holds {len(raw) - start}.")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(sizes)
