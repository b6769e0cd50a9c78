"""A cell on several devices of this machine: one process a rank, started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.config.cell import Cell
from bench.machine import usable_threads
from bench.record import Data, Record
from bench.run.executor import Needs
from bench.run.processes import end_with_parent
from bench.whole_files import write_whole

JOB = "ranks.json"
RESULT = "ranks-result.json"
LOG = "ranks.log"


def ranks_of(trainer: dict[str, Any]) -> int:
    """Return how many processes a trainer's configuration asks for on this machine.

    Example:
        >>> ranks_of({"devices": 1}), ranks_of({"devices": 2, "accelerator": "cpu"})
        (1, 2)
        >>> ranks_of({"devices": [0, 3]}), ranks_of({"devices": "2"})
        (2, 2)
    """
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        if trainer.get("accelerator", "auto") == "cpu":
            return 1
        import torch

        return max(1, torch.cuda.device_count())
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
        RuntimeError: the ranks ended without a record; the last of what they said is in it.
    """
    count = ranks_of(cell.config["trainer"])
    result = work / RESULT
    result.unlink(missing_ok=True)
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
            line, stdout=log, stderr=log, env=environment, preexec_fn=end_with_parent, check=False
        )
    if not result.exists():
        words = (work / LOG).read_text(errors="replace").strip().splitlines()
        said = next((w for w in reversed(words) if "Error" in w), words[-1] if words else "")
        raise RuntimeError(f"{count} ranks ended with exit code {ended.returncode}: {said[:300]}")
    outcome = json.loads(result.read_text(encoding="utf-8"))
    return Record.model_validate(outcome["record"]), outcome["notes"]
