"""A suite's cells: how far they are, what is checked before they run, and the running of them."""

from __future__ import annotations

import copy
import functools
import json
import logging
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import locks
from bench.config.cell import Cell
from bench.errors import ConfigError, UserError, near
from bench.failures import out_of_memory
from bench.record import Data, Record, Status
from bench.run import gpus
from bench.run.cell import Ran, group, lost, run_cell
from bench.run.executor import Event, Executor
from bench.run.ranks import needs_of
from bench.store import Kept, Store, StoreError


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
    scores: dict[tuple[str, str, float], list[float]] = {}
    homes: dict[tuple[str, str, float], Cell] = {}
    for cell in cells:
        run = kept.get(cell.hash)
        if not cell.baseline or run is None or not run.done:
            continue
        for metric, wanted in cell.learnt.items():
            key = (cell.board, metric, wanted)
            score = run.metrics.get(f"final/{metric}")
            if score is not None:  # one of older code may lack it
                homes.setdefault(key, cell)
                scores.setdefault(key, []).append(score)
    return [
        Learnt(homes[key].task, homes[key].host, key[1], sum(values) / len(values), key[2])
        for key, values in scores.items()
    ]


def preflight(cells: Sequence[Cell], unfit: Collection[str] = ()) -> dict[str, Data]:
    """Find what a user can have wrong before any training: data, classes, hosts, slots, options.

    Args:
        cells: what is to run.
        unfit: hashes of those whose networks are not built.

    Returns:
        What the data of each cell are, by its hash, for the record of one that fails; of one that
        does not fit, where another has the same.

    Raises:
        ConfigError: the first fault, with the cell in which it stands.
    """
    from bench.config import lightning

    models: set[str] = set()
    described: dict[str, Data] = {}
    told: set[str] = set()
    for cell in cells:
        if cell.hash in unfit:
            continue
        data, model = (_without_seed(cell, part) for part in ("data", "model"))
        if data not in described or model not in models:
            try:
                run = lightning.build(cell.config)
                if data not in described:
                    run.data.prepare_data()
                    run.data.setup("fit")
                    described[data] = Data.model_validate(run.data.describe())
                    tell_mended(described[data], told)
            except UserError as error:
                raise ConfigError(f"{cell.title}: {error}") from error
            models.add(model)
            for metric in cell.learnt:
                if metric not in run.module.metrics_info:
                    raise ConfigError(
                        f"{cell.title}: `learnt` (={metric!r}) is no metric of its task; "
                        f"{near(metric, run.module.metrics_info)}"
                    )
    of_cells = {cell.hash: described.get(_without_seed(cell, "data")) for cell in cells}
    return {key: data for key, data in of_cells.items() if data is not None}


def tell_mended(data: Data, told: set[str]) -> None:
    """Say in the log, once a set, what was left out of it or mended.

    Args:
        data: the set.
        told: hashes of those of which it is said already.
    """
    if data.skipped and data.files_sha256 not in told:
        told.add(data.files_sha256)
        counts = "; ".join(f"{kind}: {count}" for kind, count in data.skipped.items())
        # Not a warning of Python's, which the command keeps out of its progress.
        logging.getLogger(__name__).warning("%s, left out or mended: %s", data.name, counts)


def _without_seed(cell: Cell, part: str) -> str:
    config = copy.deepcopy(cell.config[part])
    config["init_args"].pop("seed", None)
    return json.dumps([part, config, cell.config["trainer"]], sort_keys=True)


