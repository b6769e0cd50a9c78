"""Images that cannot be read are found before training, once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.hashing import canonical, digest, file_sha256
from tasks.data.locations import cache_folder

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
)


@dataclass(frozen=True)
class Checked:
    """Relative path → SHA-256 of the good files, and relative path → fault of the others."""

    hashes: dict[str, str]
    faults: dict[str, str]


def is_image(path: Path) -> bool:
    """Say whether a path is a file with the suffix of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def check_images(root: Path, paths: Sequence[Path]) -> Checked:
    """Decode and hash every file; the result is kept, by the files' names, sizes and times."""
    stats = [(path, path.stat()) for path in paths]
    listing = [[path.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns] for path, s in stats]
    note = cache_folder() / "checked" / f"images-{digest([str(root.resolve()), listing])[:32]}.json"
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        return Checked(kept["hashes"], kept["faults"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_check, paths, chunksize=32))
    names = [str(row[0]) for row in listing]
    hashes = {n: digest_ for n, (digest_, fault) in zip(names, found, strict=True) if not fault}
    faults = {n: fault for n, (_, fault) in zip(names, found, strict=True) if fault}
    _keep(note, canonical({"hashes": hashes, "faults": faults}))
    return Checked(hashes, faults)


def _keep(note: Path, text: str) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(note)
    except OSError:
        # Without a cache the files are only checked again next time.
        return


def _check(path: Path) -> tuple[str, str]:
    if path.stat().st_size == 0:
        return "", "empty file"
    try:
        with Image.open(path) as image:
            # Decoding at an eighth of the size reads the whole file all the same.
            image.draft("RGB", (1, 1))
            image.load()
    except UnidentifiedImageError:
        return "", "not an image"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return "", "truncated" if "truncated" in str(error) else "unreadable"
    return file_sha256(path), ""


def count_faults(faults: Iterable[str]) -> dict[str, int]:
    """Return fault → number of files.

    Example:
        >>> count_faults(["truncated", "empty file", "truncated"])
        {'empty file': 1, 'truncated': 2}
    """
    counts: dict[str, int] = {}
    for fault in sorted(faults):
        counts[fault] = counts.get(fault, 0) + 1
    return counts


def read_image(path: Path, short_side: int | None = None) -> Tensor:
    """Read an image as RGB, uint8 (3, H, W), shrunk to `short_side` pixels where it is larger."""
    with Image.open(path) as image:
        if short_side is not None:
            image.draft("RGB", (short_side, short_side))
        rgb = image.convert("RGB")
    if short_side is not None and min(rgb.size) > short_side:
        scale = short_side / min(rgb.size)
        width, height = (max(short_side, round(scale * side)) for side in rgb.size)
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
