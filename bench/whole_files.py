"""Files that are there whole or not at all, whatever ends the process. Standard library only."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there takes the name `path` when the block has ended well.

    It lies beside `path`, is flushed to the disk and renamed, so that nobody ever sees half of it.
    Whatever happens before the rename, a full disk or a kill, the file is as it was; of two
    writers at once the later one wins. Missing folders are made.

    Raises:
        OSError: it cannot be written; nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield partial
        handle = os.open(partial, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file: bytes, or text, which is written as UTF-8 with its line ends as they are.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_whole(folder / "new" / "a.txt", "whole")
        >>> [path.name for path in (folder / "new").iterdir()]
        ['a.txt']
    """
    # "x" never follows a link that another user has laid
    with writing(path) as partial, partial.open("xb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file."""
    with writing(path) as partial:
        shutil.copyfile(source, partial)


def _flush_folder(folder: Path) -> None:
    """Bring the rename itself to the disk, where the system can do so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
