"""Which way a photo's labels lie: on it upright, as its EXIF says, or as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.data.checked import ImageFile
from tasks.data.images import upright_size


def fits(file: ImageFile, size: tuple[int, int]) -> bool:
    """Say whether labels of this (height, width) lie on an image, upright or as it is stored."""
    stored = (file.height, file.width)
    return size in (stored, upright_size(stored, file.orientation))


def lying(files: Mapping[Path, ImageFile], sizes: Mapping[Path, tuple[int, int]]) -> set[Path]:
    """Return the photos that are left as they are stored; all others are turned as EXIF says.

    They are those whose labels have the size in which they are stored. Of a photo upside down both
    sizes are equal: the other photos of the set tell, and where none does it is turned.

    Args:
        files: what was found out about each photo.
        sizes: (height, width) of its labels.

    Example:
        >>> on_its_side = ImageFile("", 3, 4, orientation=6)
        >>> upside_down = ImageFile("", 3, 4, orientation=3)
        >>> a, b = Path("a.jpg"), Path("b.jpg")
        >>> sorted(map(str, lying({a: on_its_side, b: upside_down}, {a: (3, 4), b: (3, 4)})))
        ['a.jpg', 'b.jpg']
        >>> lying({a: on_its_side, b: upside_down}, {a: (4, 3), b: (3, 4)})
        set()
    """
    as_stored: set[Path] = set()
    undecided: set[Path] = set()
    some_turned = False
    for path, file in files.items():
        stored = (file.height, file.width)
        upright = upright_size(stored, file.orientation)
        if file.orientation == 1:
            continue
        if stored == upright:
            undecided.add(path)
        elif sizes[path] == stored:
            as_stored.add(path)
        else:
            some_turned = True
    return as_stored | undecided if as_stored and not some_turned else as_stored
