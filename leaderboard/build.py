"""Writes the site: static pages from records, the same bytes for the same records."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import UserError
from bench.record import Record
from leaderboard import published
from leaderboard.site import Part, parts

PNG = b"\x89PNG\r\n\x1a\n"
SIGNATURES = {".png": ("PNG", PNG), ".jpg": ("JPEG", b"\xff\xd8\xff")}
"""What a picture is called, and how it begins, by the end of its name."""
MANIFEST = "convboard-site.json"
"""File of the site that lists the others, by which an older build is known, used and cleared."""
NAME = re.compile(r"[a-z]+-[0-9a-f]{16}-[0-9T+]+-[0-9a-f]{8}\.json")
"""What the file of a record may be called in the site."""
STAGE = ".convboard-building"
"""Folder in the site where new files wait until all are there."""


def build(
    records: Path,
    site: Path,
    *,
    title: str = "ConvBoard",
    figures: Path = published.FOLDER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the site of all records below `records` into the folder `site`.

    What an earlier build made of the same records is kept as it is. Pages that are no longer made
    are removed; files that a build did not write are left alone. Until all is made the old site
    stays whole, whatever ends the build.

    Args:
        records: folder of record files (`*.json`), searched in depth.
        site: folder to write; new, empty, or one that was built before.
        title: name of the site.
        figures: folder of published figures (`*.yaml`), shown apart from what was measured.
        progress: told how many steps of how many are done; a step is a record that is read, or a
            part that is made.

    Raises:
        ValueError: `records` is no folder, a record or a figure is not by its schema, or `site`
            holds files and none of them says that it was built before.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "records").mkdir()
        ...     build(Path(folder, "records"), Path(folder, "site"))
        ...     sorted(path.name for path in Path(folder, "site").glob("m*.html"))
        ['machines.html', 'method.html']
    """
    if not records.is_dir():
        raise UserError(f"`records` (={str(records)!r}) must be a folder of record files.")
    others = [path for path in site.iterdir() if path.name != STAGE] if site.is_dir() else []
    if others and not (site / MANIFEST).is_file():
        raise UserError(
            f"`site` (={str(site)!r}) must be a new or empty folder, or one built before; "
            "this one holds other files."
        )
    files = _read(records, progress)
    named: dict[str, _File] = {}
    for file in files:
        named.setdefault(file.name, file)
    new = not site.exists()
    gc.freeze()  # looking through the records again and again would find nothing
    try:
        every = parts(
            {name: file.record for name, file in named.items()},
            title=title,
            figures=published.load(figures),
            pictures=_pictures(files),
            files={name: (file.sha256, file.path.read_bytes) for name, file in named.items()},
        )
        total = len(files) + len(every)
        _write(site, every, lambda done: progress(len(files) + done, total))
    finally:
        gc.unfreeze()
        shutil.rmtree(site / STAGE, ignore_errors=True)
        if new and site.is_dir() and not any(site.iterdir()):
            site.rmdir()


@dataclass(frozen=True)
class _File:
    """A record's file.

    Attributes:
        path: of it.
        record: in it.
        sha256: of it.
        name: of its file in the site, which says what the record is.
    """

    path: Path
    record: Record
    sha256: str
    name: str


def _read(folder: Path, progress: Callable[[int, int], None]) -> list[_File]:
    """Read all records below a folder.

    A file keeps its name where that says what the record is, and no other record has it: to make
    the name anew takes as long as to read the record.
    """
    files: list[_File] = []
    of_name: dict[str, set[str]] = {}
    paths = sorted(folder.rglob("*.json"))
    gc.disable()  # nothing of what is read is ever let go
    try:
        for done, path in enumerate(paths):
            progress(done, 2 * len(paths))
            content = path.read_bytes()
            record, sha256 = Record.read(content, path.name), hashlib.sha256(content).hexdigest()
            says_it = path.name.startswith(f"{record.kind}-{record.identity[:16]}-")
            name = path.name if says_it and NAME.fullmatch(path.name) else record.filename
            of_name.setdefault(name, set()).add(sha256)
            files.append(_File(path, record, sha256, name))
    finally:
        gc.enable()
    return [
        file if len(of_name[file.name]) == 1 else replace(file, name=file.record.filename)
        for file in files
    ]


