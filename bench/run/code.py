"""Which code an operator is: its class, and all that it imports of our own or of its package."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import bench
from bench import operator_sources
from bench.code_files import closure as code_closure
from bench.code_files import code_digest, file_of
from bench.config.cell import Cell
from bench.hashing import digest
from bench.local import has_gpu

OURS = "bench.operators"
GPU = f"{OURS}.gpu"
"""What only a GPU runs."""
NO_MATHS = frozenset({OURS, f"{OURS}.registry"})
"""How operators are found and made by name: it decides nothing that they compute."""


@functools.cache
def operator_sha256(name: str | None) -> str:
    """Hash of the code of an operator: what its class and its helpers compute on this machine.

    It covers the modules of the class and its bases, and the closure of what these import from
    `bench.operators` or from the operator's own package. Words and layout don't count: docstrings
    and comments are left out. Kernels that only a GPU runs count where there is one.

    Args:
        name: registered name; None for a host that is left as it is.

    Example:
        >>> operator_sha256("acb") == operator_sha256("acb") != operator_sha256("parc")
        True
    """
    if name is None:
        return digest(None)
    return code_digest(closure(_homes(name)))


def code_of(cell: Cell) -> str:
    """Return the hash of the code of a cell's operator."""
    return operator_sha256(cell.backbone.get("operator"))


def _homes(name: str) -> set[str]:
    """Return the modules of an operator's class and of its bases.

    Those of ours stand in what its own module imports, but for `Operator` itself.
    """
    if name in operator_sources.ours():
        return {operator_sources.ours()[name].module, f"{OURS}.base"}
    from bench import operators

    classes = operators.get(name).__mro__
    return {cls.__module__ for cls in classes if issubclass(cls, operators.Operator)}


def closure(start: Iterable[str]) -> dict[str, Path]:
    """Return module → file of some modules and of all that they import of their own packages."""
    roots = {OURS, *(_package(module) for module in start)}
    never_run = set() if has_gpu() else {GPU}

    def own(name: str) -> bool:
        return _within(name, roots) and not _within(name, never_run) and name not in NO_MATHS

    places = {module: file_of(module) for module in start if module not in NO_MATHS}
    return code_closure({module: path for module, path in places.items() if path}, own)


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _package(module: str) -> str:
    return OURS if module.startswith(f"{OURS}.") else module.partition(".")[0]


@functools.cache
def all_sha256() -> str:
    """Hash of all our code: what two machines must have alike to share a board's work."""
    folders = [Path(bench.__file__).parent, Path(bench.__file__).parents[1] / "tasks"]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    names = [path.relative_to(folders[0].parent).as_posix() for path in files]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digest(dict(zip(names, contents, strict=True)))
