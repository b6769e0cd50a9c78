"""A finished cell's network, with its weights, with its data or without them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench.config.cell import without_start
from bench.errors import UserError
from bench.store import CHECKPOINT, CLASSES, Kept
from bench.store.reader import Reader

if TYPE_CHECKING:
    from tasks.base import TaskModule
    from tasks.data.module import TaskData


def trained(
    store: Reader, run: Kept, config: dict[str, Any] | None = None
) -> tuple[TaskModule, TaskData]:
    """Return the network of a cell that is done, with its weights, and the cell's data.

    Args:
        store: where runs are kept.
        run: a run that is done.
        config: of the cell; None reads it from the run.

    Raises:
        ValueError: the cell is not done, or its data is not there any more.
    """
    from bench.config import lightning

    _require_done(run)
    config = config or store.config(run)
    built = lightning.build({**config, "model": without_start(config["model"])})
    return _filled(store, run, built.module), built.data


@dataclass(frozen=True)
class Alone:
    """A trained network without its data.

    Attributes:
        module: the task's module, to evaluate.
        data: its data module, of which no file is opened: how images are made ready.
        class_names: by label.
        config: the cell's resolved configuration.
    """

    module: TaskModule
    data: TaskData
    class_names: tuple[str, ...]
    config: dict[str, Any]


def alone(store: Reader, run: Kept) -> Alone:
    """Return the network of a cell that is done, with its weights; its data need not be there.

    The names of the classes were kept with the run; of older runs they are read from the data.

    Raises:
        ValueError: the cell is not done, or it is an older one and its data is not there any more.
    """
    from bench.config import lightning

    _require_done(run)
    config = store.config(run)
    if CLASSES not in store.files(run.run_id, ""):
        module, data = trained(store, run, config)
        return Alone(module, data, tuple(data.class_names), config)
    with (
        TemporaryDirectory() as scratch,
        store.artifact(run.run_id, CLASSES, Path(scratch)) as path,
    ):
        names = tuple(map(str, json.loads(path.read_text(encoding="utf-8"))))
    built = lightning.build_module(without_start(config["model"]), len(names))
    data = lightning.build_data(config["data"])
    return Alone(_filled(store, run, built), data, names, config)


def _require_done(run: Kept) -> None:
    if not run.done:
        raise UserError(
            f"`cell` (={run.cell!r}) must be done, not {run.status.lower()}: it has no checkpoint."
        )


def _filled(store: Reader, run: Kept, module: TaskModule) -> TaskModule:
    from bench.run import fit

    with (
        TemporaryDirectory() as scratch,
        store.artifact(run.run_id, CHECKPOINT, Path(scratch)) as checkpoint,
    ):
        return fit.with_weights(module, checkpoint)
