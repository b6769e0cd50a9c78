"""How the splits of a set are called."""

from __future__ import annotations

import re
from pathlib import Path

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

    Of several folders of one split the name that stands first in `SPLITS` counts.
    """
    if not folder.is_dir():
        return {}
    by_name = {path.name.lower(): path for path in visible_folders(folder)}
    there = {split: [name for name in names if name in by_name] for split, names in SPLITS.items()}
    return {split: by_name[names[0]] for split, names in there.items() if names}
