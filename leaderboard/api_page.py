"""The reference of the packages that users import, out of their sources; nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import griffe
from markupsafe import Markup

from bench.hashing import files_digest, hash_files
from leaderboard.guide_page import words

ROOT = Path(__file__).parents[1]
"""Where the packages lie, in a checkout and where they are installed."""
PACKAGES = ("bench.operators", "bench.backbones", "tasks")
WIDTH = 88
"""Characters of a signature's longest line."""


@dataclass(frozen=True)
class Item:
    """A class, function or method.

    Attributes:
        path: full name.
        name: what it is called where it stands.
        signature: how it is called.
        text: its words.
        sections: heading → (name, type, meaning) of arguments, attributes, what is returned and
            raised.
        example: of its use, as the interpreter shows it.
        members: methods.
    """

    path: str
    name: str
    signature: str
    text: Markup
    sections: dict[str, list[tuple[str, str, Markup]]]
    example: str
    members: Sequence[Item] = ()


@dataclass(frozen=True)
class Package:
    """A package: what its docstring says, and what it offers."""

    name: str
    text: Markup
    items: Sequence[Item]


def packages() -> list[Package]:
    """Return the packages with what they export, and the operators behind what makes them.

    Example:
        >>> [item.name for item in packages()[0].items][:3]
        ['ConvSpec', 'Operator', 'create']
    """
    return [_package(name) for name in PACKAGES]


@cache
def digest_of_sources() -> str:
    """Return a hash of the files that the reference is made of."""
    folders = [ROOT.joinpath(*name.split(".")) for name in PACKAGES]
    paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return files_digest(hash_files(ROOT, paths))


def _package(name: str) -> Package:
    module = _module(name)
    items = [_item(_found(f"{name}.{export}"), str(export)) for export in module.exports or ()]
    if name == "bench.operators":
        made = ((f'create("{name}", …)', cls) for name, cls in _operators())
        items += [replace(_item(cls, call), members=()) for call, cls in made]
    return Package(name, words(module.docstring.value if module.docstring else ""), items)


@cache
def _module(name: str) -> griffe.Module:
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    return griffe.visit(name, path, text, docstring_parser=griffe.Parser.google)


def _found(path: str) -> griffe.Object:
    """Return the class or function of a full name, wherever it is written."""
    module, _, name = path.rpartition(".")
    imported = _module(module).imports.get(name)
    if imported is not None:
        return _found(imported)
    member = _module(module).members[name]
    assert isinstance(member, griffe.Object)
    return member


def _operators() -> Iterator[tuple[str, griffe.Class]]:
    """Yield the operators by their names, sorted."""
    found = {}
    for path in (ROOT / "bench" / "operators").glob("*.py"):
        if "@register(" not in path.read_text(encoding="utf-8"):
            continue
        for member in _module(f"bench.operators.{path.stem}").members.values():
            for decorator in member.decorators if isinstance(member, griffe.Class) else ():
                matched = re.fullmatch(r"register\('(\w+)'\)", str(decorator.value))
                if matched and isinstance(member, griffe.Class):
                    found[matched[1]] = member
    yield from sorted(found.items())


def _item(thing: griffe.Object, name: str) -> Item:
    text, example = "", ""
    sections: dict[str, list[tuple[str, str, Markup]]] = {}
    for section in thing.docstring.parsed if thing.docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            text += section.value
        elif section.kind is griffe.DocstringSectionKind.admonition:
            kind, content = section.value.kind, section.value.contents
            if kind == "example":
                example = content
            else:  # another list of names, as an operator's class attributes
                listed = re.finditer(r"^(\w+): (.*(?:\n +.*)*)", content, re.MULTILINE)
                sections[str(section.title)] = [(m[1], "", words(m[2])) for m in listed]
        else:
            heading = section.kind.value.capitalize()
            sections[heading] = [_row(element) for element in section.value]
    return Item(
        path=thing.path,
        name=name,
        signature=_signature(thing),
        text=words(text),
        sections=sections,
        example=example,
        members=[_item(method, method.name) for method in _methods(thing)],
    )


def _row(element: griffe.DocstringElement) -> tuple[str, str, Markup]:
    name = getattr(element, "name", "") or ""
    kind = str(element.annotation or "")
    return str(name), kind, words(element.description)


def _methods(thing: griffe.Object) -> list[griffe.Object]:
    members = thing.members if isinstance(thing, griffe.Class) else {}
    return [
        member
        for name, member in members.items()
        if isinstance(member, griffe.Function | griffe.Attribute)
        and member.docstring
        and not name.startswith("_")
    ]


def _signature(thing: griffe.Object) -> str:
    """Return how a thing is called, an argument a line where it is long."""
    function = thing.members.get("__init__") if isinstance(thing, griffe.Class) else thing
    if not isinstance(function, griffe.Function):
        return thing.name
    whole = function.signature(name=thing.name, return_type=function is thing)
    whole = re.sub(r"\((?:self|cls)(?:, |(?=\)))", "(", whole, count=1)
    if len(whole) <= WIDTH:
        return whole
    inside, _, result = whole.partition("(")[2].rpartition(")")
    arguments = "".join(f"    {argument},\n" for argument in _apart(inside))
    return f"{thing.name}(\n{arguments}){result}"


def _apart(text: str) -> Iterator[str]:
    """Yield what stands between the commas that no bracket holds.

    Example:
        >>> list(_apart("a: dict[str, int], b=(1, 2)"))
        ['a: dict[str, int]', 'b=(1, 2)']
    """
    depth, start = 0, 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()
