"""The cache folder, and hashes of files: what a set of images is known by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tasks.data.errors import DataError


def cache_folder() -> Path:
    """Return the folder of generated data: $CONVBOARD_CACHE, or ~/.cache/convboard."""
    chosen = os.environ.get("CONVBOARD_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "convboard"


def located(root: Path | str) -> Path:
    """Return where a set lies: a relative folder is one below $CONVBOARD_DATA, where that is set.

    So configurations, and the hashes of cells, name no folder of one machine.

    Example:
        >>> located("/sets/coco").as_posix()
        '/sets/coco'
    """
    return Path(os.environ.get("CONVBOARD_DATA", "")) / root


def existing_folder(root: Path | str) -> Path:
    """Return where a set lies, which must be a folder.

    Raises:
        DataError: it is not there.
    """
    folder = located(root)
    if not folder.is_dir():
        where = "" if Path(root).is_absolute() else f" below {str(located('').absolute())!r}"
        raise DataError(
            f"`root` (={str(root)!r}) must be a folder{where}; --data, or the environment "
            "variable CONVBOARD_DATA, says where sets lie."
        )
    return folder


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Return path relative to `root` → SHA-256, sorted by path."""
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: file_sha256(named[name]) for name in sorted(named)}


def files_digest(hashes: dict[str, str]) -> str:
    """Return one SHA-256 over the sorted list of files and their hashes.

    Example:
        >>> files_digest({"a.png": "00", "b.png": "11"}) == files_digest(
        ...     {"b.png": "11", "a.png": "00"}
        ... )
        True
    """
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
