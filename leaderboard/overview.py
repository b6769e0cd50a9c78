"""The grid of the home page: a row per board, a column per operator, coloured by certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.across import GridCell, OperatorMean, Overview, overview
from leaderboard.board_page import BoardView
from leaderboard.names import operator_file
from leaderboard.rows import Board, status_words
from leaderboard.show import Show

LEANING = 0.9
"""Certainty of a sign from which a cell leans to it, though it may be chance."""


@dataclass(frozen=True)
class Tile:
    """A cell of the grid as it is shown; short, as there may be thousands.

    Attributes:
        text: the gain.
        class_: surely better (`sb`) or worse (`sw`), leaning so (`lb`, `lw`), or open (`op`).
        words: its interval.
    """

    text: str
    class_: str
    words: str


@dataclass(frozen=True)
class Grid:
    """The grid as it is shown."""

    found: Overview
    rows: tuple[tuple[BoardView, tuple[Tile | None, ...]], ...]
    pages: tuple[str, ...]
    """Of the operators, in their order."""
    zeros: bool
    """Whether the first column says nothing: it is the baseline's, and no board has another."""
    means: tuple[OperatorMean | None, ...]
    """Over all boards, one for each operator; the fixed baseline has none."""


def grid(views: Sequence[BoardView]) -> Grid:
    """Return the grid of boards and operators."""
    found = overview([view.board for view in views])
    by_key = {view.board.key: view for view in views}
    rows = []
    for board in found.boards:
        view = by_key[board.key]
        cells = (found.cell(operator, board) for operator in found.operators)
        rows.append((view, tuple(_tile(view, cell) if cell else None for cell in cells)))
    pages = {
        name: operator_file(cell.row.first.entry.operator)
        for (name, _), cell in found.cells.items()
    }
    means = {mean.operator: mean for mean in found.means}
    return Grid(
        found,
        tuple(rows),
        tuple(pages[name] for name in found.operators),
        found.baseline is not None and all(_of_baseline(found, board) for board in found.boards),
        tuple(means.get(name) for name in found.operators),
    )


def _of_baseline(found: Overview, board: Board) -> bool:
    """Whether the fixed baseline is the baseline of a board, or not there."""
    cell = found.cell(found.baseline or "", board)
    return cell is None or cell.verdict == "baseline"


def _tile(view: BoardView, cell: GridCell) -> Tile:
    show = view.show
    if cell.verdict == "baseline":
        return Tile("0", "op", "the baseline")
    if cell.verdict == "failed":
        return Tile("failed", "op", status_words(cell.row.first))
    if cell.verdict == "unfit":
        return Tile("does not fit", "op", "no slot of the host is one that it can take")
    if view.board.baseline is None:
        return Tile("?", "op", "no baseline on this board")
    if cell.difference is None:
        return Tile("?", "op", "no interval: too few seeds, or none shared")
    text = show.difference(cell.difference.value)
    interval = show.difference_interval(cell.difference)
    if cell.verdict in ("better", "worse"):
        return Tile(text, "sb" if cell.verdict == "better" else "sw", interval)
    if cell.certainty is not None and cell.certainty >= LEANING:
        return Tile(text, "lb" if _up(show, cell.difference.value) else "lw", interval)
    return Tile(text, "op", interval)


def _up(show: Show, value: float) -> bool:
    higher = show.metric is None or show.metric.higher_is_better
    return (value > 0) == higher
