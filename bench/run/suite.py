"""A suite's cells: how far they are, what is checked before they run, and the running of them."""

from __future__ import annotations

import functools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.config.plan import Cell
from bench.errors import ConfigError, UserError, near
from bench.machine import usable_cores
from bench.record import Record, Status
from bench.run.cell import lost, run_cell
from bench.run.processes import LocalProcesses
from bench.store import Kept

State = Literal["done", "absent", "failed", "started", "waiting"]


def state(cell: Cell, kept: dict[str, Kept]) -> State:
    """Return how far a cell is, by the store; absent is one that is left out for want of data."""
    run = kept.get(cell.hash)
    if run is not None and run.done:
        return "done"
    if cell.absent:
        return "absent"
    if run is None:
        return "waiting"
    return "failed" if run.status == "FAILED" else "started"


@dataclass(frozen=True)
class Learnt:
    """Whether a baseline has learnt its task: its mean over seeds, and what is wanted."""

    task: str
    host: str
    metric: str
    mean: float
    wanted: float


def learnt(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> list[Learnt]:
    """Return what was learnt on each board that says what must be, by the cells that are done."""
    found: dict[tuple[str, str, str, float], list[float]] = {}
    for cell in cells:
        run = kept.get(cell.hash)
        if not cell.baseline or run is None or not run.done:
            continue
        for metric, wanted in cell.learnt.items():
            values = found.setdefault((cell.task, cell.host, metric, wanted), [])
            values.append(run.metrics[f"final/{metric}"])
    return [
        Learnt(task, host, metric, sum(values) / len(values), wanted)
        for (task, host, metric, wanted), values in found.items()
    ]


def preflight(cells: Sequence[Cell]) -> None:
    """Find what a user can have wrong before any training: data, classes, hosts, slots, options.

    Raises:
        ValueError: the first fault, with the cell in which it stands.
    """
    from bench.config import lightning

    seen: set[str] = set()
    for cell in cells:
        for part in ("data", "model"):
            key = json.dumps([part, cell.config[part]], sort_keys=True)
            key = key.replace(f'"seed": {cell.seed}', "")
            if key in seen:
                continue
            seen.add(key)
            try:
                built = lightning.build(cell.config)
                built.data.prepare_data()
                if part == "data":
                    built.data.setup("fit")
            except UserError as error:
                raise ConfigError(f"{cell.title}: {error}") from error
            for metric in cell.learnt:
                if metric not in built.module.metrics_info:
                    raise ConfigError(
                        f"{cell.title}: `learnt` (={metric!r}) is no metric of its task; "
                        f"{near(metric, built.module.metrics_info)}"
                    )


def default_workers() -> int:
    """One process a core on a CPU, up to four; one on a machine with a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else min(4, usable_cores())


@dataclass(frozen=True)
class Step:
    """One event of a run: a cell has started or ended; `fraction` of all work is done."""

    cell: Cell
    record: Record | None
    failed: bool = False


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    command: str,
    *,
    workers: int,
    timeout_minutes: float,
) -> Iterator[Step]:
    """Run cells in processes of their own; yield a Step as each starts and as each ends."""
    engine = LocalProcesses(workers, timeout_minutes * 60)
    job = functools.partial(_in_process, folder=folder, command=command)
    for event in engine.run(job, cells):
        if event.kind == "started":
            yield Step(event.job, None)
        elif event.kind == "done":
            yield Step(event.job, event.value, failed=event.value.status != "ok")
        else:
            status: Status = "timeout" if event.kind == "timeout" else "error"
            why = (
                f"took more than {timeout_minutes:g} minutes"
                if event.kind == "timeout"
                else f"its process ended: {event.value}"
            )
            yield Step(event.job, lost(event.job, folder, command, status, why), failed=True)


def _in_process(cell: Cell, folder: Path, command: str) -> Record:
    hush()
    return run_cell(cell, folder, command)


def hush() -> None:
    """Keep the words of Lightning and of libraries' warnings out of a suite's progress."""
    import lightning  # noqa: F401  it sets its loggers' levels when it is imported

    warnings.simplefilter("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def fraction(cell: Cell, folder: Path) -> float:
    """Return how much of a running cell's training is done, 0…1."""
    from bench.run.fit import PROGRESS

    try:
        text = (folder / "cells" / cell.hash / PROGRESS).read_text(encoding="utf-8")
        return float(json.loads(text)["done"])
    except (OSError, ValueError, KeyError):
        return 0.0