def _write(site: Path, every: list[Part], progress: Callable[[int], None]) -> None:
    """Make what is new beside the old site, then put it into its place at once."""
    stage = site / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    old, present = _manifest(site), _files(site)
    made: dict[str, dict[str, Any]] = {}

    def read(name: str) -> bytes:
        new = stage / name
        return (new if new.is_file() else site / name).read_bytes()

    for done, part in enumerate(every):
        progress(done)
        before = old.get(part.name)
        if before and before["key"] == part.key and present.issuperset(before["files"]):
            made[part.name] = before
            continue
        files = part.make(read)
        for name, content in files.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        made[part.name] = {"key": part.key, "files": sorted(files)}
    kept = {name for part in made.values() for name in part["files"]} | {MANIFEST}
    new = sorted(path for path in stage.rglob("*") if path.is_file())
    with _uninterrupted():
        # a build that is killed from here on leaves a list by which the next one makes all anew
        _list(site, stage, made | _unsure(old, made))
        for path in new:
            target = site / path.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        for gone in old.values():
            for name in gone["files"]:
                if name not in kept:
                    (site / name).unlink(missing_ok=True)
        _list(site, stage, made)
    progress(len(every))


def _unsure(
    old: Mapping[str, dict[str, Any]], made: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the parts that change, with their old and new files and a key that no part has."""
    unsure = {}
    for name in sorted(old.keys() | made.keys()):
        both = [parts[name] for parts in (old, made) if name in parts]
        if len(both) < 2 or both[0] != both[1]:
            unsure[name] = {"key": "", "files": sorted({f for part in both for f in part["files"]})}
    return unsure


def _list(site: Path, stage: Path, parts: Mapping[str, dict[str, Any]]) -> None:
    """Write the list of the site's files, whole or not at all."""
    # on one line: with indents it is written by slower code, and there may be 20,000 parts
    text = json.dumps({"parts": parts}, sort_keys=True)
    (stage / MANIFEST).write_text(text, encoding="utf-8")
    (stage / MANIFEST).replace(site / MANIFEST)


def _manifest(site: Path) -> dict[str, dict[str, Any]]:
    """Return part → its key and files, of the build before; names that lead elsewhere are not."""
    if not (site / MANIFEST).is_file():
        return {}
    content = json.loads((site / MANIFEST).read_text(encoding="utf-8"))
    listed = content.get("parts") or {"": {"key": "", "files": content.get("files", [])}}
    return {
        part: {"key": of["key"], "files": [name for name in of["files"] if _inside(name)]}
        for part, of in listed.items()
    }


def _inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _files(folder: Path) -> set[str]:
    """Return the names of all files below a folder, by one look at each of its folders."""
    names: set[str] = set()
    for below, _, files in os.walk(folder):
        place = Path(below).relative_to(folder).as_posix()
        names.update(files if place == "." else (f"{place}/{name}" for name in files))
    return names


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def _pictures(files: Iterable[_File]) -> dict[str, bytes]:
    """Read the pictures beside the records; one that is not what its record says stops the build.

    A picture comes from whoever made the record, and is published: its hash and its signature are
    checked, and its name cannot lead out of the folder (see `bench.record.Picture`).
    """
    contents: dict[str, bytes] = {}
    for path, view in ((file.path, file.record.view) for file in files):
        for picture in view.pictures if view else ():
            file = path.with_name(picture.file)
            if not file.is_file():
                continue
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != picture.sha256:
                raise UserError(f"{picture.file} is not the picture of {path.name}: other hash.")
            kind, signature = SIGNATURES[file.suffix]
            if not content.startswith(signature):
                raise UserError(f"{picture.file} of {path.name} is no {kind} file.")
            if contents.setdefault(picture.file, content) != content:
                raise UserError(f"{picture.file} of {path.name}: another picture has this name.")
    return contents
