"""A cell is run once, and kept as an MLflow run with its record, whatever happens to it."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench import locks, machine
from bench.config.cell import Cell
from bench.failures import out_of_memory
from bench.record import Data, Record, Status
from bench.run.code import code_of
from bench.run.describe import accuracy_of, cost_of, entry_of, recipe_of, record_of
from bench.run.estimate import GPU_MEMORY, MEMORY
from bench.run.states import is_stale
from bench.store import CELL, CHECKPOINT, CLASSES, CODE, DATA, Store
from bench.whole_files import write_whole

if TYPE_CHECKING:
    from bench.run.fit import Fitted

WAIT_S = 600
"""How long a store that is locked or away is waited for while a cell is run."""
ENDING_S = 10
"""How long the processes of a cell that was lost may still hold its lock."""


UNFIT = "convboard.unfit"
"""Tag: the operator's code for which a cell has no slot."""


@dataclass(frozen=True)
class Ran:
    """What became of a cell: its record, or None where another process has done it meanwhile."""

    record: Record | None
    notes: list[str] = field(default_factory=list)
    """What was repaired on the way, in words."""


def run_cell(
    cell: Cell,
    folder: Path,
    command: str,
    *,
    data: Data | None = None,
    again: bool = False,
    progress_bar: bool = False,
) -> Ran:
    """Train and score a cell; return its record. A failure is a record too, not an exception.

    The MLflow run gets parameters, tags, metrics of every epoch, and as artifacts the config, the
    record with its outcomes, and the checkpoint; that it is done is marked last. A cell that was
    cut off goes on from its last epoch.

    Args:
        cell: what to run.
        folder: the runs folder; see `bench.store.Store`.
        command: the command line that asked for it, for the record.
        data: what its data are, for the record of a failure; see `bench.run.suite.preflight`.
        again: run it although it is done: its operator's code is another by now.
        progress_bar: show Lightning's bar.

    Raises:
        Held: another process runs the cell.
        StoreError: the store cannot be used.
    """
    store = Store(folder, wait_s=WAIT_S)
    store.require_writable()
    with locks.lock(locks.of_cell(store.folder, cell.hash)):
        before = store.of_cell(cell.hash)
        if before is not None and before.done and not (again and is_stale(cell, before.tags)):
            return Ran(None)
        return _run(cell, store, command, data, progress_bar)


def _run(cell: Cell, store: Store, command: str, data: Data | None, progress_bar: bool) -> Ran:
    from bench.run import resume
    from bench.run.ranks import ranks_of, run_ranks

    work = work_folder(store, cell)
    code = code_of(cell)
    of_others = resume.begun_with(work, {"code": code, "data": data.files_sha256 if data else None})
    checkpoint, notes = resume.newest(work)
    notes += of_others
    run_id = begin(cell, store, resume=checkpoint is not None)
    if ranks_of(cell.config["trainer"]) > 1:
        record, more = run_ranks(cell, store.folder, work, command, run_id, data)
    else:
        record, more = train(cell, store, work, command, run_id, data, progress_bar=progress_bar)
    if record.status == "ok":
        store.done(run_id, record.filename)
        shutil.rmtree(work, ignore_errors=True)
    return Ran(record, [*notes, *more])


def begin(cell: Cell, store: Store, *, resume: bool = True) -> str:
    """Begin the run of a cell below that of its board, or go on with it; return its id."""
    words = f"**{cell.operator}** on {cell.board_name}, seed {cell.seed}.\n\n`{cell.reproduce}`"
    return store.begin(
        cell.suite,
        cell.run_name,
        _tags(cell),
        cell.config,
        words=words,
        parent=group(cell, store),
        resume=resume,
    )


def group(cell: Cell, store: Store) -> str:
    """Return the id of the run below which those of a cell's board stand, made if need be."""
    words = f"{cell.board_name}, recipe {cell.recipe}: one run for each operator and seed."
    return store.group(cell.suite, cell.board, cell.board_name, words)


def train(
    cell: Cell,
    store: Store,
    work: Path,
    command: str,
    run_id: str,
    data: Data | None,
    *,
    progress_bar: bool = False,
    how: Callable[[dict[str, Any], Path], Fitted] | None = None,
) -> tuple[Record, list[str]]:
    """Train and score a cell and keep its record and files; return the record, and words.

    A failure is a record too; what the store or the disk refuses is not, as nothing can be kept.

    Args:
        cell: what to run.
        store: where it is kept.
        work: folder of its files.
        command: the command line that asked for it.
        run_id: of its run in the store.
        data: what its data are, for the record of a failure.
        progress_bar: show Lightning's bar.
        how: scores its configuration in another way than by training, and leaves the checkpoint in
            the folder.
    """
    from bench.run import fit

    try:
        config = work / "config.yaml"
        write_whole(config, yaml.safe_dump(cell.config, sort_keys=False))
        store.keep(run_id, config)
        if how is not None:
            fitted = how(cell.config, work)
        else:
            fitted = fit.fit(
                cell.config,
                work,
                logger=store.logger(cell.suite, run_id),
                progress_bar=progress_bar,
            )
        record = record_of(
            cell,
            command=command,
            run_id=run_id,
            kind="accuracy",
            entry=entry_of(cell, fitted),
            data=Data.model_validate(fitted.data),
            recipe=recipe_of(cell, fitted),
            accuracy=accuracy_of(cell, fitted, work),
            cost=cost_of(cell, fitted),
        )
        classes = list(fitted.datamodule.class_names)
        write_whole(work / CLASSES, json.dumps(classes, ensure_ascii=False))
        store.keep(run_id, work / CLASSES)
        _keep_score(store, run_id, record, work)
    except KeyboardInterrupt:
        store.end(run_id, "KILLED")
        raise
    except Exception as error:
        write_whole(work / "error.txt", traceback.format_exc())
        store.keep(run_id, work / "error.txt")
        status: Status = "oom" if out_of_memory(error) else "error"
        record = _failure(cell, command, run_id, status, f"{type(error).__name__}: {error}", data)
        _keep_failure(store, run_id, record, work)
        return record, []
    return record, fitted.notes


