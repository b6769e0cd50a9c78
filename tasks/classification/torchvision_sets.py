"""torchvision's classification sets by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from numpy.typing import NDArray

from bench.errors import DataError, UserError, near
from bench.hashing import digest
from tasks.classification.labelled import (
    Labelled,
    Source,
    from_array,
    from_files,
    require_all_classes,
    require_labels,
    revision,
)
from tasks.data.checked import check_images, relative_name
from tasks.data.faults import require_none

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
SAMPLES = ("samples", "_samples")
FILES = ("_image_files", "_images")
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
NAMES = {
    "GTSRB": (
        "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70",
        "speed limit 80", "end of speed limit 80", "speed limit 100", "speed limit 120",
        "no passing", "no passing for heavy vehicles", "right of way at the next intersection",
        "priority road", "yield", "stop", "no vehicles", "no heavy vehicles", "no entry",
        "general caution", "dangerous curve left", "dangerous curve right", "double curve",
        "bumpy road", "slippery road", "road narrows on the right", "road work",
        "traffic signals", "pedestrians", "children crossing", "bicycles crossing",
        "ice or snow", "wild animals crossing", "end of all limits", "turn right ahead",
        "turn left ahead", "ahead only", "straight or right", "straight or left", "keep right",
        "keep left", "roundabout", "end of no passing", "end of no passing for heavy vehicles",
    )
}  # fmt: skip
"""Names that torchvision does not have, in the order of the set's own numbers."""
UNUSED = "N/A"
"""EMNIST's letters count from 1: its name of the class 0, which has no images."""


def open_torchvision(
    name: str, root: Path, *, download: bool = False, options: Mapping[str, Any] | None = None
) -> Source:
    """Open a set.

    It is known by the content of what torchvision lists for its two splits: files beside them in
    `root`, and torchvision's version, do not count.

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
    for parameter in parameters.values():
        needed = parameter.default is parameter.empty and parameter.kind not in VARIABLE
        if needed and parameter.name not in {"self", "root", argument, *options}:
            raise UserError(f"`options` (={options!r}) must have `{parameter.name}` for {name}.")
    train, scored = (
        _labelled(
            name, str(value), _construct(name, root, {argument: value}, download, options), root
        )
        for value in values
    )
    require_all_classes(train, scored)
    return Source(name, revision(train, scored), train, scored)


def _construct(
    name: str, root: Path, split: dict[str, Any], download: bool, options: dict[str, Any]
) -> Any:
    try:
        return getattr(torchvision.datasets, name)(str(root), **split, **options, download=download)
    except Exception as error:
        # Each set has its own reader, which raises whatever it stumbles over in a damaged file.
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        absent = isinstance(error, (RuntimeError, OSError)) and not download
        hint = " With `download=True` it is downloaded." if absent else ""
        raise DataError(
            f"torchvision's {name} cannot be read from `root` (={str(root)!r}): {what}{hint}"
        ) from error


def _labelled(name: str, split: str, dataset: Any, root: Path) -> Labelled:
    labels = _labels(dataset)
    class_names = NAMES.get(name) or _class_names(dataset, labels)
    if class_names[0] == UNUSED and not (labels == 0).any():
        class_names, labels = class_names[1:], labels - 1
    require_labels(labels, class_names, len(dataset), f"torchvision's {name} ({split})")
    data = getattr(dataset, "data", None)
    if data is not None:
        pixels = np.ascontiguousarray(data)
        truth = digest([class_names, labels.tolist()])
        hashes = {f"array {split}": _sha256(pixels), f"labels {split}": truth}
        return from_array(pixels, labels, class_names, hashes)
    paths = _paths(dataset)
    checked = check_images(root, sorted(set(paths)))
    require_none(
        (f"of {name} can't be read", f"{path} ({fault})") for path, fault in checked.faults.items()
    )
    names = [relative_name(root, path) for path in paths]
    truth = digest([class_names, list(zip(names, labels.tolist(), strict=True))])
    return from_files(paths, labels, class_names, {**checked.hashes, f"labels {split}": truth})


def _sha256(array: NDArray[Any]) -> str:
    """Hash an array with its type and shape: the same bytes are other images in another shape."""
    content = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def _samples(dataset: Any) -> Any:
    return next((getattr(dataset, key) for key in SAMPLES if hasattr(dataset, key)), None)


def _paths(dataset: Any) -> list[Path]:
    """Return the image files that the set itself lists."""
    samples = _samples(dataset)
    if samples is not None:
        return [Path(path) for path, _ in samples]
    return [
        Path(path) for path in next(getattr(dataset, key) for key in FILES if hasattr(dataset, key))
    ]


def _labels(dataset: Any) -> NDArray[np.int64]:
    for attribute in LABELS:
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute), dtype=np.int64)
    return np.array([label for _, label in _samples(dataset)], dtype=np.int64)


def _class_names(dataset: Any, labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names that torchvision has; the classes of SVHN and USPS are digits.

    Where a class has several names, as Imagenette's, the first is the usual one.
    """
    listed = getattr(dataset, "classes", None)
    if listed is None:
        return tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
    return tuple(str(entry if isinstance(entry, str) else entry[0]) for entry in listed)
