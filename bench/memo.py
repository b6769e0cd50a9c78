"""Values that stay the same as long as the code does, kept on disk: they take seconds to make."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any

from bench.hashing import digest
from bench.local import cache_folder
from bench.whole_files import write_whole

_OURS = ("bench", "tasks")
_MONTH_S = 30 * 24 * 3600


def remembered(kind: str, argument: Any, make: Callable[[], Any]) -> Any:
    """Return `make()`, or what it returned for the same argument under the same code.

    The value must be JSON, and depend on nothing but the argument, the code of `bench` and `tasks`,
    Python, and the packages that are installed, by their versions. Where no cache can be kept,
    it is made each time. An error is never kept.

    Args:
        kind: what such values are called.
        argument: JSON.
        make: makes the value.

    Example:
        >>> remembered("square", 3, lambda: 9), remembered("square", 3, lambda: 9)
        (9, 9)
    """
    try:
        file = cache_folder() / "memo" / code() / f"{kind}-{digest(argument)[:32]}.json"
    except RuntimeError:  # nobody's home
        return make()
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    value = make()
    with suppress(OSError):
        if not file.parent.exists():
            _forget(file.parents[1])
        write_whole(file, json.dumps(value))
    return value


@cache
def code() -> str:
    """Digest of our code, of Python's version, and of the names and versions of what is installed.

    Example:
        >>> len(code())
        32
    """
    root = Path(__file__).parents[1]
    files = sorted(file for package in _OURS for file in (root / package).rglob("*.py"))
    ours = [
        (file.relative_to(root).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in files
    ]
    installed = sorted(
        {info.name for folder in set(sys.path) for info in Path(folder).glob("*.dist-info")}
    )
    return digest([ours, installed, sys.version])[:32]


def _forget(folder: Path) -> None:
    """Remove what other code has made and nobody has asked for in a month."""
    for other in folder.glob("*"):
        if time.time() - other.stat().st_mtime > _MONTH_S:
            rmtree(other, ignore_errors=True)
