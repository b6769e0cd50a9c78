"""How far the cells of a suite are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from bench import locks
from bench.config.cell import Cell
from bench.run.code import code_of
from bench.store import CODE, Kept

if TYPE_CHECKING:
    from bench.store import Store
    from bench.store.glance import Glance

State = Literal["done", "stale", "absent", "unfit", "failed", "started", "elsewhere", "waiting"]
TO_RUN = ("failed", "started", "elsewhere", "waiting")
"""States of cells that are to be run; a stale one is, where that is asked for."""


def states(
    cells: Sequence[Cell], store: Store | Glance, unfit: Collection[str] = ()
) -> dict[str, State]:
    """Return how far each cell is, by its hash; the store is asked once for all.

    - done: its record is kept; stale: done, by other code of the operator than today's.
    - absent: left out, for want of its data.
    - unfit: among `unfit`; its operator has no slot in its host, and it is not run.
    - failed: it ended without a score, and is to run again.
    - started: cut off; elsewhere: another process runs it just now.
    - waiting: never run.

    Args:
        cells: of a suite.
        store: where their runs are.
        unfit: hashes of those that do not fit; see `bench.run.fits.unfit`.

    Raises:
        StoreError: the experiment of one that is not done was deleted in MLflow.
    """
    kept = store.kept()
    state = {cell.hash: _state(cell, kept.get(cell.hash), store) for cell in cells}
    state |= {key: "unfit" for key in unfit if state.get(key) in ("waiting", "failed", "started")}
    store.require_active(cell.suite for cell in cells if state[cell.hash] in TO_RUN)
    return state


def _state(cell: Cell, run: Kept | None, store: Store | Glance) -> State:
    if run is not None and run.done:
        return "stale" if is_stale(cell, run.tags) else "done"
    if cell.absent:
        return "absent"
    if run is None:
        return "waiting"
    if run.status == "FAILED":
        return "failed"
    return "elsewhere" if locks.held(locks.of_cell(store.folder, cell.hash)) else "started"


def is_stale(cell: Cell, tags: Mapping[str, str]) -> bool:
    """Return whether a run is of other code of the cell's operator than today's."""
    return CODE in tags and tags[CODE] != code_of(cell)
