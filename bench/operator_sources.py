"""Operators by their source: which there are, where, in what words. No class is imported.

Planning, listing and hashing need no more of an operator, and importing one means importing torch,
which takes seconds. `bench.operators` has the classes.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from bench.errors import UserError
from bench.local import PLUGINS

ENTRY_POINTS = "convboard.operators"
_FOLDER = Path(__file__).parent / "operators"


@dataclass(frozen=True)
class Source:
    """Where an operator of ours is written, and the first line of its docstring."""

    module: str
    summary: str


@cache
def ours() -> dict[str, Source]:
    """Return the operators of the folder `bench/operators`, by name.

    Example:
        >>> ours()["acb"].module
        'bench.operators.acb'
    """
    return {name: source for path in sorted(_FOLDER.glob("*.py")) for name, source in _in(path)}


def _in(path: Path) -> Iterator[tuple[str, Source]]:
    text = path.read_text(encoding="utf-8")
    if "@register(" not in text:
        return
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "register":
                name = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
                if not isinstance(name, str):
                    raise UserError(f"`register` in {path.name} must be given its name as a text.")
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                yield name, Source(f"bench.operators.{path.stem}", summary)


@cache
def names() -> list[str]:
    """Return the names of all operators, other packages' and the user's files' included, sorted.

    Raises:
        UserError: an entry point has the name of one of ours.

    Example:
        >>> {"acb", "conv", "dwconv", "icconv", "parc", "shift", "unireplk"} <= set(names())
        True
    """
    others = {entry.name for entry in entry_points(group=ENTRY_POINTS)}
    if others & ours().keys() or os.environ.get(PLUGINS):
        from bench import operators

        return operators.names()  # it says which is taken by which, and runs the user's files
    return sorted(ours().keys() | others)
