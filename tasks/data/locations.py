"""Where data lies: the cache of generated sets, and the folder of the user's own."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath, PureWindowsPath

from bench import local
from bench.errors import DataError
from bench.local import located

SPARE = "CONVBOARD_SPARE_CACHE"
"""Environment variable that tells processes started from here of the temporary cache."""


def cache_folder() -> Path:
    """Return the folder of generated data: the user's cache, or a temporary one without a home."""
    try:
        return local.cache_folder()
    except RuntimeError as error:
        return spare_cache("~/.cache/convboard", error)


def cache_folders() -> tuple[Path, ...]:
    """Return where generated data may be: the cache, and the temporary one if there is one."""
    spare = os.environ.get(SPARE)
    return (cache_folder(), Path(spare)) if spare else (cache_folder(),)


def spare_cache(folder: Path | str, error: Exception) -> Path:
    """Return a temporary cache for this process and those it starts; a line of the log says so.

    Args:
        folder: the cache that cannot be written.
        error: why.

    Raises:
        DataError: no temporary folder can be made either.
    """
    spare = os.environ.get(SPARE)
    if spare and Path(spare).is_dir():
        return Path(spare)
    try:
        spare = tempfile.mkdtemp(prefix="convboard-")
    except OSError as second:
        raise DataError(
            f"Neither the cache {str(folder)!r} ({error}) nor a temporary folder ({second}) can be "
            "written; the environment variable CONVBOARD_CACHE chooses another cache."
        ) from None
    os.environ[SPARE] = spare
    # Unlike atexit's, this also runs at the end of a worker process, and only where it was made.
    Finalize(None, shutil.rmtree, args=(spare, True), exitpriority=0)
    # Not a warning of Python's, which the command keeps out of its progress.
    logging.getLogger(__name__).warning(
        "The cache %r cannot be written (%s); what is generated and checked is kept in a temporary "
        "folder for this run only. The environment variable CONVBOARD_CACHE chooses another cache.",
        str(folder),
        error,
    )
    return Path(spare)


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


def inside(folder: Path, name: str, source: str) -> Path:
    """Return the path of a file that data names, which must lie in the folder.

    Args:
        folder: in which it must lie.
        name: relative, as the data has it.
        source: of the name: the beginning of the message, such as "image 3 of a.json: `name`".

    Raises:
        DataError: the name is empty or absolute, or climbs out by "..".

    Example:
        >>> inside(Path("images"), "a/1.jpg", "the list").as_posix()
        'images/a/1.jpg'
        >>> inside(Path("images"), "../1.jpg", "the list")
        Traceback (most recent call last):
            ...
        bench.errors.DataError: the list (='../1.jpg') must be the name of a file in the folder.
    """
    if leads_out(name):
        raise DataError(f"{source} (={shortened(name)}) must be the name of a file in the folder.")
    return folder / name


def leads_out(name: str) -> bool:
    """Say whether a name is empty or absolute, or climbs out by ".."; Windows' ways count too.

    Example:
        >>> leads_out("a/1.jpg"), leads_out("../1.jpg"), leads_out("C:/1.jpg"), leads_out("")
        (False, True, True, True)
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = ".." in posix.parts or ".." in windows.parts
    return climbs or posix.is_absolute() or bool(windows.anchor) or not posix.name


def end_below(root: Path, name: str) -> Path | None:
    r"""Return the longest end of a path that is there, below a folder; None if there is none.

    Sets often hold the paths of the machine on which they were made, Windows' among them.

    Example:
        >>> end_below(Path("."), "C:\\sets\\nowhere.jpg") is None
        True
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in "/."]
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    for start in range(len(parts)):
        place = root.joinpath(*parts[start:])
        try:
            if place.exists():
                return place
        except (OSError, ValueError):
            continue
    return None


def is_there(path: Path) -> bool:
    """Say whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shortened(value: object, most: int = 80) -> str:
    """Return a value as a message shows it; nothing in it reaches the terminal unescaped.

    Example:
        >>> shortened("a" * 100, 10)
        "'aaaaaa…"
    """
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= most else text[: most - 3] + "…"