@dataclass(frozen=True)
class Step:
    """One event of a run of several cells.

    `record` is None where a cell has started, where it goes on in another process (`words` says
    so), and where it could not be kept at all (`failed`, and `words` say why).
    """

    cell: Cell
    kind: Literal["started", "elsewhere", "ended"]
    record: Record | None = None
    words: str = ""
    failed: bool = False


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    command: str,
    *,
    executor: Executor,
    data: Mapping[str, Data] | None = None,
    again: bool = False,
) -> Iterator[Step]:
    """Run cells in processes of their own; yield a Step as each starts and as each ends.

    What happens to one cell is its own: a failure of whatever kind is its row, and the others go
    on. A cell that another process runs is waited for, and run if that process loses it.

    Args:
        cells: what to run.
        folder: the runs folder; see `bench.store.Store`.
        command: the command line that asked for it, for the records.
        executor: what runs them.
        data: what the data of each cell are, by its hash; see `preflight`.
        again: run also those that are done by older code.
    """
    job = functools.partial(
        _in_process, folder=folder, command=command, data=dict(data or {}), again=again
    )
    waiting, running = list(cells), dict[str, Cell]()
    _make_groups(cells, folder)
    try:
        while waiting:
            others: list[Cell] = []
            for event in executor.run(job, waiting, needs_of):
                cell = event.job
                if event.kind == "started":
                    running[cell.hash] = cell
                    yield Step(cell, "started")
                    continue
                running.pop(cell.hash, None)
                if event.kind == "done" and event.value is None:
                    others.append(cell)
                    yield Step(cell, "elsewhere", words="goes on in another process")
                else:
                    yield _ended(event, folder, command, (data or {}).get(cell.hash))
            waiting = others
            if waiting:
                time.sleep(1)  # a lock on another machine is not seen from here
            while waiting and all(locks.held(locks.of_cell(folder, cell.hash)) for cell in waiting):
                time.sleep(1)
    finally:
        if running:
            _interrupted(running, folder)


def _make_groups(cells: Sequence[Cell], folder: Path) -> None:
    """Make the runs below which cells stand: two machines that share no locks would make two."""
    with suppress(StoreError):  # the cells will say it
        store = Store(folder)
        for cell in {cell.board: cell for cell in cells}.values():
            group(cell, store)


def _ended(event: Event[Cell], folder: Path, command: str, data: Data | None) -> Step:
    """Return the step of a cell that has ended, however it did."""
    cell = event.job
    try:
        if event.kind == "done":
            ran: Ran = event.value
        else:
            status: Status = "timeout" if event.kind == "timeout" else "error"
            if event.kind == "failed":
                status = "oom" if out_of_memory(event.value) else status
                words = f"{type(event.value).__name__}: {event.value}"
            else:
                words = str(event.value)
            ran = lost(cell, folder, command, status, words, data)
    except Exception as error:  # the store cannot take it: the others may have more luck
        why = f"could not be kept ({type(error).__name__}: {error})"
        if event.kind == "failed":
            why = f"{event.value}; and it {why}"
        return Step(cell, "ended", words=why, failed=True)
    words = "; ".join(ran.notes)
    if ran.record is None:
        return Step(cell, "ended", words="done by another process")
    return Step(cell, "ended", ran.record, words, failed=ran.record.status != "ok")


def _interrupted(running: Mapping[str, Cell], folder: Path) -> None:
    """Say in the store that runs were cut off; they go on at the same command."""
    with suppress(Exception):
        store = Store(folder, wait_s=5)
        for cell in running:
            run = store.of_cell(cell)
            if run is not None and not run.done and run.status == "RUNNING":
                store.end(run.run_id, "KILLED")


def _in_process(
    cell: Cell, folder: Path, command: str, data: Mapping[str, Data], again: bool
) -> Ran | None:
    """Run a cell; None says that another process does."""
    hush()
    needs = needs_of(cell)
    try:
        with gpus.taken([] if needs.cpu else gpus.visible(), needs.devices):
            return run_cell(cell, folder, command, data=data.get(cell.hash), again=again)
    except locks.Held:
        return None


def hush() -> None:
    """Keep the words of Lightning and of libraries' warnings out of a suite's progress."""
    import lightning  # noqa: F401  it sets its loggers' levels when it is imported

    warnings.simplefilter("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
