"""torchvision's classification sets by name: how they are opened, their labels and classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.local import located
from tasks.layouts.layout import Layout, data_of

LOOKED_FOR = "classification: the name of a set of torchvision's, such as CIFAR10"
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


def named(name: str) -> Layout | None:
    """Recognise a set by its name, in any case; it must be in $CONVBOARD_DATA, or here.

    Raises:
        DataError: torchvision does not find it there.
    """
    known = next((other for other in SETS if other.lower() == name.lower()), None)
    if known is None:
        return None
    root = located(".").absolute()
    argument, *values = SETS[known]
    options = {"split": "balanced"} if known == "EMNIST" else {}
    train, scored = (construct(known, root, {argument: v}, False, options) for v in values)
    with_options = {"options": options} if options else {}
    image, _ = train[0]
    return Layout(
        "classification",
        f"torchvision's {known}",
        root,
        data_of("classification", known, root, **with_options),
        class_names(known, train, labels_of(train)),
        {"train": len(train), "val": len(scored)},
        ((image.height, image.width),),
    )


def construct(
    name: str, root: Path, split: dict[str, Any], download: bool, options: dict[str, Any]
) -> Any:
    """Open one split of a set; DataError if it is not in `root`, or damaged."""
    import torchvision  # for these sets alone: it brings torch

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


def samples_of(dataset: Any) -> Any:
    """Return the pairs of file and label that a set lists, if it does."""
    return next((getattr(dataset, key) for key in SAMPLES if hasattr(dataset, key)), None)


def labels_of(dataset: Any) -> NDArray[np.int64]:
    """Return the label of each image."""
    for attribute in LABELS:
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute), dtype=np.int64)
    return np.array([label for _, label in samples_of(dataset)], dtype=np.int64)


def class_names(name: str, dataset: Any, labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names that torchvision has, or ours; the classes of SVHN and USPS are digits.

    Where a class has several names, as Imagenette's, the first is the usual one.
    """
    if name in NAMES:
        return NAMES[name]
    listed = getattr(dataset, "classes", None)
    if listed is None:
        return tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
    return tuple(str(entry if isinstance(entry, str) else entry[0]) for entry in listed)
