"""Hashes of values and of files: what things are known by. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def canonical(value: Any) -> str:
    """JSON with sorted keys, the same text for the same value."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value; the order of keys does not count.

    Example:
        >>> digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(_COMPACT.encode(value).encode()).hexdigest()


_COMPACT = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Return path relative to `root` → SHA-256, sorted by path."""
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: file_sha256(named[name]) for name in sorted(named)}


def files_digest(hashes: Mapping[str, str]) -> str:
    """Return one SHA-256 over the sorted list of files and their hashes.

    Example:
        >>> files_digest({"a.png": "00", "b.png": "11"}) == files_digest(
        ...     {"b.png": "11", "a.png": "00"}
        ... )
        True
    """
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
