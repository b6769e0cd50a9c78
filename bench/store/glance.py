"""Cells and their files, read from a folder itself: importing MLflow takes seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.store import embedded
from bench.store.kept import CELL, DONE, Kept, counting
from bench.store.patience import Patient
from bench.store.reader import Reader

if TYPE_CHECKING:
    from bench.store.mlflow_store import Store

_RUNS = """
SELECT run_uuid, experiments.name, status, start_time FROM runs JOIN experiments
ON runs.experiment_id = experiments.experiment_id
WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
"""
_TAGS = "SELECT run_uuid, key, value FROM tags"
_METRICS = "SELECT run_uuid, key, CASE WHEN is_nan THEN 'nan' ELSE value END FROM latest_metrics"
_DELETED = "SELECT name FROM experiments WHERE lifecycle_stage = 'deleted'"


class Glance(Reader):
    """What the store of a folder says of cells, as of now; it answers as a `Store` does.

    Args:
        folder: the runs folder.
        kept: the run that counts of every cell.
        deleted: names of experiments that were deleted in MLflow.
    """

    def __init__(self, folder: Path, kept: dict[str, Kept], deleted: set[str]) -> None:
        self.folder = folder
        self._kept, self._deleted = kept, deleted
        self._homes = {run.run_id: run.experiment for run in kept.values()}

    def kept(self) -> dict[str, Kept]:
        """Return the run that counts of every cell, by the cell's hash."""
        return self._kept

    def require_active(self, experiments: Iterable[str]) -> None:
        """Say that runs are hidden, where they would be taken for runs that never were.

        Raises:
            StoreError: one of the experiments was deleted in MLflow.
        """
        names = set(experiments)
        if names & self._deleted:
            self._asked().require_active(names)  # it knows how they come back

    def files(self, run_id: str, folder: str) -> list[str]:
        """Return the names of the artifacts in a folder of a run."""
        place = self._place(run_id)
        if place is None:
            return self._asked().files(run_id, folder)
        inside = place / folder
        names = sorted(path.name for path in inside.iterdir()) if inside.is_dir() else []
        return [(Path(folder) / name).as_posix() for name in names]

    @contextmanager
    def artifact(self, run_id: str, name: str, into: Path) -> Iterator[Path]:
        """Give the path of an artifact."""
        place = self._place(run_id)
        if place is not None and (place / name).is_file():
            yield place / name
            return
        with self._asked().artifact(run_id, name, into) as path:
            yield path

    def _place(self, run_id: str) -> Path | None:
        """Return where the artifacts of a run lie, if it is where those of this folder do."""
        if run_id not in self._homes:
            return None
        experiment = self.folder / embedded.ARTIFACTS / self._homes[run_id]
        place = experiment / run_id / "artifacts"
        return place if place.is_dir() else None

    def _asked(self) -> Store:
        """Return the store itself, which MLflow keeps."""
        from bench.store.mlflow_store import Store

        return Store(self.folder)


def look(folder: Path, wait_s: float) -> Glance | Store:
    """Return what a folder's store says of cells; the store itself where more must be asked.

    Nothing is made: a folder without a store has no runs. A server is asked, and so is MLflow
    where the database is not of the form that is known here, or has runs of older versions of
    convboard, which are told by their files.

    Args:
        folder: the runs folder.
        wait_s: how long a store that is locked or away is waited for.

    Raises:
        StoreError: the store cannot be used.
    """
    folder = folder.resolve()
    if folder.exists():
        embedded.existing_folder(folder)
    if embedded.server() is None:
        if not (folder / embedded.DATABASE).exists():
            return Glance(folder, {}, set())
        patience = Patient(None, f"{folder.name}/", wait_s)
        glance: Glance | None = patience.call(_read, folder)
        if glance is not None:
            return glance
    from bench.store.mlflow_store import Store

    return Store(folder, wait_s=wait_s)


def _read(folder: Path) -> Glance | None:
    """Read the database; None where MLflow must be asked."""
    tags: dict[str, dict[str, str]] = {}
    metrics: dict[str, dict[str, float]] = {}
    with closing(sqlite3.connect(folder / embedded.DATABASE, timeout=1)) as connection:
        try:
            runs = connection.execute(_RUNS).fetchall()
            for run, key, value in connection.execute(_TAGS):
                tags.setdefault(run, {})[key] = value
            for run, key, number in connection.execute(_METRICS):
                metrics.setdefault(run, {})[key] = float(number)
            deleted = {name for (name,) in connection.execute(_DELETED)}
        except sqlite3.OperationalError as error:
            if str(error).startswith("no such"):  # table or column
                return None
            raise
    cells = []
    for run, experiment, status, started in runs:
        of_run = tags.get(run, {})
        if CELL not in of_run:
            continue
        if status == "FINISHED" and DONE not in of_run:
            return None
        cells.append(
            Kept(run, experiment, of_run[CELL], status, started, metrics.get(run, {}), of_run)
        )
    return Glance(folder, counting(cells), deleted)
