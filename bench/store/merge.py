"""Results of several machines in one folder of records: nothing lost, nothing twice, none mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.errors import UserError
from bench.record import Machine, Record
from bench.store.embedded import DATABASE, existing_folder, server
from bench.store.export import copy_record, export
from bench.store.mlflow_store import Store


@dataclass(frozen=True)
class Merged:
    """What a merge brought together, and what it left out."""

    new: list[Path] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    """Records that were there already, from another folder or an earlier merge."""
    faults: list[str] = field(default_factory=list)
    """One line for each record that was left out, or could not be read where all are brought
    together: which, and why."""
    machines: set[Machine] = field(default_factory=set)
    """Where what is new or was there was measured."""


def merge(sources: Sequence[Path], folder: Path) -> Merged:
    """Copy the records of several folders into one, with the files that lie beside them.

    Two files are one result if all that they say is the same, machine and time of making included,
    whatever they are called: it is kept once, under its own name. Whatever differs in anything is
    another result, and nothing is overwritten. A record that can't be read, or with a file beside
    it that was changed, is left out and told, and so is any other .json of `folder`; the rest goes
    on. A file beside one that one folder lacks comes from another that has it.

    Args:
        sources: folders of runs, whose stores are exported, or of exported records.
        folder: of the records, made where it is not there.

    Raises:
        UserError: one of the sources is neither; nothing is copied then.
        StoreError: a store cannot be used, or the folder cannot be made.
    """
    for source in sources:
        _require_results(source)
    merged = Merged()
    existing_folder(folder)
    there: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            there[Record.load(path).filename] = path
        except (OSError, ValueError) as error:
            merged.faults.append(f"{folder.name}/{path.name}: {error}")
    for source in sources:
        with _records(source, merged) as paths:
            for path in paths:
                try:
                    record = Record.load(path)
                    known = there.get(record.filename)
                    target = known or folder / _name(record, path, folder)
                    copy_record(record, path, target)
                except (OSError, ValueError) as error:
                    merged.faults.append(f"{source.name}/{path.name}: {error}")
                else:
                    there[record.filename] = target
                    (merged.known if known else merged.new).append(target)
                    merged.machines.add(record.machine)
    return merged


def _name(record: Record, path: Path, folder: Path) -> str:
    """Return what a record is called: as it is, if that is a record's name and nobody else's.

    The hash in it may be of an older schema, of fewer fields.
    """
    is_own = path.name.startswith(f"{record.kind}-{record.identity[:16]}-")
    return path.name if is_own and not (folder / path.name).exists() else record.filename


def _require_results(source: Path) -> None:
    is_runs = (source / DATABASE).is_file()
    if not (source.is_dir() and (is_runs or any(source.rglob("*.json")))):
        raise UserError(
            f"`runs` (={source.name!r}) must be a folder of runs (with {DATABASE} in it) or of "
            "records (with *.json), as `convboard run` and `convboard export` write them."
        )
    if is_runs and server() is not None:
        raise UserError(
            f"`runs` (={source.name!r}) is a folder's own store, and MLFLOW_TRACKING_URI names a "
            "server in place of it: unset it, or export the server's records and merge these."
        )


@contextmanager
def _records(source: Path, merged: Merged) -> Iterator[list[Path]]:
    """Give the files of a source's records; a store is exported for that, to a scratch folder.

    Records that were exported from a store may be all that is left of some runs, so those in its
    folder `records` count too.
    """
    if not (source / DATABASE).is_file():
        yield sorted(source.rglob("*.json"))
        return
    with TemporaryDirectory() as scratch:
        exported = export(Store(source), Path(scratch))
        merged.faults.extend(f"{source.name}: {fault}" for fault in exported.faults)
        names = {path.name for path in exported.records}
        earlier = (source / "records").rglob("*.json")
        yield sorted([*exported.records, *(path for path in earlier if path.name not in names)])
