"""MLflow, in one place: where runs are kept, found again and exported as records."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from bench.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import MLFlowLogger

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import psutil
from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag
from mlflow.exceptions import MlflowException

from bench.record import Record

CELL = "convboard.cell"
CHECKPOINT = "checkpoint/last.ckpt"
_LONGEST_PARAM = 6000


def default_folder() -> Path:
    """Where runs are kept: $CONVBOARD_RUNS, or `runs` in the working directory."""
    return Path(os.environ.get("CONVBOARD_RUNS", "runs"))


@dataclass(frozen=True)
class Kept:
    """A run that the store knows."""

    run_id: str
    experiment: str
    cell: str
    status: str
    started: int
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def done(self) -> bool:
        """Whether it ended well."""
        return self.status == "FINISHED"


class Store:
    """The MLflow store of one folder: SQLite and local artifacts unless a server is named.

    Args:
        folder: holds `mlflow.db` and `artifacts/`.
        uri: the tracking URI; None for $MLFLOW_TRACKING_URI, else SQLite in `folder`.
    """

    def __init__(self, folder: Path | None = None, uri: str | None = None) -> None:
        self.folder = (folder or default_folder()).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.embedded = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or self.embedded
        self.client = MlflowClient(self.uri)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment `name`, made where it does not exist."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (self.folder / "artifacts" / name).as_uri() if self.uri == self.embedded else None
        try:
            return str(self.client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another process was quicker
            made = self.client.get_experiment_by_name(name)
            if made is None:
                raise
            return str(made.experiment_id)

    def kept(self, experiment: str | None = None) -> dict[str, Kept]:
        """Return the newest run of every cell, by the cell's hash."""
        newest: dict[str, Kept] = {}
        for run, name in self._runs(experiment):
            cell = run.data.tags.get(CELL)
            if cell is None:
                continue
            known = newest.get(cell)
            if known is None or (run.info.start_time, run.info.run_id) > (
                known.started,
                known.run_id,
            ):
                newest[cell] = Kept(
                    run.info.run_id,
                    name,
                    cell,
                    run.info.status,
                    run.info.start_time,
                    dict(run.data.metrics),
                    dict(run.data.tags),
                )
        return newest

    def find(self, beginning: str) -> Kept:
        """Return the newest run of the one cell whose hash begins so.

        Raises:
            ValueError: there is none, or more than one.
        """
        found = [run for cell, run in self.kept().items() if cell.startswith(beginning)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise UserError(
                f"`cell` (={beginning!r}): no cell that was run in {self.folder.name}/ has a hash "
                "that begins so; `convboard plan SUITE` lists them."
            )
        raise UserError(
            f"`cell` (={beginning!r}) begins the hashes of {len(found)} cells in "
            f"{self.folder.name}/: {', '.join(sorted(run.cell for run in found)[:5])}."
        )

    def config(self, run: Kept) -> dict[str, Any]:
        """Return the resolved configuration of a run."""
        with (
            TemporaryDirectory() as scratch,
            self.artifact(run.run_id, "config.yaml", Path(scratch)) as path,
        ):
            config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return config

    def _runs(self, experiment: str | None) -> Iterator[tuple[Run, str]]:
        for found in self.client.search_experiments():
            if experiment is not None and found.name != experiment:
                continue
            token = None
            while True:
                page = self.client.search_runs(
                    [found.experiment_id], max_results=1000, page_token=token
                )
                yield from ((run, found.name) for run in page)
                token = page.token
                if not token:
                    break

    def begin(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: str | None = None,
    ) -> str:
        """Begin a run, or go on with the cell's unfinished one; return its id."""
        cell = tags.get(CELL)
        before = self.kept(experiment).get(cell) if cell is not None else None
        if before is not None and not before.done:
            self.client.update_run(before.run_id, status="RUNNING")
            return before.run_id
        if parent is not None:
            tags = {**tags, "mlflow.parentRunId": parent}
        run = self.client.create_run(self.experiment(experiment), run_name=name, tags=dict(tags))
        run_id = str(run.info.run_id)
        flat = [Param(k, str(v)[:_LONGEST_PARAM]) for k, v in flatten(params).items()]
        for start in range(0, len(flat), 100):
            self.client.log_batch(run_id, params=flat[start : start + 100])
        return run_id

    def logger(self, experiment: str, run_id: str) -> MLFlowLogger:
        """Return Lightning's logger into the run."""
        from lightning.pytorch.loggers import MLFlowLogger  # seconds to import: not for `plan`

        return MLFlowLogger(experiment_name=experiment, tracking_uri=self.uri, run_id=run_id)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def metrics(self, run_id: str, values: Mapping[str, float]) -> None:
        """Log final values of a run."""
        for name, value in values.items():
            self.client.log_metric(run_id, name, value)

    def keep(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run's artifacts."""
        self.client.log_artifact(run_id, str(path), folder)

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status=status)

    @contextmanager
    def artifact(self, run_id: str, name: str, into: Path) -> Iterator[Path]:
        """Give the local path of an artifact, downloaded into `into` if the store is a server."""
        yield Path(self.client.download_artifacts(run_id, name, str(into)))

    def export(self, folder: Path, experiment: str | None = None) -> list[Path]:
        """Write the records of all ended runs into `folder`, their other files beside them.

        Nothing is overwritten: a record's file name holds its own hash.
        """
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / ".partial"
        written = []
        for run, _ in self._runs(experiment):
            if run.info.status not in ("FINISHED", "FAILED"):
                continue
            names = [a.path for a in self.client.list_artifacts(run.info.run_id, "records")]
            for name in (n for n in names if n.endswith(".json")):
                target = folder / Path(name).name
                written.append(target)
                if target.exists():
                    continue
                scratch.mkdir(exist_ok=True)
                with self.artifact(run.info.run_id, name, scratch) as path:
                    for beside in Record.load(path).beside:
                        with self.artifact(run.info.run_id, f"records/{beside}", scratch) as file:
                            shutil.copyfile(file, folder / beside)
                    shutil.copyfile(path, target)
        shutil.rmtree(scratch, ignore_errors=True)
        return written


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings and lists to dotted names.

    Example:
        >>> flatten({"model": {"lr": 0.1, "sizes": [1, 2]}})
        {'model.lr': 0.1, 'model.sizes': [1, 2]}
    """
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def serve(store: Store, port: int) -> int:
    """Run the MLflow UI over the store, on loopback only, until Ctrl-C; return its exit status."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            return server.wait()
        finally:  # the server has workers of its own
            family = (
                psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
            )
            server.terminate()
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
