"""The store of a folder: SQLite and artifacts, wherever it lies and whatever it is called."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

from bench import locks
from bench.errors import UserError
from bench.hashing import digest
from bench.store.errors import StoreError
from bench.store.kept import STUDIES

DATABASE = "mlflow.db"
STUDIES_DATABASE = "optuna.db"
ARTIFACTS = "artifacts"
UNSAFE = "?%"
"""Characters of a path that MLflow's own handling of database addresses loses."""

_OPENED: set[str] = set()
"""Stores of folders that this process has opened: MLflow leaves the last one in the environment,
where it would pass for the server that a user has named."""


def opened(address: str) -> None:
    """Remember that this process has opened a store."""
    _OPENED.add(address)


def server() -> str | None:
    """Return the address of the server that the user has named in place of a folder's own store."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return None if named in _OPENED and str(named).startswith("sqlite:") else named


def existing_folder(folder: Path) -> Path:
    """Return the runs folder, made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"`--runs` (={folder.name!r}) must be a folder; it is a file.") from None
    except OSError as error:
        raise StoreError(f"the folder {folder.name}/ cannot be made: {error.strerror}.") from None
    return folder


def address(folder: Path, database: str = DATABASE) -> str:
    """Return the address of a database in a folder, by default of the runs' own."""
    return f"sqlite:///{_plain(folder) / database}"


def studies(folder: Path) -> str:
    """Return the address of Optuna's database: $CONVBOARD_STUDIES, or in the runs folder."""
    return os.environ.get(STUDIES) or address(folder, STUDIES_DATABASE)


def _plain(folder: Path) -> Path:
    """Return a path to the folder without the characters that MLflow loses: a link, if need be."""
    if not any(character in str(folder) for character in UNSAFE):
        return folder
    link = Path(tempfile.gettempdir()) / f"convboard-{digest(str(folder))[:16]}"
    with suppress(FileExistsError):
        link.symlink_to(folder, target_is_directory=True)
    if link.is_symlink() and link.readlink() == folder and link.lstat().st_uid == os.getuid():
        return link
    link = Path(tempfile.mkdtemp(prefix="convboard-")) / "runs"
    link.symlink_to(folder, target_is_directory=True)
    return link


def location(folder: Path, experiment: str) -> str:
    """Return where the artifacts of an experiment lie."""
    return (folder / ARTIFACTS / experiment).as_uri()


def opening(folder: Path) -> Any:
    """Return a lock under which the database is made: two first runs must not race to make it.

    Raises:
        StoreError: there is none yet, and the folder can only be read.
    """
    if not can_be_written(folder):
        if not (folder / DATABASE).exists():
            require_writable(folder)
        return nullcontext()
    return locks.lock(folder / locks.FOLDER / "store.lock", wait_s=300)


def can_be_written(folder: Path) -> bool:
    """Say whether runs can be kept in a folder: rights and mounts may forbid it."""
    return all(os.access(path, os.W_OK) for path in (folder, folder / DATABASE) if path.exists())


def require_writable(folder: Path) -> None:
    """Refuse a folder that can only be read.

    Raises:
        StoreError: it is one.
    """
    if not can_be_written(folder):
        raise StoreError(
            f"the folder {folder.name}/ can only be read, and what is run would be kept there; "
            "--runs chooses another."
        )


def relocate(folder: Path) -> None:
    """Let the artifacts' locations follow a folder that was moved since they were written."""
    database = folder / DATABASE
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            _relocate(folder, connection)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) and "readonly" not in str(error):
            raise StoreError(f"the store {folder.name}/ is of no use: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"the store {folder.name}/ is of no use: its {DATABASE} is no database that can be "
            f"read ({error})."
        ) from error


def _relocate(folder: Path, connection: sqlite3.Connection) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not {"experiments", "runs"} <= tables:
        return
    rows = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments")
    for experiment_id, name, before in rows.fetchall():
        after = location(folder, name)
        if before == after or not str(before).endswith(f"/{ARTIFACTS}/{Path(after).name}"):
            continue
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (after, experiment_id),
        )
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (after, len(before) + 1, experiment_id, len(before), before),
        )
