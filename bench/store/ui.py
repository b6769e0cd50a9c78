"""The MLflow UI over a store, and Optuna's dashboard over its studies."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from bench.errors import Failure
from bench.store import embedded
from bench.store.kept import STUDIES, Kept
from bench.store.mlflow_store import Store

CHARTS = "#/experiments/{}/runs?compareRunsMode=CHART&workflowType=machine_learning"
"""Page of MLflow's UI: the runs of an experiment beside their charts; not those of GenAI."""

APP = "convboard"
"""Our own name among the servers that MLflow can start, and of the page that it opens with: see
`bench.store.ui_app`."""

DASHBOARD = """
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="optuna-dashboard")
script.load()()
"""
"""Runs the command of Optuna Dashboard, wherever its script lies."""


def page(store: Store) -> str:
    """Return the page to open, behind the server's address: the charts of the newest suite.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     page(Store(Path(folder)))
        ''
    """
    newest = max(store.kept().values(), key=_trained_last, default=None)
    if newest is None:
        return ""
    return CHARTS.format(store.client.get_experiment_by_name(newest.experiment).experiment_id)


def _trained_last(run: Kept) -> tuple[bool, int]:
    return any(name.startswith("final/") for name in run.metrics), run.started


def serve(store: Store, port: int) -> int:
    """Run the MLflow UI over the store, on loopback only, until Ctrl-C; return its exit status."""
    print(f"MLflow UI: http://127.0.0.1:{port}/{APP}{page(store)}", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--app-name", APP]
    # one person looks; MLflow's jobs, for which it starts seven processes, judge language models
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    return _served([*command, "--workers", "2"])


def serve_studies(folder: Path, port: int) -> int:
    """Run Optuna Dashboard over the studies, on loopback only, until Ctrl-C.

    Raises:
        Failure: it is not installed, or nothing was tuned yet.
    """
    if find_spec("optuna_dashboard") is None:
        raise Failure("`--studies` needs Optuna Dashboard: pip install 'convboard[dashboard]'.")
    if STUDIES not in os.environ and not (folder / embedded.STUDIES_DATABASE).is_file():
        raise Failure(f"{folder.name}/ has no study yet; `convboard tune SUITE` makes them.")
    print(f"Optuna Dashboard: http://127.0.0.1:{port}/dashboard", flush=True)
    command = [sys.executable, "-c", DASHBOARD]
    command += [embedded.studies(folder), "--host", "127.0.0.1"]
    return _served([*command, "--port", str(port)])


def _served(command: list[str]) -> int:
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
