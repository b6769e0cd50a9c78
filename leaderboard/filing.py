"""Records filed for publication: checked one by one, then each put where people look for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.errors import UserError
from bench.places import without_places
from bench.record import Record
from bench.whole_files import copy_whole
from leaderboard.names import slug


@dataclass(frozen=True)
class Filed:
    """What was filed, and what was there already, as names of files in the folder of results."""

    new: tuple[str, ...]
    known: tuple[str, ...]


def home(record: Record) -> PurePosixPath:
    """Return the folder of a record among the results: board, machine and date.

    It is for people, who look for results by their folders; boards are made of what stands in
    the records.
    """
    entry, data, speed, machine = record.entry, record.data, record.speed, record.machine
    if data is not None or speed is None:
        board = [entry.task, data.name if data else "", entry.host]
    else:  # of a network, whatever its data
        board = [speed.scope, entry.host, "x".join(map(str, speed.input_size))]
    where = [machine.gpu or machine.cpu, "" if machine.gpu else f"{machine.cores} cores"]
    parts = (slug(" ".join(filter(None, words)), 80) for words in (board, where))
    return PurePosixPath(*parts, record.provenance.created[:10])


def fault(record: Record, file: str) -> str | None:
    """Return what keeps a record from being published, in words; None if nothing does."""
    if not file.startswith(f"{record.kind}-{record.identity[:16]}-"):
        return "its name is not that of its content"
    if record.provenance.git_dirty:
        return (
            f"it was made by code that no commit holds (commit {record.provenance.git_commit} and "
            "changes), so nobody can make it again; commit them, and run it again"
        )
    plain = record.model_dump(mode="json")
    if without_places(plain) != plain:
        return "it names a folder from the root, a user or a host"
    return None


def records_in(paths: Sequence[Path]) -> dict[Path, Record]:
    """Read and check records, given by their files or by folders that hold them.

    Raises:
        UserError: a path is not there or holds none, or a record cannot be published; it says which
            and why, for all that are wrong.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise UserError(f"`records` (={str(path)!r}) must be a record, or a folder with some.")
        files += found
    records: dict[Path, Record] = {}
    faults = []
    for file in dict.fromkeys(files):
        if file.is_symlink():
            faults.append(f"{file.name}: it is a link to another file.")
            continue
        try:
            record = Record.load(file)
        except (UserError, UnicodeDecodeError) as error:
            faults.append(str(error))
            continue
        wrong = fault(record, file.name) or _fault_beside(record, file)
        if wrong:
            faults.append(f"{file.name}: {wrong}.")
        records[file] = record
    if faults:
        raise UserError("nothing is filed. " + "\n".join(faults))
    return records


def _fault_beside(record: Record, file: Path) -> str | None:
    for name, sha256 in record.beside.items():
        other = file.with_name(name)
        if other.is_file() and hashlib.sha256(other.read_bytes()).hexdigest() != sha256:
            return f"{name} beside it is not what it says: other hash"
    return None


def put(records: Mapping[Path, Record], into: Path) -> Filed:
    """Copy records, with the files beside them that are there, to their homes below `into`.

    Nothing is overwritten.

    Raises:
        UserError: there is no such folder, or another file has the name of one of them.
    """
    if not into.is_dir():
        raise UserError(
            f"`--into` (={str(into)!r}) must be a folder: run it in a checkout of ConvBoard."
        )
    copies: dict[Path, Path] = {}
    """Where a file belongs → the file that is or will be there."""
    new: set[Path] = set()
    known: set[Path] = set()
    for file, record in records.items():
        target = into / home(record) / file.name
        (known if target.exists() else new).add(target)
        for name in (*record.beside, file.name):
            given, place = file.with_name(name), target.with_name(name)
            if not given.is_file():
                continue
            there = copies.setdefault(place, place if place.exists() else given)
            if there != given and there.read_bytes() != given.read_bytes():
                kind = "record" if name == file.name else "file"
                raise UserError(
                    f"{name}: another {kind} of this name is filed, or is to be; nothing is."
                )
    for place, given in copies.items():
        if given != place:
            copy_whole(given, place)
    return Filed(_names(into, new), _names(into, known))


def _names(into: Path, files: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted(file.relative_to(into).as_posix() for file in files))
