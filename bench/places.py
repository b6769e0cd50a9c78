"""Names of folders, users and hosts are left out of what is published: in one place."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_PATH = re.compile(r"""(?<![\w.:/<\\])(?:[A-Za-z]:)?[/\\](?:[^/\\\s'"`,;:()\[\]{}<>|]+[/\\])+""")
"""A path from the root, up to its last part, which stays: it says which file was meant."""
_URL_HOST = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?!/)[^/\s'\"]+")


def without_places(value: Any) -> Any:
    """Return a JSON value whose texts name no folder from the root, no user and no host.

    Of a path from the root its last part stays, of an address what comes behind the host.

    Example:
        >>> without_places({"error": "no file '/home/me/sets/a b.json' at http://me:pw@host:1/x"})
        {'error': "no file '…/a b.json' at http://…/x"}
        >>> without_places(["/sets/coco", "a/b.png", "1/2"])
        ['…/coco', 'a/b.png', '1/2']
    """
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, dict):
        return {_plain(str(key)): without_places(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(inner) for inner in value]
    return value


def _plain(text: str) -> str:
    if "/" not in text and "\\" not in text and not _names().search(text):
        return text
    text = _URL_HOST.sub(r"\1…", text)
    for folder in _folders():
        text = text.replace(f"{folder}/", "…/")
    text = _PATH.sub("…/", text)
    return _names().sub("…", text)


def _folders() -> list[str]:
    """Return the folders of this process, longest first: their names may hold blanks."""
    variables = ("CONVBOARD_RUNS", "CONVBOARD_DATA", "CONVBOARD_CACHE", "HOME", "TMPDIR")
    folders = {str(Path(os.environ[name]).absolute()) for name in variables if os.environ.get(name)}
    folders |= {str(Path.cwd()), sys.prefix, tempfile.gettempdir()}
    return sorted((folder for folder in folders if folder.strip("/")), key=len, reverse=True)


@cache
def _names() -> re.Pattern[str]:
    """Match the names of this user and this host, where they are words that mean nothing else."""
    names = {platform.node(), platform.node().split(".")[0]}
    with suppress(OSError, KeyError):  # no such user
        names.add(getpass.getuser())
    usual = {"", "root", "user", "admin", "localhost", "runner", "ubuntu", "docker", "main", "test"}
    words = sorted((re.escape(name) for name in names - usual if len(name) > 3), key=len)
    return re.compile(rf"\b(?:{'|'.join(reversed(words))})\b" if words else r"(?!)")
