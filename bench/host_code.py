"""Hosts that are named as code: which they are, and by what hash. Nothing of them is run here."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from bench.code_files import closure, code_digest, file_of, spec_of
from bench.errors import UserError
from bench.hashing import digest

PLACES = ("hf-hub", "hf_hub", "local-dir")
"""What may stand before a colon in timm's own names."""

OURS = ("bench", "tasks", "leaderboard")
"""Packages that a host may import and that are none of its code."""

UNPICKLED = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments by which timm reads a file, or a place, of the configuration's choice."""


def is_code(host: object) -> bool:
    """Whether a host is named as code, and not as a model of timm.

    Example:
        >>> is_code("resnet18"), is_code("hf-hub:timm/resnet18"), is_code("nets/mine.py:Net")
        (False, False, True)
    """
    return isinstance(host, str) and ":" in host and host.partition(":")[0] not in PLACES


def code_sha256(host: str) -> str | None:
    """Return the hash of a host's code, which is part of what a cell is; nothing of it is run.

    Code is the callable's module, and the closure of what it imports of its own package and of what
    lies beside it, but for ours; words and layout do not count. A package that is installed is
    known by the hashes of all of its files, which its installer has noted.

    Returns:
        16 hexadecimal digits; None where there is no such module, or none that is a file.

    Raises:
        UserError: there is no such file, or it is no Python.
    """
    place = host.rpartition(":")[0]
    if place.endswith(".py"):
        path = file_at(host, place).resolve()
        module, folder = path.stem, path.parent
    else:
        look_here()
        found = file_of(place)
        if found is None:
            return None
        module, path = place, found
        folder = path.parents[module.count(".") + (path.name == "__init__.py")]
    package = module.partition(".")[0]
    if installed := _installed(package, folder):
        return digest(installed)[:16]

    def own(name: str) -> bool:
        top = name.partition(".")[0]
        if top == package or top in OURS:
            return top == package
        beside = PathFinder.find_spec(top, [str(folder)]) if top else None
        usual = spec_of(top, folder)  # what is imported, where both are there
        return beside is not None and usual is not None and usual.origin == beside.origin

    try:
        return code_digest(closure({module: path}, own, folder))[:16]
    except SyntaxError as error:
        raise UserError(f"`host` (={host!r}) must be Python: {error}.") from error


def _installed(package: str, folder: Path) -> list[str]:
    """Return what the installer noted of a package's files, a line each; none of another's."""
    beginnings = (f"{package}/", f"{package}.py,")
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
        if own := sorted(x for x in lines if x.startswith(beginnings) and "__pycache__" not in x):
            return own
    return []


def file_at(host: str, place: str) -> Path:
    """Return the file of a host that is one; UserError where it is not there."""
    path = Path(place)
    if not path.is_file():
        raise UserError(f"`host` (={host!r}): there is no file {path.name}.")
    return path


def look_here() -> None:
    """Let modules be found where the command is run, as `python -m` does."""
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109
        sys.path.append(here)
