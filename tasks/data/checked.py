"""Images that cannot be read are found before training, once."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import Image, UnidentifiedImageError
from pydantic import TypeAdapter, ValidationError

from bench.errors import DataError
from bench.hashing import digest, file_sha256
from bench.machine import usable_cores
from bench.whole_files import write_whole
from tasks.data.images import as_rgb, oddities, orientation
from tasks.data.locations import cache_folder, cache_folders, is_there, spare_cache

TELL_S = 20.0
"""Seconds between two words on how far a check is."""
TURNED = "photo turned upright by its EXIF orientation"
TRAINED_TOO = "scored image that is trained on too (a file of the same content)"
AS_STORED = "photo left as it is stored, in spite of its EXIF orientation: so its labels lie"


class ImageFile(NamedTuple):
    """What a check has found out about a file.

    Attributes:
        sha256: of its bytes.
        height: in pixels, as it is stored; 0 if it cannot be read.
        width: in pixels.
        fault: why it cannot be used; empty if it can.
        labels: the different values of its pixels, if it is a mask.
        pixels: how many have each of them.
        orientation: how the camera was held: EXIF's number, 1 for upright.
        oddities: what is done to it beyond reading it.
    """

    sha256: str
    height: int
    width: int
    fault: str = ""
    labels: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()
    orientation: int = 1
    oddities: tuple[str, ...] = ()


ABSENT = ImageFile("", 0, 0, "not there")
CLOSED = "cannot be opened"
"""A fault of the system, and not of the file, such as a permission that is lacking."""

_Note = TypeAdapter(dict[str, ImageFile])


@dataclass(frozen=True)
class Checked:
    """Relative path → SHA-256 of the good files, and relative path → fault of the others.

    Attributes:
        hashes: of the good files.
        faults: of the others.
        files: the good ones.
    """

    hashes: dict[str, str]
    faults: dict[str, str]
    files: dict[str, ImageFile]

    def repairs(self, names: Iterable[str], *, upright: bool) -> Counter[str]:
        """Return what is done to the good ones among some files → number of files.

        Args:
            names: of the files.
            upright: whether photos are turned as their EXIF says.
        """
        counts: Counter[str] = Counter()
        for file in (self.files[name] for name in names if name in self.files):
            counts.update(file.oddities)
            if file.orientation != 1:
                counts[TURNED if upright else AS_STORED] += 1
        return counts


def relative_name(root: Path, path: Path) -> str:
    """Return how a file is called in hashes: relative to the root of its set."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return Path(os.path.relpath(path, root)).as_posix()


def trained_too(trained: Iterable[str], scored: Iterable[str]) -> dict[str, int]:
    """Return how many scored images are trained on too; nothing where none is.

    Args:
        trained: hashes of the files of the one split.
        scored: of the other.

    Example:
        >>> list(trained_too(["1f", "2e"], ["2e", "3d", "2e"]).values()), trained_too(["1f"], [])
        ([2], {})
    """
    known = set(trained)
    count = sum(sha256 in known for sha256 in scored)
    return {TRAINED_TOO: count} if count else {}


def check_images(root: Path, paths: Sequence[Path]) -> Checked:
    """Decode and hash every file; see `check_files`."""
    files = check_files(root, paths, "images 2", inspect_image)
    good = {name: file for name, file in files.items() if not file.fault}
    return Checked(
        {name: file.sha256 for name, file in good.items()},
        {name: file.fault for name, file in files.items() if file.fault},
        good,
    )


def check_files(
    root: Path, paths: Sequence[Path], kind: str, inspect: Callable[[Path], ImageFile]
) -> dict[str, ImageFile]:
    """Inspect every file, once.

    The result is kept in the cache, by the files' names, sizes and times. A note that is not whole
    is made anew; without a cache that can be written it lasts for this run.

    Args:
        root: of the set.
        paths: of its files.
        kind: of the files, and so of what is found out about them.
        inspect: reads one file.

    Returns:
        Name relative to the root → what was found, in the order of `paths`.
    """
    names = [relative_name(root, path) for path in paths]
    listing = [[name, *_state(path)] for name, path in zip(names, paths, strict=True)]
    key = digest([kind, str(root.resolve()), listing, PIL.__version__])[:32]
    note = f"checked/{kind}-{key}.json"
    for folder in cache_folders():
        noted = _read_note(folder / note)
        if noted is not None and noted.keys() == set(names):
            return {name: noted[name] for name in names}
    with ThreadPoolExecutor(min(16, usable_cores())) as pool:
        each = pool.map(lambda path: inspect(path) if is_there(path) else ABSENT, paths)
        found = list(_telling(each, len(paths), root.name))
        files = dict(zip(names, found, strict=True))
    if any(file.fault == CLOSED for file in found):  # it may be open the next time
        return files
    text = _Note.dump_json(files)
    try:
        write_whole(cache_folder() / note, text)
    except OSError as error:
        _write_spare(note, text, error)
    return files


def _telling(files: Iterable[ImageFile], total: int, name: str) -> Iterator[ImageFile]:
    """Yield what is found of files; every `TELL_S` seconds a line of the log says how far it is."""
    since = told = time.monotonic()
    for number, file in enumerate(files, start=1):
        yield file
        now = time.monotonic()
        if now - told > TELL_S:
            told = now
            minutes = (now - since) * (total - number) / number / 60
            # Not a warning of Python's, which the command keeps out of its progress.
            logging.getLogger(__name__).warning(
                "%s: %s of %s files are checked, which is done once; about %.0f min left",
                *(name, f"{number:,}", f"{total:,}", max(1, minutes)),
            )


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name that no file can have
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read_note(note: Path) -> dict[str, ImageFile] | None:
    try:
        return _Note.validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None


def _write_spare(note: str, text: bytes, error: OSError) -> None:
    try:
        write_whole(spare_cache(cache_folder(), error) / note, text)
    except (OSError, DataError):
        # Nothing can be written anywhere: the files are only checked again next time.
        return


def inspect_image(path: Path) -> ImageFile:
    """Decode and hash an image."""
    fault, (height, width) = "", (0, 0)
    try:
        if path.stat().st_size == 0:
            return ImageFile("", 0, 0, "empty file")
        with Image.open(path) as image:
            width, height = image.size
            held = orientation(image)
            # Decoding at an eighth of the size reads the whole file all the same.
            image.draft("RGB", (1, 1))
            odd = oddities(image)
            as_rgb(image)
        return ImageFile(file_sha256(path), height, width, orientation=held, oddities=odd)
    except Exception as error:
        fault = fault_of(error)
    return ImageFile("", 0, 0, fault)


def fault_of(error: Exception) -> str:
    """Return the kind of what went wrong in reading an image.

    Damaged files raise whatever their decoder stumbles over: beside OSError and ValueError also
    struct.error, zlib.error, IndexError, MemoryError and more.
    """
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        return CLOSED
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    return "truncated" if "truncated" in str(error) else "unreadable"
