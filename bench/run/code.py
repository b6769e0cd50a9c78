"""Which code an operator is: its class, and all that it imports of our own or of its package."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path

import bench
from bench import operator_sources
from bench.hashing import digest

OURS = "bench.operators"
NO_MATHS = frozenset({OURS, f"{OURS}.registry"})
"""How operators are found and made by name: it decides nothing that they compute."""


@functools.cache
def operator_sha256(name: str | None) -> str:
    """Hash of the code of an operator: what its class and its helpers compute.

    It covers the modules of the class and its bases, and the closure of what these import from
    `bench.operators` or from the operator's own package. Words and layout don't count: docstrings
    and comments are left out.

    Args:
        name: registered name; None for a host that is left as it is.

    Example:
        >>> operator_sha256("acb") == operator_sha256("acb") != operator_sha256("parc")
        True
    """
    if name is None:
        return digest(None)
    modules = closure(_homes(name))
    return digest({module: _code(path) for module, path in modules.items()})


def _homes(name: str) -> set[str]:
    """Return the modules of an operator's class and of its bases.

    Those of ours stand in what its own module imports, but for `Operator` itself.
    """
    if name in operator_sources.ours():
        return {operator_sources.ours()[name].module, f"{OURS}.base"}
    from bench import operators

    classes = operators.get(name).__mro__
    return {cls.__module__ for cls in classes if issubclass(cls, operators.Operator)}


def closure(start: set[str]) -> dict[str, Path]:
    """Return module → file of some modules and of all that they import of their own packages."""
    roots = {OURS, *(_package(module) for module in start)}
    files: dict[str, Path] = {}
    waiting = sorted(start)
    while waiting:
        module = waiting.pop()
        if module in files or module in NO_MATHS:
            continue
        path = _file(module)
        if path is None:
            continue
        files[module] = path
        waiting += [
            name
            for name in _imported(module, path)
            if any(name == root or name.startswith(f"{root}.") for root in roots)
        ]
    return dict(sorted(files.items()))


def _package(module: str) -> str:
    return OURS if module.startswith(f"{OURS}.") else module.partition(".")[0]


def _file(module: str) -> Path | None:
    if module.startswith(f"{OURS}."):  # asking for its place would import the package, and torch
        path = Path(bench.__file__).parent.joinpath(*module.split(".")[1:])
        files = (path.with_suffix(".py"), path / "__init__.py")
        return next((file for file in files if file.is_file()), None)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return Path(spec.origin)


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


@functools.cache
def all_sha256() -> str:
    """Hash of all our code: what two machines must have alike to share a board's work."""
    folders = [Path(bench.__file__).parent, Path(bench.__file__).parents[1] / "tasks"]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    names = [path.relative_to(folders[0].parent).as_posix() for path in files]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digest(dict(zip(names, contents, strict=True)))
