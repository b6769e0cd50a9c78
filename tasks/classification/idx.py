"""Fashion-MNIST as Debian's package dataset-fashion-mnist installs it: gzipped idx files."""

from __future__ import annotations

import gzip
import math
import zlib
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
    require_labels,
    revision,
)

LARGEST = 2**31
"""Bytes of an array: a small file can claim, and unpack to, any number of them."""
MOST_SIZES = 4
FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip


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
    if images.ndim != 3 or labels.shape != images.shape[:1] or 0 in images.shape:
        raise DataError(
            f"{files[0]} and {files[1].name} must hold as many images as labels: "
            f"{images.shape}, {labels.shape}."
        )
    classes = labels.astype(np.int64)
    require_labels(classes, CLASS_NAMES, len(images), files[1].name)
    return from_array(images, classes, CLASS_NAMES, hash_files(root, files))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes, gzipped: two zero bytes, 8, rank, the sizes (big-endian), data.

    Raises:
        DataError: it is not there, truncated, too large, or something else.
    """
    try:
        with gzip.open(path) as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\x00\x00\x08":
                raise DataError(f"{path} is no idx file of bytes (`magic` (={magic!r})).")
            if not 1 <= magic[3] <= MOST_SIZES:
                raise DataError(f"{path}: `rank` (={magic[3]}) must be from 1 to {MOST_SIZES}.")
            head = file.read(4 * magic[3])
            sizes = np.frombuffer(head[: len(head) // 4 * 4], dtype=">u4").tolist()
            length = math.prod(sizes)
            if len(sizes) != magic[3] or length > LARGEST:
                raise DataError(
                    f"{path}: `sizes` (={sizes}) must be {magic[3]}, of at most {LARGEST} bytes."
                )
            data = file.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(data) != length:
        more = "more" if len(data) > length else str(len(data))
        raise DataError(f"{path} must hold {sizes} bytes; it holds {more}.")
    return np.frombuffer(data, dtype=np.uint8).reshape(sizes)
