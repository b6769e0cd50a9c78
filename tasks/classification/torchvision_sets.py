"""torchvision's classification sets by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import DataError, UserError, near
from tasks.classification.labelled import Labelled, Source, from_array, require_all_classes
from tasks.data.checked import check_images, is_image

SETS: dict[str, tuple[str, Any, Any]] = {
    "CIFAR10": ("train", True, False),
    "CIFAR100": ("train", True, False),
    "Country211": ("split", "train", "valid"),
    "DTD": ("split", "train", "val"),
    "EMNIST": ("train", True, False),
    "FGVCAircraft": ("split", "train", "val"),
    "FashionMNIST": ("train", True, False),
    "Flowers102": ("split", "train", "val"),
    "Food101": ("split", "train", "test"),
    "GTSRB": ("split", "train", "test"),
    "Imagenette": ("split", "train", "val"),
    "KMNIST": ("train", True, False),
    "MNIST": ("train", True, False),
    "OxfordIIITPet": ("split", "trainval", "test"),
    "RenderedSST2": ("split", "train", "val"),
    "STL10": ("split", "train", "test"),
    "SVHN": ("split", "train", "test"),
    "StanfordCars": ("split", "train", "test"),
    "USPS": ("train", True, False),
}
"""Name → (argument that chooses the split, training value, scored value)."""
LABELS = ("targets", "labels", "_labels")


def open_torchvision(
    name: str, root: Path, *, download: bool = False, options: Mapping[str, Any] | None = None
) -> Source:
    """Open a set.

    Args:
        name: a key of `SETS`.
        root: the folder given to torchvision.
        download: whether torchvision may download it.
        options: further arguments of the set, such as EMNIST's `split` or DTD's `partition`.

    Raises:
        ValueError: an unknown option.
        DataError: the set is not in `root`, or is damaged.
    """
    options = dict(options or {})
    parameters = inspect.signature(getattr(torchvision.datasets, name).__init__).parameters
    known = {*parameters, "split"} if "kwargs" in parameters else set(parameters)
    for option, value in options.items():
        if option not in known or option == SETS[name][0]:
            raise UserError(
                f"`{option}` (={value!r}) is no option of {name}; {near(option, known)}"
            )
    argument, *values = SETS[name]
    train, scored = (
        _labelled(name, _construct(name, root, {argument: value}, download, options), root)
        for value in values
    )
    require_all_classes(train, scored)
    return Source(name, f"torchvision {torchvision.__version__}", train, scored)


def _construct(
    name: str, root: Path, split: dict[str, Any], download: bool, options: dict[str, Any]
) -> Any:
    try:
        return getattr(torchvision.datasets, name)(str(root), **split, **options, download=download)
    except (RuntimeError, OSError, EOFError) as error:
        raise DataError(
            f"torchvision's {name} cannot be read from `root` (={str(root)!r}): "
            f"{str(error).splitlines()[0]} With `download=True` it is downloaded."
        ) from None


def _labelled(name: str, dataset: Any, root: Path) -> Labelled:
    labels = _labels(dataset)
    listed = getattr(dataset, "classes", None) or range(int(labels.max()) + 1)
    class_names = tuple(str(entry) for entry in listed)
    data = getattr(dataset, "data", None)
    if data is not None:
        pixels = np.ascontiguousarray(data)
        return from_array(pixels, labels, class_names, _array_hashes(pixels, labels))
    checked = check_images(root, sorted(p for p in root.rglob("*") if is_image(p)))
    if checked.faults:
        path, fault = next(iter(checked.faults.items()))
        raise DataError(f"{len(checked.faults)} images of {name} cannot be read: {path}: {fault}.")
    return Labelled(partial(_load, dataset), labels, class_names, checked.hashes)


def _array_hashes(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, str]:
    content = hashlib.sha256(pixels.tobytes()).hexdigest()
    return {f"array {content[:12]}": content, f"labels {content[:12]}": _sha256(labels)}


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _labels(dataset: Any) -> NDArray[np.int64]:
    for attribute in LABELS:
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute), dtype=np.int64)
    return np.array([label for _, label in dataset._samples], dtype=np.int64)


def _load(dataset: Any, index: int, short_side: int) -> Tensor:
    image = dataset[index][0].convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
