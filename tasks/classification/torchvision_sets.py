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

from bench.errors import UserError, near
from bench.hashing import digest
from tasks.classification.labelled import (
    Labelled,
    Source,
    from_array,
    from_files,
    require_all_classes,
    require_labels,
    revision,
    told_overlap,
)
from tasks.data.checked import check_images, relative_name
from tasks.data.faults import require_none
from tasks.layouts.torchvision_sets import SETS, class_names, construct, labels_of, samples_of

FILES = ("_image_files", "_images")
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
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
            name, str(value), construct(name, root, {argument: value}, download, options), root
        )
        for value in values
    )
    require_all_classes(train, scored)
    return Source(name, revision(train, scored), train, told_overlap(train, scored))


def _labelled(name: str, split: str, dataset: Any, root: Path) -> Labelled:
    labels = labels_of(dataset)
    names = class_names(name, dataset, labels)
    if names[0] == UNUSED and not (labels == 0).any():
        names, labels = names[1:], labels - 1
    require_labels(labels, names, len(dataset), f"torchvision's {name} ({split})")
    data = getattr(dataset, "data", None)
    if data is not None:
        pixels = np.ascontiguousarray(data)
        truth = digest([names, labels.tolist()])
        hashes = {f"array {split}": _sha256(pixels), f"labels {split}": truth}
        return from_array(pixels, labels, names, hashes)
    paths = _paths(dataset)
    checked = check_images(root, sorted(set(paths)))
    require_none(
        (f"of {name} can't be read", f"{path} ({fault})") for path, fault in checked.faults.items()
    )
    files = [relative_name(root, path) for path in paths]
    truth = digest([names, list(zip(files, labels.tolist(), strict=True))])
    return from_files(paths, labels, names, {**checked.hashes, f"labels {split}": truth})


def _sha256(array: NDArray[Any]) -> str:
    """Hash an array with its type and shape: the same bytes are other images in another shape."""
    content = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def _paths(dataset: Any) -> list[Path]:
    """Return the image files that the set itself lists."""
    samples = samples_of(dataset)
    if samples is not None:
        return [Path(path) for path, _ in samples]
    return [
        Path(path) for path in next(getattr(dataset, key) for key in FILES if hasattr(dataset, key))
    ]
