"""A finished cell's network, with its weights, and its data."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.store import CHECKPOINT, Kept, Store

if TYPE_CHECKING:
    from tasks.base import TaskModule
    from tasks.data.module import TaskData


def trained(
    store: Store, run: Kept, config: dict[str, Any] | None = None
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
    from bench.run import fit

    if not run.done:
        raise UserError(
            f"`cell` (={run.cell!r}) must be done, not {run.status.lower()}: it has no checkpoint."
        )
    config = config or store.config(run)
    built = lightning.build(config)
    with (
        TemporaryDirectory() as scratch,
        store.artifact(run.run_id, CHECKPOINT, Path(scratch)) as checkpoint,
    ):
        return fit.with_weights(built.module, checkpoint), built.data
