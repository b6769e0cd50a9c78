"""What can be read of a store, whether MLflow is asked or the folder's own files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench.record import Record
from bench.store.kept import DONE, Kept, beginning_with


class Reader(ABC):
    """Runs of cells, and the files that are kept with them.

    Attributes:
        folder: the runs folder.
    """

    folder: Path

    @abstractmethod
    def kept(self) -> dict[str, Kept]:
        """Return the run that counts of every cell, by the cell's hash."""

    @abstractmethod
    def files(self, run_id: str, folder: str) -> list[str]:
        """Return the names of the artifacts in a folder of a run."""

    @abstractmethod
    def artifact(self, run_id: str, name: str, into: Path) -> AbstractContextManager[Path]:
        """Give the local path of an artifact, downloaded into `into` if the store is a server."""

    def find(self, beginning: str) -> Kept:
        """Return the run that counts of the one cell whose hash begins so.

        Raises:
            UserError: there is none, or more than one.
        """
        return beginning_with(self.kept(), beginning, self.folder)

    def config(self, run: Kept) -> dict[str, Any]:
        """Return the resolved configuration of a run."""
        with (
            TemporaryDirectory() as scratch,
            self.artifact(run.run_id, "config.yaml", Path(scratch)) as path,
        ):
            config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return config

    def record(self, run: Kept) -> Record:
        """Return the record of a run that is done."""
        name = f"records/{run.tags[DONE]}"
        with (
            TemporaryDirectory() as scratch,
            self.artifact(run.run_id, name, Path(scratch)) as path,
        ):
            return Record.load(path)
