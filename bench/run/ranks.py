"""A cell on several devices of this machine: one process a rank, started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.config.cell import Cell
from bench.errors import UserError
from bench.machine import usable_threads
from bench.record import Data, Record
from bench.run.executor import Needs
from bench.speed import lifetime
from bench.whole_files import write_whole

JOB = "ranks.json"
RESULT = "ranks-result.json"
FAILURES = "ranks-failure-*.json"
"""Of each rank but 0 that failed: when, and its words."""
LOG = "ranks.log"


def ranks_of(trainer: dict[str, Any]) -> int:
    """Return how many processes a trainer's configuration asks for on this machine.

    Example:
        >>> ranks_of({"devices": 1}), ranks_of({"devices": 2, "accelerator": "cpu"})
        (1, 2)
        >>> ranks_of({"devices": "2"})
        2
        >>> ranks_of({"devices": [0, 3]})
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `trainer.devices` (=[0, 3]) must be a number or 'auto': which GPUs \
they are is chosen here, among those of CUDA_VISIBLE_DEVICES.
    """
    devices = trainer.get("devices", 1)
    if devices in ("auto", -1, "-1"):
        if trainer.get("accelerator", "auto") == "cpu":
            return 1
        import torch

        return max(1, torch.cuda.device_count())
    if not str(devices).isdecimal() or not int(devices):
        raise UserError(
            f"`trainer.devices` (={devices!r}) must be a number or 'auto': which GPUs they are is "
            "chosen here, among those of CUDA_VISIBLE_DEVICES."
        )
    return int(devices)


def needs_of(cell: Cell) -> Needs:
    """Return what a cell takes of a machine."""
    trainer = cell.config["trainer"]
    return Needs(
        ranks_of(trainer),
        cpu=trainer.get("accelerator") == "cpu",
        tasks=frozenset([cell.config["model"]["class_path"]]),
    )


def run_ranks(
    cell: Cell,
    folder: Path,
    work: Path,
    command: str,
    run_id: str,
    data: Data | None,
) -> tuple[Record, list[str]]:
    """Run a cell in as many processes as it asks for; return its record, and words.

    Rank 0 keeps files and the run of the store; the others only compute. Where one fails, all end.

    Raises:
        RuntimeError: the ranks ended without a record; what the first to fail said is in it.
    """
    count = ranks_of(cell.config["trainer"])
    result = work / RESULT
    for old in (result, *work.glob(FAILURES)):
        old.unlink(missing_ok=True)
    job = {
        "cell": cell.model_dump(mode="json"),
        "folder": str(folder),
        "command": command,
        "run_id": run_id,
        "data": data.model_dump(mode="json") if data else None,
    }
    write_whole(work / JOB, json.dumps(job))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line += ["--nproc-per-node", str(count), "-m", "bench.run.rank", str(work)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, usable_threads() // count)),
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
    }
    with (work / LOG).open("wb") as log:
        ended = subprocess.run(
            line,
            stdout=log,
            stderr=log,
            env=environment,
            preexec_fn=lifetime.end_with_parent,
            check=False,
        )
    if not result.exists():
        raise RuntimeError(
            f"{count} ranks ended with exit code {ended.returncode}: {_said(work)[:300]}"
        )
    outcome = json.loads(result.read_text(encoding="utf-8"))
    return Record.model_validate(outcome["record"]), outcome["notes"]


def note_failure(work: Path, rank: int, error: BaseException) -> None:
    """Keep what a rank other than 0 failed of: only rank 0 makes records."""
    what = {"at": time.time(), "words": f"rank {rank}: {type(error).__name__}: {error}"}
    write_whole(work / FAILURES.replace("*", str(rank)), json.dumps(what))


def _said(work: Path) -> str:
    """Return the words of the rank that failed first, or the last error in the log."""
    noted = [json.loads(path.read_text(encoding="utf-8")) for path in work.glob(FAILURES)]
    if noted:
        return str(min(noted, key=lambda one: one["at"])["words"])
    words = (work / LOG).read_text(errors="replace").strip().splitlines()
    told = [line for line in words if "Error" in line and "ChildFailedError" not in line]
    return (told or words or [""])[-1]
