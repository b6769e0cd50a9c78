"""Where data lies: the cache of generated sets, and the folder of the user's own."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import DataError


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
