"""What a store says of a cell, and which of its runs counts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError

CELL = "convboard.cell"
"""Tag: hash of the cell."""
DONE = "convboard.done"
"""Tag, set last, when the record and its files are kept: name of the record. Only this says that a
cell is done: MLflow's own status is set by whoever ends a run, before or after."""
CODE = "convboard.code"
"""Tag: hash of the operator's code."""
DATA = "convboard.data"
"""Tag of a cell that is done: hash of the files that it was trained and scored on."""
STUDIES = "CONVBOARD_STUDIES"
"""Variable: address of the database in which Optuna's studies are, in place of the folder's own."""
BOARD = "convboard.board"
"""Tag of a run that only groups: key of the board whose runs are its children."""
CHECKPOINT = "checkpoint/last.ckpt"
CLASSES = "classes.json"
"""Names of the classes, by label: what predictions are called when the data are not at hand."""


def default_folder() -> Path:
    """Where runs are kept: $CONVBOARD_RUNS, or `runs` in the working directory."""
    return Path(os.environ.get("CONVBOARD_RUNS", "runs"))


@dataclass(frozen=True)
class Kept:
    """A run that the store knows."""

    run_id: str
    experiment: str
    cell: str
    status: str
    started: int
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def done(self) -> bool:
        """Whether it ended well, and its record and files are kept."""
        return DONE in self.tags


def counting(runs: Iterable[Kept]) -> dict[str, Kept]:
    """Return the run that counts of every cell, by the cell's hash: the newest, or the done."""
    by_cell: dict[str, Kept] = {}
    for run in runs:
        other = by_cell.get(run.cell)
        if other is None or _order(run) > _order(other):
            by_cell[run.cell] = run
    return by_cell


def _order(run: Kept) -> tuple[bool, int, str]:
    """A run that is done counts before one that is not; of two alike the newer one does."""
    return run.done, run.started, run.run_id


def beginning_with(kept: Mapping[str, Kept], beginning: str, folder: Path) -> Kept:
    """Return the run that counts of the one cell whose hash begins so.

    Raises:
        UserError: there is none, or more than one.
    """
    matching = [run for cell, run in kept.items() if cell.startswith(beginning)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise UserError(
            f"`cell` (={beginning!r}): no cell that was run in {folder.name}/ has a hash "
            "that begins so; `convboard plan SUITE` lists them."
        )
    raise UserError(
        f"`cell` (={beginning!r}) begins the hashes of {len(matching)} cells in "
        f"{folder.name}/: {', '.join(sorted(run.cell for run in matching)[:5])}."
    )