def work_folder(store: Store, cell: Cell) -> Path:
    """Return the folder of a cell that is under way, made where it is not there."""
    work = store.folder / "cells" / cell.hash
    work.mkdir(parents=True, exist_ok=True)
    return work


def lost(
    cell: Cell, folder: Path, command: str, status: Status, why: str, data: Data | None = None
) -> Ran:
    """Keep a cell whose process was lost as a failed record, unless it had done its work.

    Where another process runs the cell by now, it is that one's.

    Args:
        cell: what was run.
        folder: the runs folder.
        command: the command line that asked for it.
        status: how it ended.
        why: in words.
        data: what its data are.
    """
    store = Store(folder)
    try:
        with locks.lock(locks.of_cell(store.folder, cell.hash), wait_s=ENDING_S):
            before = store.of_cell(cell.hash)
            if before is not None and before.done:
                return Ran(None)
            work = work_folder(store, cell)
            run_id = begin(cell, store)
            record = _failure(cell, command, run_id, status, why, data)
            _keep_failure(store, run_id, record, work)
            return Ran(record)
    except locks.Held:
        return Ran(None)


def keep_unfit(cell: Cell, folder: Path, command: str, why: str, data: Data | None = None) -> Ran:
    """Keep a cell whose operator has no slot in its host, once for each code of the operator.

    Args:
        cell: what cannot be run.
        folder: the runs folder.
        command: the command line that asked for it.
        why: in words.
        data: what its data are.
    """
    store = Store(folder, wait_s=WAIT_S)
    code = code_of(cell)
    before = store.of_cell(cell.hash)
    if before is not None and (before.done or before.tags.get(UNFIT) == code):
        return Ran(None)
    work = work_folder(store, cell)
    run_id = begin(cell, store)
    record = _failure(cell, command, run_id, "unsupported", why, data)
    _keep_failure(store, run_id, record, work)
    store.tag(run_id, {UNFIT: code})
    shutil.rmtree(work, ignore_errors=True)
    return Ran(record)


def _failure(
    cell: Cell, command: str, run_id: str, status: Status, why: str, data: Data | None
) -> Record:
    parts: dict[str, Any] = {"kind": "accuracy", "status": status, "error": why, "data": data}
    return record_of(cell, command=command, run_id=run_id, **parts)


def _keep_failure(store: Store, run_id: str, record: Record, work: Path) -> None:
    store.keep(run_id, record.save(work), "records")
    store.tag(run_id, {"error": str(record.error)[:5000]})
    store.end(run_id, "FAILED")


def _keep_score(store: Store, run_id: str, record: Record, work: Path) -> None:
    from bench.run.resume import LAST

    accuracy = record.accuracy
    assert accuracy is not None
    assert record.recipe is not None
    if accuracy.outcomes is not None:
        store.keep(run_id, work / accuracy.outcomes.file, "records")
    curves = work / "curves.json"
    write_whole(curves, json.dumps(accuracy.curve))
    store.keep(run_id, curves)
    final = {f"final/{k}": m.value for k, m in accuracy.metrics.items()}
    # what the board ranks by, once more, in the group whose charts the UI shows first
    final[f"board/{accuracy.headline}"] = accuracy.metrics[accuracy.headline].value
    spent = record.recipe.model_dump(include={"train_seconds", "samples_seen"})
    spent |= memory_held()
    store.metrics(run_id, final | {name: float(value) for name, value in spent.items()})
    files = {DATA: record.data.files_sha256} if record.data else {}
    store.tag(run_id, {"headline": accuracy.headline, **files})
    store.keep(run_id, work / LAST, CHECKPOINT.rpartition("/")[0])
    store.keep(run_id, record.save(work), "records")


def memory_held() -> dict[str, int]:
    """Return the most memory that this process has held so far: its own, and torch's on a GPU."""
    import torch

    held = {MEMORY: machine.peak_bytes()}
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        held[GPU_MEMORY] = torch.cuda.max_memory_reserved()
    return held


def _tags(cell: Cell) -> dict[str, str]:
    git = machine.git_state()
    return {
        **cell.tags(),
        CELL: cell.hash,
        CODE: code_of(cell),
        "git.commit": str(git["git_commit"]),
        "git.dirty": str(git["git_dirty"]).lower(),
    }
