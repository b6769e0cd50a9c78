"""Lists in text files: of images, of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.errors import DataError
from tasks.data.locations import inside, shortened

TWICE = "image listed twice"


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file of UTF-8.

    Raises:
        DataError: it is not there, or something else.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file.name} in {file.parent} cannot be read: {error}") from None


def listed_names(listing: Path, folder: Path, repairs: Counter[str]) -> list[str]:
    """Return the first word of every line, which names a file without its suffix.

    Args:
        listing: the file.
        folder: of the files that it names.
        repairs: a name that comes again is left out, and counted here.

    Raises:
        DataError: a name that leads out of the folder, by line.
    """
    words = [line.split()[0] if line.strip() else "" for line in read_lines(listing)]
    names = []
    known = set()
    for number, name in enumerate(words, start=1):
        if name in known:
            repairs[TWICE] += 1
        elif name:
            inside(folder, name, f"line {number} of {listing.name}: `name`")
            known.add(name)
            names.append(name)
    return names


def require_class_names(names: Sequence[str], source: str) -> None:
    """DataError unless there are names, none is empty, and they differ.

    Example:
        >>> require_class_names(["sky", "sky"], "classes.txt")
        Traceback (most recent call last):
            ...
        bench.errors.DataError: class 2 of classes.txt: `name` (='sky') must not be that of class 1.
    """
    if not names:
        raise DataError(f"{source} names no classes.")
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        what = f"class {number} of {source}: `name` (={shortened(name)}) must"
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{what} be a name.")
        if name in first:
            raise DataError(f"{what} not be that of class {first[name]}.")
        first[name] = number
