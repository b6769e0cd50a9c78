"""Which files of a folder are data: images by their suffix, and nothing that tools leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tasks.data.locations import is_there

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
)
TOOLS = frozenset(("__macosx", "@eadir", "$recycle.bin", "lost+found", "__pycache__"))
"""Folders that tools leave behind, beside those that begin with a dot."""
HIDDEN = "image of a hidden folder or name left out"


def is_image(path: Path) -> bool:
    """Say whether a path is a file with the suffix of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and is_there(path)


def is_hidden(name: str) -> bool:
    """Say whether a folder or file is a tool's: Jupyter's checkpoints, the Finder's shadows.

    Example:
        >>> [is_hidden(name) for name in (".ipynb_checkpoints", "._cat.jpg", "__MACOSX", "cat")]
        [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in TOOLS


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def visible_images(folder: Path) -> list[Path]:
    """Return the images at any depth of a folder, sorted, but those that are hidden."""
    return [path for path in visible_files(folder) if is_image(path)]


def visible_files(folder: Path, repairs: Counter[str] | None = None) -> Iterator[Path]:
    """Yield the files at any depth of a folder, sorted, but those that are hidden.

    Args:
        folder: in which to look.
        repairs: images below it that are left out are counted here.
    """
    for path in sorted(folder.rglob("*")):
        hidden = any(map(is_hidden, path.relative_to(folder).parts))
        if not hidden and is_there(path):
            yield path
        elif hidden and repairs is not None and is_image(path):
            repairs[HIDDEN] += 1
