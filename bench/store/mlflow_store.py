"""MLflow runs: begun, filled, ended, found again."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Waiting is done here, where it is told.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Experiment, Param, Run, RunTag, ViewType

from bench import locks
from bench.store import embedded
from bench.store.errors import StoreError
from bench.store.kept import (
    BOARD,
    CELL,
    DONE,
    Kept,
    counting,
    default_folder,
)
from bench.store.patience import Patient
from bench.store.reader import Reader

_LONGEST_PARAM = 6000
_NAMED = re.compile(r"[\w .:/-]+")
"""What the name of a parameter may be."""
_NOTE = "mlflow.note.content"
_SHOWN = {"mlflow.runType": "evaluation"}
"""Of runs in a group: MLflow's UI opens the groups that hold such runs, and draws what is open."""
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Of experiments: MLflow's UI shows runs and charts, and not traces of language models."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


def import_tables() -> None:
    """Import what MLflow imports as late as when the store of a folder is opened: a second."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


class Store(Reader):
    """The MLflow store of one folder: SQLite and local artifacts unless a server is named.

    Args:
        folder: holds `mlflow.db` and `artifacts/`; it may be moved.
        uri: the tracking URI; None for $MLFLOW_TRACKING_URI, else SQLite in `folder`.
        wait_s: how long a store that is locked or away is waited for.

    Raises:
        StoreError: the store cannot be used.
    """

    def __init__(
        self, folder: Path | None = None, uri: str | None = None, *, wait_s: float = 60
    ) -> None:
        self.folder = embedded.existing_folder((folder or default_folder()).resolve())
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It logs the traceback of each error of the database that it raises, and `Patient` tells.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        named = embedded.server()
        server = uri or named
        self.uri = server or embedded.address(self.folder)
        if self.uri != named:
            embedded.opened(self.uri)
        self.embedded = server is None
        place = f"{self.folder.name}/" if self.embedded else "at MLFLOW_TRACKING_URI"
        self.patience = Patient(None, place, wait_s)
        if self.embedded:
            with embedded.opening(self.folder):
                embedded.relocate(self.folder)
                client = self.patience.call(self._open)
        else:
            client = self.patience.call(self._open)
        self.client: Any = Patient(client, place, wait_s)

    def _open(self) -> MlflowClient:
        client = MlflowClient(self.uri)
        client.search_experiments(max_results=1)
        return client

    def require_writable(self) -> None:
        """Say before any work, not after it, that what comes of it could not be kept.

        Raises:
            StoreError: the runs folder can only be read.
        """
        embedded.require_writable(self.folder)

    def studies(self) -> str:
        """Return the address of Optuna's database: $CONVBOARD_STUDIES, or in the runs folder."""
        return embedded.studies(self.folder)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment `name`, made where it does not exist."""
        known = self.client.get_experiment_by_name(name)
        if known is None:
            place = embedded.location(self.folder, name) if self.embedded else None
            try:
                return str(self.client.create_experiment(name, artifact_location=place, tags=_KIND))
            except StoreError:
                raise
            except Exception:  # another process was quicker
                known = self.client.get_experiment_by_name(name)
                if known is None:
                    raise
        if known.lifecycle_stage == "deleted":
            raise StoreError(f"{self._deleted(known)}, or give the suite another name.")
        for key, value in _KIND.items():  # of an older version of ours
            if known.tags.get(key) != value:
                self.client.set_experiment_tag(known.experiment_id, key, value)
        return str(known.experiment_id)

    def require_active(self, experiments: Iterable[str]) -> None:
        """Say that runs are hidden, where they would be taken for runs that never were.

        Raises:
            StoreError: one of the experiments was deleted in MLflow.
        """
        names = set(experiments)
        for experiment in self._experiments(ViewType.DELETED_ONLY):
            if experiment.name in names:
                raise StoreError(f"{self._deleted(experiment)}, or give the suite another name.")

    def hidden(self, experiment: str | None = None) -> list[str]:
        """Return a line for each experiment that was deleted in MLflow with results in it."""
        lines = []
        for deleted in self._experiments(ViewType.DELETED_ONLY, experiment):
            runs = self._search([deleted.experiment_id], "", ViewType.ALL)
            results = sum(DONE in run.data.tags for run in runs)
            if results:
                lines.append(f"{results} results: {self._deleted(deleted)}.")
        return lines

    def _deleted(self, experiment: Experiment) -> str:
        """Say that an experiment was deleted, and the command that brings it back."""
        at = f"MLFLOW_TRACKING_URI={shlex.quote(self.uri)} " if self.embedded else ""
        command = f"{at}mlflow experiments restore --experiment-id {experiment.experiment_id}"
        name = experiment.name
        return f"the experiment {name!r} was deleted in MLflow; restore it with `{command}`"

    def _experiments(self, view: str, name: str | None = None) -> list[Experiment]:
        """Return the experiments that are active, or deleted; all of them or that of a name."""
        every = self.client.search_experiments(view_type=view)
        return [experiment for experiment in every if name in (None, experiment.name)]

    def kept(self, experiment: str | None = None) -> dict[str, Kept]:
        """Return the run that counts of every cell, by the cell's hash: the newest, or the done."""
        return counting(self._cells(self.runs(experiment)))

    def of_cell(self, cell: str) -> Kept | None:
        """Return the run that counts of one cell; asks the store for that cell alone."""
        return counting(self._cells(self.runs(cell=cell))).get(cell)

    def _cells(self, runs: Iterator[tuple[Run, str]]) -> Iterator[Kept]:
        """Yield the runs that are of cells."""
        for run, name in runs:
            cell = run.data.tags.get(CELL)
            if cell is not None:
                yield Kept(
                    run.info.run_id,
                    name,
                    cell,
                    run.info.status,
                    run.info.start_time,
                    dict(run.data.metrics),
                    self._healed(run),
                )

    def _healed(self, run: Run) -> dict[str, str]:
        """Return a run's tags; one of a version without `DONE` is done if its record is there."""
        tags = dict(run.data.tags)
        if DONE in tags or run.info.status != "FINISHED":
            return tags
        records = [name for name in self.files(run.info.run_id, "records") if _is_record(name)]
        if not records:
            return tags
        mark = {DONE: Path(sorted(records)[-1]).name}
        if embedded.can_be_written(self.folder) or not self.embedded:
            self.tag(run.info.run_id, mark)
        return tags | mark

    def files(self, run_id: str, folder: str) -> list[str]:
        """Return the names of the artifacts in a folder of a run."""
        return [artifact.path for artifact in self.client.list_artifacts(run_id, folder)]

    def runs(
        self, experiment: str | None = None, *, cell: str | None = None
    ) -> Iterator[tuple[Run, str]]:
        """Yield every run with the name of its experiment; of one experiment or cell, if named.

        Runs that only group others are left out.
        """
        active = self._experiments(ViewType.ACTIVE_ONLY, experiment)
        names = {each.experiment_id: each.name for each in active}
        where = f"tags.`{CELL}` = '{cell}'" if cell is not None else ""
        for run in self._search(list(names), where, ViewType.ACTIVE_ONLY):
            if BOARD not in run.data.tags:
                yield run, names[run.info.experiment_id]

    def _search(self, experiments: list[str], where: str, view: str) -> Iterator[Run]:
        """Yield the runs of experiments, given by their ids."""
        token = None
        while experiments:
            page = self.client.search_runs(
                experiments, where, view, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                break

    def begin(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        *,
        words: str = "",
        parent: str | None = None,
        resume: bool = True,
    ) -> str:
        """Begin a run, or go on with the cell's unfinished one; return its id.

        Args:
            experiment: its name.
            name: of the run.
            tags: with `CELL`, it is the run of a cell.
            params: logged flattened; those of a run that goes on stand already.
            words: a description in Markdown.
            parent: run id of the run that this one belongs to.
            resume: go on with the cell's run, if one was cut off or failed.
        """
        cell = tags.get(CELL)
        before = self.of_cell(cell) if cell is not None else None
        if before is not None and not before.done and not resume and before.status == "RUNNING":
            self.end(before.run_id, "KILLED")  # it was lost with its machine
        elif before is not None and not before.done and resume:
            self.client.update_run(before.run_id, status="RUNNING")
            self.tag(before.run_id, {k: v for k, v in tags.items() if before.tags.get(k) != v})
            return before.run_id
        if parent is not None:
            tags = {**tags, "mlflow.parentRunId": parent, **_SHOWN}
        if words:
            tags = {**tags, _NOTE: words}
        run = self.client.create_run(self.experiment(experiment), run_name=name, tags=dict(tags))
        run_id = str(run.info.run_id)
        flat = [Param(k, str(v)[:_LONGEST_PARAM]) for k, v in flatten(params).items()]
        for start in range(0, len(flat), 100):
            self.client.log_batch(run_id, params=flat[start : start + 100])
        return run_id

    def group(self, experiment: str, key: str, name: str, words: str) -> str:
        """Return the id of the run under which those of a board stand, made where there is none.

        Args:
            experiment: its name.
            key: of the board.
            name: of the group.
            words: a description in Markdown.
        """
        with locks.lock(self.folder / locks.FOLDER / f"board-{key[:12]}.lock", wait_s=60):
            place = self.experiment(experiment)
            where = f"tags.`{BOARD}` = '{key}'"
            for run in self._search([place], where, ViewType.ACTIVE_ONLY):
                return str(run.info.run_id)
            tags = {BOARD: key, _NOTE: words}
            run_id = str(self.client.create_run(place, run_name=name, tags=tags).info.run_id)
            self.end(run_id)
            return run_id

    def logger(self, experiment: str, run_id: str) -> Logger:
        """Return Lightning's logger into the run."""
        from bench.store.logger import PatientLogger  # seconds to import: not for `plan`

        return PatientLogger(self, experiment, run_id)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        if tags:
            self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def metrics(self, run_id: str, values: Mapping[str, float]) -> None:
        """Log final values of a run."""
        for name, value in values.items():
            self.client.log_metric(run_id, name, value)

    def keep(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run's artifacts."""
        self.client.log_artifact(run_id, str(path), folder)

    def done(self, run_id: str, record: str) -> None:
        """Mark a run as done: the last thing, when its record and its files are kept."""
        self.tag(run_id, {DONE: record})
        self.end(run_id)

    def end(self, run_id: str, status: Status = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status=status)

    @contextmanager
    def artifact(self, run_id: str, name: str, into: Path) -> Iterator[Path]:
        """Give the local path of an artifact, downloaded into `into` if the store is a server."""
        yield Path(self.client.download_artifacts(run_id, name, str(into)))


def _is_record(name: str) -> bool:
    return Path(name).name.startswith(("accuracy-", "speed-")) and name.endswith(".json")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted names; one stays whose keys are no names of parameters.

    Example:
        >>> flatten({"model": {"lr": 0.1, "sizes": [1, 2]}})
        {'model.lr': 0.1, 'model.sizes': [1, 2]}
        >>> flatten({"options": {"pattern": {"(0, 0)": 8}}})
        {'options.pattern': {'(0, 0)': 8}}
    """
    named = isinstance(value, Mapping) and all(_NAMED.fullmatch(str(key)) for key in value)
    if not named or (prefix and not value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat
