"""Records leave the store as files, with what lies beside them, whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.hashing import file_sha256
from bench.record import Record
from bench.store.errors import StoreError
from bench.store.kept import DONE
from bench.store.mlflow_store import Store
from bench.whole_files import copy_whole


@dataclass(frozen=True)
class Exported:
    """What an export wrote, found written, and left out."""

    records: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """One line for each record that was left out, or for all of an experiment: which, and why."""


def export(store: Store, folder: Path, experiment: str | None = None) -> Exported:
    """Write the records of all ended runs into `folder`, their other files beside them.

    Nothing is overwritten: a record's file name holds its own hash. A record is written when the
    files beside it are there with the hashes that it names, so that half an export is never read.

    Raises:
        StoreError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder {folder.name}/ cannot be made ({error.strerror}); --records chooses "
            "another."
        ) from None
    exported = Exported(faults=store.hidden(experiment))
    for run, _ in store.runs(experiment):
        # a process may have died between the two: that it is done is marked before it is ended
        if run.info.status not in ("FINISHED", "FAILED") and DONE not in run.data.tags:
            continue
        for name in store.files(run.info.run_id, "records"):
            if not name.endswith(".json"):
                continue
            target = folder / Path(name).name
            # runs of older versions have no mark; those that failed since have no score
            mark = run.data.tags.get(DONE, target.name if run.info.status == "FINISHED" else None)
            try:
                if target.exists() or _export(store, run.info.run_id, name, target, mark):
                    exported.records.append(target)
            except (OSError, ValueError) as error:
                exported.faults.append(f"{target.name}: {error}")
    return exported


def _export(store: Store, run_id: str, name: str, target: Path, mark: str | None) -> bool:
    """Export a record; return False for the score of a cell that is not the one marked as done.

    Its process died between the two, and the cell ran or runs again: it would have two scores.
    """
    with TemporaryDirectory() as scratch, store.artifact(run_id, name, Path(scratch)) as path:
        record = Record.load(path)
        if mark != target.name and record.kind == "accuracy" and record.status == "ok":
            return False
        for beside in record.beside:
            with store.artifact(run_id, f"records/{beside}", Path(scratch)) as file:
                _copy_beside(record, file, target)
        copy_whole(path, target)
    shutil.rmtree(target.with_name(".partial"), ignore_errors=True)  # of an older version
    return True


def copy_record(record: Record, path: Path, target: Path) -> None:
    """Copy the file of a record, when those beside it are copied; what is there stays.

    A file beside it that isn't there is not copied: records are published without their outcomes.

    Raises:
        ValueError: a file beside it is not what it says, or another one has its name already.
        OSError: one cannot be written.
    """
    for beside in record.beside:
        if path.with_name(beside).exists():
            _copy_beside(record, path.with_name(beside), target)
    if not target.exists():
        copy_whole(path, target)


def _copy_beside(record: Record, file: Path, target: Path) -> None:
    """Copy one of the files beside a record to where they lie beside `target`."""
    sha256, copied = record.beside[file.name], target.with_name(file.name)
    if file_sha256(file) != sha256:
        raise ValueError(f"{file.name} beside it is not what it says: other hash")
    if not copied.exists():
        copy_whole(file, copied)
    elif file_sha256(copied) != sha256:
        raise ValueError(f"another {file.name} is there already")
