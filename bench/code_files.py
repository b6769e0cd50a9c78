"""Which files a piece of code is: its own, and what they import of its own. Nothing is run."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from bench.hashing import digest


def closure(
    start: Mapping[str, Path], own: Callable[[str], bool], folder: Path | None = None
) -> dict[str, Path]:
    """Return module → file of some modules, and of all that they import that is own.

    Args:
        start: module → file.
        own: whether a name that is imported, of a module or in one, is own.
        folder: where top-level modules are looked for too, behind the usual places.
    """
    files, waiting = dict[str, Path](), dict(start)
    while waiting:
        module, path = waiting.popitem()
        files[module] = path
        for name in set(_imported(module, path)) - files.keys():
            if own(name) and (place := file_of(name, folder)):
                waiting[name] = place
    return dict(sorted(files.items()))


def file_of(module: str, folder: Path | None = None) -> Path | None:
    """Return a module's file; None where there is none. No package is imported on the way to it.

    Example:
        >>> file_of("bench.operators.acb").name, file_of("bench.operators.acb.ACB")
        ('acb.py', None)
    """
    top, *rest = module.split(".")
    spec, name = spec_of(top, folder), top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return Path(spec.origin)


def spec_of(top: str, folder: Path | None = None) -> ModuleSpec | None:
    """Return where a top-level module lies: in the usual places, or in `folder`."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):  # e.g. what was put among the modules by hand
        spec = None
    if spec is None and folder is not None:
        spec = PathFinder.find_spec(top, [str(folder)])
    return spec


def code_digest(files: Mapping[str, Path]) -> str:
    """Return the hash of code. Docstrings, comments and layout don't count."""
    return digest({module: _code(path) for module, path in files.items()})


def _imported(module: str, path: Path) -> Iterator[str]:
    """Yield the names of what a module imports; `from a import b` may mean the module a.b."""
    if path.suffix != ".py":
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _imports(path.read_bytes()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.lru_cache(maxsize=256)
def _imports(source: bytes) -> list[ast.Import | ast.ImportFrom]:
    """Return the statements of a file that import; operators share most of their files."""
    tree = ast.walk(ast.parse(source))
    return [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]


def _code(path: Path) -> str:
    """Return the code of a file, without docstrings, comments and layout; else its hash."""
    content = path.read_bytes()
    return _plain(content) if path.suffix == ".py" else hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=256)
def _plain(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return inspect.cleandoc(ast.unparse(tree))
