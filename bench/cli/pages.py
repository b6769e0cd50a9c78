"""Pages of words, 80 columns wide, out of docstrings, signatures and the schema of a suite."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.cli import type_words

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

WIDTH = 80
_SECTION = re.compile(r"^(Args|Attributes|Class attributes|Raises|Returns|Yields|Example):$")


@dataclass(frozen=True)
class Entry:
    """One key or argument: what may stand there, what stands there if nothing does, and why."""

    name: str
    kind: str = ""
    default: str = ""
    meaning: str = ""
    examples: Sequence[Any] = ()

    def lines(self) -> Iterator[str]:
        """The entry's lines on its page."""
        facts = "; ".join(fact for fact in (self.kind, self.default) if fact)
        head = f"{self.name}: {facts}" if facts else self.name
        yield from _wrap(head, "  ", "    ")
        indent = " " * 6
        for paragraph in filter(None, self.meaning.split("\n\n")):
            yield from _wrap(paragraph, indent, indent)
        for example in self.examples:
            yield from textwrap.indent(yaml_text({self.name: example}), indent).splitlines()


def _wrap(text: str, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
    )


def page(summary: str, *sections: tuple[str, Sequence[str]]) -> str:
    """Join a summary and sections with their headings; sections without lines are left out."""
    blocks = ["\n".join(_wrap(summary))]
    blocks += [
        "\n".join([heading, *lines] if heading else lines) for heading, lines in sections if lines
    ]
    return "\n\n".join(blocks)


def items(texts: Sequence[str]) -> list[str]:
    """The lines of several short texts, indented; those without words are left out."""
    return [line for text in texts if text for line in _wrap(text, "  ", "    ")]


def entries(listed: Sequence[Entry]) -> list[str]:
    """The lines of several entries."""
    return [line for entry in listed for line in entry.lines()]


def yaml_text(value: Any) -> str:
    """Return data as YAML no wider than a page, short lists and mappings on one line.

    Example:
        >>> print(yaml_text({"seeds": [0, 1], "set": {"trainer": {"max_epochs": 3}}}), end="")
        seeds: [0, 1]
        set:
          trainer: {max_epochs: 3}
    """
    import yaml

    items = [{key: item} for key, item in value.items()] if isinstance(value, dict) else [value]
    return "".join(
        yaml.safe_dump(
            item,
            sort_keys=False,
            allow_unicode=True,
            # On one line whatever holds plain values only, but not the item as a whole.
            default_flow_style=None if _nested(item) else False,
            width=WIDTH - 24,  # PyYAML breaks behind the word that passes it
        )
        for item in items
    )


def _nested(item: Any) -> bool:
    return isinstance(item, dict) and any(isinstance(v, dict | list) and v for v in item.values())


def indented(value: Any) -> list[str]:
    """The lines of data as an example on a page."""
    return textwrap.indent(yaml_text(value), "  ").splitlines()


@dataclass(frozen=True)
class Words:
    """A docstring of Google's form, taken apart.

    Attributes:
        summary: its first line.
        body: the paragraphs behind it, each as its lines.
        arguments: name → meaning, of `Args`.
    """

    summary: str
    body: list[str]
    arguments: dict[str, str]


def words_of(thing: object) -> Words:
    """Take the docstring of a class or function apart.

    Example:
        >>> words_of(words_of).summary
        'Take the docstring of a class or function apart.'
    """
    sections: dict[str, list[str]] = {"": []}
    title = ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        heading = _SECTION.match(line)
        if heading:
            title = heading[1]
        sections.setdefault(title, []).append("" if heading else line)
    summary, *rest = sections[""] or [""]
    documented = [*sections.get("Args", []), *sections.get("Attributes", [])]
    return Words(summary, wrapped("\n".join(rest)), arguments("\n".join(documented)))


def wrapped(text: str) -> list[str]:
    """Wrap paragraphs to the page; indented blocks, such as formulas, keep their lines."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if lines:
            lines.append("")
        if paragraph.startswith(" "):
            lines += textwrap.indent(textwrap.dedent(paragraph), "  ").splitlines()
        else:
            for item in re.split(r"\n(?=- )", paragraph):
                indent = "  " if item.startswith("- ") else ""
                lines += _wrap(item, others=indent)
    return lines


def arguments(text: str) -> dict[str, str]:
    r"""Read `name: meaning` with the lines indented below it, as `Args` has them.

    Example:
        >>> arguments("  a: one,\n    two.\n  b: three.")
        {'a': 'one, two.', 'b': 'three.'}
    """
    meanings: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(text).splitlines():
        start = re.match(r"\*{0,2}(\w+): (.*)", line)
        if start:
            name = start[1]
            meanings[name] = start[2]
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    return meanings


def of_model(model: type[BaseModel], names: Mapping[type, str]) -> list[Entry]:
    """The keys of one mapping of a suite's YAML, out of its schema."""
    return [_of_field(name, field, names) for name, field in model.model_fields.items()]


def _of_field(name: str, field: FieldInfo, names: Mapping[type, str]) -> Entry:
    kind = type_words.words(field.annotation, names)
    limits = type_words.bounds(field.metadata)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if "default" in extra:  # filled in by who reads the file
        default = f"default: {extra['default']}"
    elif field.is_required():
        default = "required"
    else:
        default = f"default {_default(field.get_default(call_default_factory=True))}"
    return Entry(
        name,
        f"{kind}, {limits}" if limits else kind,
        default,
        field.description or "",
        field.examples or (),
    )


def _default(value: Any) -> str:
    """A default as YAML; functions and classes by their names."""
    import yaml

    if hasattr(value, "model_dump"):
        return "as its own keys say"
    try:
        text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    except yaml.representer.RepresenterError:
        return getattr(value, "__name__", repr(value))
    return text.removesuffix("...\n").strip()


def of_signature(function: Callable[..., Any], skip: Sequence[str] = ()) -> list[Entry]:
    """The arguments of a class or function: types and defaults as written, meanings as documented.

    What a class hands on as `**kwargs` to its base is listed behind its own.
    """
    listed: dict[str, Entry] = {}
    for owner, target in _constructors(function):
        hints, meanings = type_words.hints(target), words_of(owner).arguments
        parameters = inspect.signature(target).parameters.values()
        for parameter in parameters:
            name = parameter.name
            if name in ("self", *skip, *listed) or parameter.kind in _GATHERING:
                continue
            required = parameter.default is parameter.empty
            listed[name] = Entry(
                name,
                type_words.words(hints.get(name, Any)),
                "required" if required else f"default {_default(parameter.default)}",
                meanings.get(name, ""),
            )
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return list(listed.values())


_GATHERING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _constructors(thing: Callable[..., Any]) -> Iterator[tuple[object, Callable[..., Any]]]:
    """What is called, with whose docstring tells of its arguments: a class's, then its bases'."""
    if not inspect.isclass(thing):
        yield thing, thing
        return
    for cls in inspect.getmro(thing):
        if cls is not object and "__init__" in vars(cls):
            yield cls, vars(cls)["__init__"]
