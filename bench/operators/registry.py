"""Operators by name: ours are found in this folder, other people's by entry point or by file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import UserError, near
from bench.local import PLUGINS
from bench.operators.base import ConvSpec, Operator, Size2

ENTRY_POINTS = "convboard.operators"

_classes: dict[str, type[Operator]] = {}
_Class = TypeVar("_Class", bound=type[Operator])


def register(name: str) -> Callable[[_Class], _Class]:
    """Make an operator class available under `name`; the name must be free."""

    def add(cls: _Class) -> _Class:
        registered = _classes.get(name)
        if registered is not None and _path(registered) != _path(cls):
            raise UserError(f"`name` (={name!r}) of {_path(cls)} is taken by {_path(registered)}.")
        cls.name = name
        _classes[name] = cls
        return cls

    return add


def _path(cls: type[Operator]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@cache
def _load() -> dict[str, type[Operator]]:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if "@register(" in path.read_text(encoding="utf-8"):  # others may need more than torch
            importlib.import_module(f"bench.operators.{path.stem}")
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            cls = entry.load()
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"entry point {entry.name!r} ({entry.value}) cannot be imported: {error}."
            ) from error
        if not (inspect.isclass(cls) and issubclass(cls, Operator)):
            raise TypeError(
                f"entry point {entry.name!r} ({entry.value}) must name a subclass of "
                "bench.operators.Operator."
            )
        register(entry.name)(cls)
    for file in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        _load_file(Path(file))
    return _classes


def _load_file(path: Path) -> None:
    """Run a file that registers operators."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"`--plugin` (={str(path)!r}) must be a Python file.")
    name, before = f"convboard_plugin_{path.stem}", set(_classes)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    if set(_classes) == before and not any(c.__module__ == name for c in _classes.values()):
        raise UserError(
            f"`--plugin` (={str(path)!r}) must register an operator: "
            "@register('NAME') from bench.operators."
        )


def names() -> list[str]:
    """Return the names of all operators, sorted.

    Example:
        >>> {"acb", "conv", "dwconv", "icconv", "parc", "shift", "unireplk"} <= set(names())
        True
    """
    return sorted(_load())


def get(name: str) -> type[Operator]:
    """Return the class registered under `name`; ValueError with near matches if there is none."""
    classes = _load()
    if name not in classes:
        raise UserError(f"`name` (={name!r}) is no operator; {near(str(name), classes)}")
    return classes[name]


def options(name: str) -> dict[str, inspect.Parameter]:
    """Return the own options of an operator: the keyword arguments of its class."""
    parameters = list(inspect.signature(get(name)).parameters.values())[1:]
    return {p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD}


def create(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    kernel_size: Size2 = 3,
    stride: Size2 = 1,
    padding: Size2 | None = None,
    dilation: Size2 = 1,
    groups: int | None = None,
    resolution: Size2 | None = None,
    bias: bool = True,
    padding_mode: str = "zeros",
    **options_: Any,
) -> Operator:
    """Make the operator `name` in place of the convolution that the arguments describe.

    Args:
        name: one of `names()`.
        in_channels: Cin.
        out_channels: Cout.
        kernel_size: K or (Kh, Kw).
        stride: one number or (along the height, along the width).
        padding: likewise; None for "same".
        dilation: likewise.
        groups: None for the operator's own: Cin if it is depthwise, else 1.
        resolution: height and width, in pixels, of the map that enters; operators with weights
            as large as the map need it, and resample them for maps of other sizes.
        bias: whether the convolution has a bias.
        padding_mode: as torch.nn.Conv2d's.
        **options_: the operator's own options.

    Returns:
        The operator, in training mode, initialised from torch's global generator.

    Raises:
        ValueError: unknown name or option, or a convolution that the operator cannot replace.

    Example:
        >>> import torch
        >>> op = create("dwconv", in_channels=8, out_channels=8, kernel_size=7)
        >>> op(torch.zeros(1, 8, 14, 20)).shape, op.macs(14, 20), op.params()
        (torch.Size([1, 8, 14, 20]), 109760, 400)
    """
    cls = get(name)
    own_options = options(name)
    for option in options_:
        if option not in own_options:
            raise UserError(
                f"`{option}` (={options_[option]!r}) is no option of {name}; "
                + (near(option, own_options) if own_options else "it has none.")
            )
    spec = ConvSpec.make(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=(in_channels if cls.depthwise else 1) if groups is None else groups,
        resolution=resolution,
        bias=bias,
        padding_mode=padding_mode,
    )
    return cls(spec, **options_)
