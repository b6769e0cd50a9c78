"""Public checkpoints scored as they are: no training, a record that stands apart from trained ones.

The record's recipe is named "official", with no epochs, and its entry is not ranked: it stands on
no board, since nobody here trained it by the board's recipe.
"""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from bench import locks
from bench.config.cell import Cell, without_start
from bench.config.lightning import build
from bench.errors import UserError
from bench.hashing import file_sha256
from bench.local import found, located
from bench.record import Record
from bench.run.cell import WAIT_S, begin, train, work_folder
from bench.run.fit import Fitted, finite, finite_scores
from bench.run.resume import LAST
from bench.store import Store
from tasks.official import load_whole

RECIPE = "official"
SCORED = {"max_epochs": 0, "precision": "32-true", "accumulate_grad_batches": 1, "devices": 1}
"""What a trainer that trains nothing is told."""


@dataclass(frozen=True)
class Checkpoint:
    """A cell to score, with the file of its weights.

    Attributes:
        cell: the host as it is, not ranked.
        file: name of its weights, as the suite has it.
        source: where they are published; "" where a user brought them.
        published: metric → what their authors print.
    """

    cell: Cell
    file: str
    source: str
    published: dict[str, float]

    @property
    def lacks(self) -> str | None:
        """Say what is not there and where it is to be put; None where all is."""
        root = self.cell.config["data"]["init_args"].get("root")
        if root is not None and not located(root).is_dir():
            return f"{self.cell.task}: its images must lie in {located(root).absolute()}"
        if not found(self.file).is_file():
            where = located(self.file).absolute()
            return f"{self.cell.host}: its weights, of {self.source}, must lie in {where}"
        return None


def checkpoints(cells: Sequence[Cell]) -> list[Checkpoint]:
    """Return what can be scored among the cells of a suite: each host once for a task.

    A host is scored where the suite names its authors' checkpoint, or a file was given to start
    from; the operator's arm must leave the host as it is.

    Raises:
        UserError: no cell has a checkpoint.
    """
    chosen: dict[tuple[str, str], Checkpoint] = {}
    for cell in cells:
        given = cell.backbone.get("weights")
        if cell.backbone.get("operator") is not None or not (given or cell.official):
            continue
        official = None if given else cell.official
        file = given or (official.file if official else "")
        chosen.setdefault(
            (cell.task, cell.host),
            Checkpoint(
                _scored(cell, file),
                file,
                official.source if official else "",
                official.published if official else {},
            ),
        )
    if not chosen:
        raise UserError(
            "`suite`: none of these cells has weights to score; a host of the suite names them by "
            "`official`, or --weights does, and its operator must be null."
        )
    return list(chosen.values())


def _scored(cell: Cell, file: str) -> Cell:
    """Return the cell that scores a file's weights: of no epochs, and on no board."""
    config = copy.deepcopy(cell.config)
    config["trainer"] |= SCORED
    config["model"]["init_args"].pop("ema_decay", None)
    arguments = config["model"]["init_args"]["backbone"]["init_args"]
    arguments.pop("pretrained", None)
    arguments["weights"] = file
    if found(file).is_file():
        arguments["weights_sha256"] = file_sha256(found(file))[:16]
    apart = {"ranked": False, "baseline": False, "learnt": {}, "scored": True}
    return cell.model_copy(update={"config": config, "recipe": RECIPE, **apart})


def score(
    checkpoint: Checkpoint,
    folder: Path,
    command: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Record:
    """Score a checkpoint, or return its record where that was done before.

    Args:
        checkpoint: what to score; nothing of it must lack.
        folder: the runs folder; see `bench.store.Store`.
        command: the command line that asked for it, for the record.
        progress: told of batches done, and of all.

    Raises:
        Held: another process scores it.
    """
    cell = checkpoint.cell
    store = Store(folder, wait_s=WAIT_S)
    store.require_writable()
    with locks.lock(locks.of_cell(store.folder, cell.hash)):
        before = store.of_cell(cell.hash)
        if before is not None and before.done:
            return store.record(before)
        work = work_folder(store, cell)
        run_id = begin(cell, store, resume=False)
        how = functools.partial(_evaluated, file=found(checkpoint.file), progress=progress)
        record, _ = train(cell, store, work, command, run_id, None, how=how)
        if record.status == "ok":
            store.done(run_id, record.filename)
        shutil.rmtree(work, ignore_errors=True)
        return record


def _evaluated(
    config: dict[str, Any], folder: Path, *, file: Path, progress: Callable[[int, int], None]
) -> Fitted:
    run = build({**config, "model": without_start(config["model"])})
    module = run.module
    load_whole(module.backbone, module.behind, file)
    told = _Told(progress)
    trainer = L.Trainer(
        **run.trainer
        | {"logger": False, "callbacks": [told], "enable_progress_bar": False}
        | {"enable_checkpointing": False, "default_root_dir": str(folder)}
    )
    (scored,) = trainer.validate(module, datamodule=run.data, verbose=False)
    metrics = finite_scores(module, scored)
    torch.save({"state_dict": module.state_dict()}, folder / LAST)
    return Fitted(
        metrics=metrics,
        curve={},
        per_class=finite(module.per_class()),
        outcomes=module.outcomes(),
        data=run.data.describe(),
        seconds=0.0,
        epochs=0,
        samples_seen=0,
        sampling_error=module.sampling_error(),
        forms={},
        notes=[],
        module=module,
        datamodule=run.data,
    )


class _Told(Callback):
    """Says how many batches are scored."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Say it."""
        self.progress(index + 1, int(sum(trainer.num_val_batches)))


def missing(every: Iterable[Checkpoint]) -> list[str]:
    """Say of each checkpoint that cannot be scored what lacks, each thing once."""
    return list(dict.fromkeys(filter(None, (one.lacks for one in every))))
