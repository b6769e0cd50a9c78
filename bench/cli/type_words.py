"""Types, defaults and bounds as words that a user of YAML reads."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_PLAIN: dict[Any, str] = {
    Any: "anything",
    None: "null",
    bool: "true or false",
    dict: "mapping",
    float: "number",
    int: "whole number",
    list: "list",
    str: "text",
    type(None): "null",
}


def words(annotation: Any, names: Mapping[type, str] | None = None) -> str:
    """Return a type as words; `names` has those of classes that are called otherwise.

    Example:
        >>> words(list[int]), words(dict[str, float]), words(Literal["cpu", "cuda"] | None)
        ('list of whole numbers', 'mapping of texts to numbers', "'cpu', 'cuda' or null")
        >>> words(tuple[int, int]), words(tuple[float, ...] | int)
        ('pair of whole numbers', 'list of numbers or whole number')
    """
    names = names or {}
    if isinstance(annotation, str):  # a name that is known to type checkers alone
        return annotation.rpartition(".")[2]
    if isinstance(annotation, type) and annotation in names:
        return names[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is None:
        name: str = getattr(annotation, "__name__", repr(annotation))
        return _PLAIN.get(annotation, name)
    if origin is Annotated:
        return words(parts[0], names)
    if origin is Literal:
        return _either([repr(value) for value in parts])
    if origin in (Union, types.UnionType):
        return _either([word for part in parts for word in _alternatives(part, names)])
    if origin is Callable:
        return "function"
    if origin is tuple and Ellipsis not in parts:
        inside = [words(part, names) for part in parts]
        if len(set(inside)) == 1:
            count = {2: "pair", 3: "triple"}.get(len(parts), "list")
            return f"{count} of {_plural(inside[0])}"
        return f"list of {', '.join(inside)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, value = (_plural(words(part, names)) for part in parts)
        return "mapping" if parts[1] is Any else f"mapping of {key} to {value}"
    if isinstance(origin, type) and issubclass(origin, Sequence | Iterable):
        return f"list of {_plural(words(parts[0], names))}"
    return getattr(origin, "__name__", repr(origin))


def _alternatives(part: Any, names: Mapping[type, str]) -> list[str]:
    """The words of one member of a union; those of a literal one by one."""
    if get_origin(part) is Literal:
        return [repr(value) for value in get_args(part)]
    return [words(part, names)]


def _either(alternatives: Sequence[str]) -> str:
    if len(alternatives) == 1:
        return alternatives[0]
    return f"{', '.join(alternatives[:-1])} or {alternatives[-1]}"


def _plural(word: str) -> str:
    """Return the plural of a type that is one noun; of any other the type itself."""
    return word if word == "anything" or re.search(r"['>]| of | or |, ", word) else f"{word}s"


def bounds(metadata: Iterable[Any]) -> str:
    """Return the bounds that pydantic checks, as words; "" without any.

    Example:
        >>> from annotated_types import Ge, MinLen
        >>> bounds([Ge(1)]), bounds([MinLen(1)]), bounds([])
        ('>= 1', 'at least 1', '')
    """
    signs = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}"}
    signs["min_length"] = "at least {}"
    parts = [
        text.format(getattr(bound, name))
        for bound in metadata
        for name, text in signs.items()
        if getattr(bound, name, None) is not None
    ]
    return ", ".join(parts)


def hints(function: Any) -> dict[str, Any]:
    """Return the types of a function's arguments; as written where they cannot be evaluated."""
    try:
        return typing.get_type_hints(function)
    except NameError:  # imported for type checkers only
        return dict(getattr(function, "__annotations__", {}))
