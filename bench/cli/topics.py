"""What `convboard explain` tells of: the keys of a suite, operators, and the classes of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

CLASSES = (
    "Classification",
    "ClassificationData",
    "Detection",
    "DetectionData",
    "Segmentation",
    "SegmentationData",
)


@dataclass(frozen=True)
class Topic:
    """Something that can be explained: a line, and a page that is made when it is asked for."""

    summary: str
    text: Callable[[], str]


def topics() -> dict[str, Topic]:
    """Return every topic by the word that a user types.

    Example:
        >>> {"suite", "board", "speed", "operator", "parc", "DetectionData"} <= set(topics())
        True
    """
    import tasks
    from bench import operators
    from bench.config import schema
    from tasks.base import TaskModule
    from tasks.data.module import TaskData
    from tasks.sparsity import ShiftSparsity

    keys: dict[str, tuple[type[BaseModel], str]] = {
        "suite": (schema.Suite, "suites"),
        "board": (schema.BoardConfig, "boards"),
        "operator": (schema.OperatorConfig, "operators"),
        "host": (schema.HostConfig, "hosts"),
        "speed": (schema.SpeedConfig, "speed"),
        "tune": (schema.SearchSpace, "tune"),
    }
    found = {
        word: Topic(first_line(model), lambda m=model, k=kind: _model(m, k))  # type: ignore[misc]
        for word, (model, kind) in keys.items()
    }
    for name in operators.names():
        operator = operators.get(name)
        found[name] = Topic(first_line(operator), lambda n=name: _operator(n))  # type: ignore[misc]
    classes = {name: getattr(tasks, name) for name in CLASSES}
    for cls in (*classes.values(), TaskModule, TaskData, ShiftSparsity):
        found[cls.__name__] = Topic(first_line(cls), lambda c=cls: _class(c))  # type: ignore[misc]
    return found


def first_line(thing: object) -> str:
    """Return the first line of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


def _model(model: type[BaseModel], kind: str) -> str:
    """Return the page of one mapping of a suite's YAML: its keys, and a shipped example."""
    lines = [inspect.getdoc(model) or "", "", "Keys:"]
    for name, field in model.model_fields.items():
        default = "" if field.is_required() else f", default {_default(field)}"
        lines.append(f"  {name}: {_type(field.annotation)}{default}")
        if field.description:
            lines.append(f"      {field.description}")
    return "\n".join([*lines, "", "Example:", _indented(_example(kind))])


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    value = value.model_dump() if isinstance(value, BaseModel) else value
    if value is PydanticUndefined:
        return "none"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n...\n").strip()


def _type(annotation: Any) -> str:
    """Return a type as words; models are named by the topic that explains them."""
    if isinstance(annotation, type) and not get_args(annotation):
        known = {
            "BoardConfig": "a board",
            "OperatorConfig": "an operator",
            "HostConfig": "a host",
            "SpeedConfig": "a speed plan",
            "SearchSpace": "a space",
            "NoneType": "null",
        }
        return known.get(annotation.__name__, annotation.__name__)
    parts = [_type(part) for part in get_args(annotation) if _is_type(part)]
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return f"list of {parts[0]}"
    if origin is dict:
        return f"mapping {parts[0]} → {parts[1]}"
    if str(annotation).startswith("typing.Literal"):
        return " | ".join(map(repr, get_args(annotation)))
    if str(annotation).startswith("typing.Annotated"):
        return parts[0]
    return " | ".join(parts) if parts else str(annotation).removeprefix("typing.").lower()


def _is_type(part: Any) -> bool:
    return isinstance(part, type) or hasattr(part, "__origin__") or "typing." in repr(part)


def _example(kind: str) -> Any:
    from bench.config import files

    quick = files.read(files.find("suites", "quick"))
    if kind == "suites":
        return {**quick, "boards": quick["boards"][:1]}
    if kind == "boards":
        return quick["boards"][0]
    if kind == "speed":
        return {"speed": quick["speed"]}
    name = {"operators": "shift", "hosts": "fine_convnext", "tune": "shift"}[kind]
    whole = files.read(files.find("hosts" if kind == "hosts" else "operators", name))
    return {"tune": whole["tune"]} if kind == "tune" else whole


def _indented(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def _operator(name: str) -> str:
    """Return the page of an operator: what it computes, and its options."""
    from bench import operators

    cls = operators.get(name)
    lines = [f"{name}: {inspect.getdoc(cls) or ''}", "", "Options:"]
    options = operators.options(name)
    lines += [f"  {parameter}" for parameter in options.values()] or ["  none"]
    example = {
        "operators": [{"label": f"my_{name}", "operator": name, "options": _defaults(options)}]
    }
    return "\n".join([*lines, "", "In a board:", _indented(example)])


def _defaults(options: dict[str, inspect.Parameter]) -> dict[str, Any]:
    plain = (int, float, str, bool, type(None))
    return {k: p.default for k, p in options.items() if isinstance(p.default, plain)}


def _class(cls: type) -> str:
    """Return the page of a class: its words, and its arguments with types and defaults."""
    lines = [f"{cls.__name__}: {inspect.getdoc(cls) or ''}", "", "Signature:"]
    for parameter in list(inspect.signature(cls).parameters.values()):
        lines.append(f"  {parameter}")
    return "\n".join(lines)
