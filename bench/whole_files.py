"""Files that are there whole or not at all, whatever ends the process. Standard library only."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file so that nobody ever sees half of it.

    The data is written beside the file under a name of its own, flushed to the disk, and renamed
    over it. Whatever happens before the rename, a full disk or a kill, the file is as it was; of
    two writers at once the later one wins. Missing folders are made.

    Args:
        path: of the file; what is there is replaced.
        data: bytes, or text, which is written as UTF-8 with its line ends as they are.

    Raises:
        OSError: it cannot be written; nothing is left beside it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_whole(folder / "new" / "a.txt", "whole")
        >>> [path.name for path in (folder / "new").iterdir()]
        ['a.txt']
    """
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        # "x" never follows a link that another user has laid; the mode is the usual one.
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Bring the rename itself to the disk, where the system can do so."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
