"""How the splits of a set are called, and which of them is scored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.errors import DataError
from tasks.data.listing import visible_folders

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Split → what its folder is called, in any case."""
_WORD = re.compile(r"[a-z]+")


def split_of(name: str) -> str | None:
    """Return the split that the name of a file or folder tells of, if it tells of one.

    Example:
        >>> split_of("Valid"), split_of("instances_train2017.json"), split_of("trains")
        ('val', 'train', None)
    """
    words = set(_WORD.findall(name.lower()))
    told = [split for split, names in SPLITS.items() if words.intersection(names)]
    return told[0] if len(told) == 1 else None


def split_folders(folder: Path) -> dict[str, Path]:
    """Return split → its folder, for those that are there; none where there is no folder.

    Raises:
        DataError: a split has two folders.
    """
    found: dict[str, Path] = {}
    for path in visible_folders(folder) if folder.is_dir() else []:
        split = next((s for s, names in SPLITS.items() if path.name.lower() in names), None)
        if split is None:
            continue
        if split in found:
            raise DataError(
                f"{folder} must hold one folder for {split!r}, not {found[split].name!r} and "
                f"{path.name!r}."
            )
        found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def scored_of(splits: Iterable[str]) -> str | None:
    """Return the split that is scored: "val" where there is one, else "test", else none.

    Example:
        >>> scored_of(["train", "test"]), scored_of(["train"])
        ('test', None)
    """
    there = set(splits)
    return next((split for split in ("val", "test") if split in there), None)
