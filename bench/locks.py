"""Locks between processes: files that the system gives back when their holder ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = "locks"


class Held(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def lock(path: Path, *, wait_s: float = 0, everybodys: bool = False) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: of its file, which stays when the lock is given back.
        wait_s: the longest wait for another holder.
        everybodys: whether other users of the machine may hold it too.

    Raises:
        Held: another process holds it still.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, lock(Path(folder) / "a.lock"):
        ...     held(Path(folder) / "a.lock")
        True
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(path, mode=0o666) if everybodys else FileLock(path)
    try:
        file.acquire(timeout=wait_s)
    except Timeout:
        raise Held(path.name) from None
    if everybodys:
        with suppress(PermissionError):  # who made it has opened it
            path.chmod(0o666)
    try:
        yield
    finally:
        file.release()


def held(path: Path) -> bool:
    """Return whether somebody holds the lock just now."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return False  # the folder can only be read: nobody runs anything in it


def of_cell(folder: Path, cell: str) -> Path:
    """Return the path of the lock of a cell, by its hash, in a runs folder."""
    return folder / FOLDER / f"{cell}.lock"
