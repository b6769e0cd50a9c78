"""The MLflow UI over a store."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import psutil

from bench.store.mlflow_store import Store


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
