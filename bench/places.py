"""Names of folders, users and hosts are left out of what is published: in one place."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_PATH = re.compile(r"""(?<![\w.:/<\\])(?:…|[A-Za-z]:)?[/\\](?:[^/\\\s'"`,;:()\[\]{}<>|]+[/\\])+""")
"""A path from the root, up to its last part, which stays: it says which file was meant."""
_WHOLE = re.compile(r"(?:[A-Za-z]:)?[/\\][^\n]*")
"""A path from the root that is known to end where the text ends, so that it may hold blanks."""
_QUOTED = re.compile(rf"""(['"`])({_WHOLE.pattern}?)\1""")
_FOLDER = re.compile(r"(?:[A-Za-z]:)?[/\\].*[/\\](?=[^/\\])")
_LEFT_OUT = "…/"
"""What stands for the folders of a path."""
_URL_HOST = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?!/)[^/\s'\"]+")


def without_places(value: Any) -> Any:
    """Return a JSON value whose texts name no folder from the root, no user and no host.

    Of a path from the root its last part stays, of an address what comes behind the host. Inside a
    sentence a blank ends a path, but where it is known as a whole: in quotes, as a text of its own,
    as an argument of the command, and wherever one that is known so is written once more.

    Example:
        >>> without_places({"error": "no file '/home/me/sets/a b.json' at http://me:pw@host:1/x"})
        {'error': "no file '…/a b.json' at http://…/x"}
        >>> without_places(["/sets/coco", "a/b.png", "1/2", "/my sets/a b/c d"])
        ['…/coco', 'a/b.png', '1/2', '…/c d']
        >>> without_places({"root": "/my sets/coco", "error": "no /my sets/coco/a.json there"})
        {'root': '…/coco', 'error': 'no …/a.json there'}
    """
    return _without(value, _known({*_folders(), *_arguments(), *_whole_paths(value)}))


def by_name(value: Any) -> Any:
    """Return a JSON value with names alone in place of the paths whose folders were left out.

    Example:
        >>> by_name({"data": {"root": "…/pets"}, "hosts": ["…/net.py:Net", "resnet18"]})
        {'data': {'root': 'pets'}, 'hosts': ['net.py:Net', 'resnet18']}
    """
    if isinstance(value, str):
        return value.removeprefix(_LEFT_OUT)
    if isinstance(value, dict):
        return {key: by_name(inner) for key, inner in value.items()}
    return [by_name(inner) for inner in value] if isinstance(value, list) else value


def _without(value: Any, known: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return _plain(value, known)
    if isinstance(value, dict):
        return {_plain(str(key), known): _without(inner, known) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(inner, known) for inner in value]
    return value


def _plain(text: str, known: re.Pattern[str]) -> str:
    if "/" not in text and "\\" not in text and not _names().search(text):
        return text
    if _WHOLE.fullmatch(text):
        text = _last_part(text)
    text = _QUOTED.sub(lambda match: f"{match[1]}{_last_part(match[2])}{match[1]}", text)
    text = _URL_HOST.sub(r"\1…", text)
    text = known.sub(_LEFT_OUT, text)
    text = _PATH.sub(_LEFT_OUT, text)
    return _names().sub("…", text)


def _last_part(path: str) -> str:
    return _FOLDER.sub(_LEFT_OUT, path, count=1)


def _known(paths: set[str]) -> re.Pattern[str]:
    """Match these paths and the folders above them, the longest first, with what parts them off."""
    folders = {str(folder) for path in paths for folder in (Path(path), *Path(path).parents)}
    longest = sorted((f for f in folders if f.strip("/\\")), key=lambda f: (-len(f), f))
    return re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, longest))})[/\\]")


def _folders() -> set[str]:
    """Return the folders of this process."""
    variables = ("CONVBOARD_RUNS", "CONVBOARD_DATA", "CONVBOARD_CACHE", "HOME", "TMPDIR")
    folders = {str(Path(os.environ[name]).absolute()) for name in variables if os.environ.get(name)}
    return folders | {str(Path.cwd()), sys.prefix, tempfile.gettempdir()}


def _arguments() -> set[str]:
    """Return the paths from the root among the arguments of the command."""
    values = {argument.partition("=")[2] or argument for argument in sys.argv}
    return {value for value in values if _WHOLE.fullmatch(value)}


def _whole_paths(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value that are paths from the root."""
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _whole_paths(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _whole_paths(inner)


@cache
def _names() -> re.Pattern[str]:
    """Match the names of this user and this host, where they are words that mean nothing else."""
    names = {platform.node(), platform.node().split(".")[0]}
    with suppress(OSError, KeyError):  # no such user
        names.add(getpass.getuser())
    usual = {"", "root", "user", "admin", "localhost", "runner", "ubuntu", "docker", "main", "test"}
    words = sorted((re.escape(name) for name in names - usual if len(name) > 3), key=len)
    return re.compile(rf"\b(?:{'|'.join(reversed(words))})\b" if words else r"(?!)")
