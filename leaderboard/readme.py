"""README's board: the picture and the table of five lines, from the published records.

`python -m leaderboard.readme` (`nox -s readme`) makes them anew; a test says when they are old.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.record import load_all
from bench.whole_files import write_whole
from leaderboard.board import boards
from leaderboard.board_files import plot_style
from leaderboard.board_page import BoardView, choice_key
from leaderboard.board_plot import drawn
from leaderboard.names import opening

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "results", HERE / "board.svg"
LINES = 5
PLACE = re.compile(r"!\[[^\n]*\]\(leaderboard/board\.svg\)\n(\n(\|[^\n]*\n)+)?")
"""The picture in README, and the table behind it."""


def board() -> BoardView:
    """Return the board of README: the one that the published site opens with."""
    return BoardView(opening(boards(load_all(RESULTS))))


def picture(view: BoardView) -> str:
    """Return the plot of a board as a file by itself."""
    plot = drawn(view, view.usual, "relative", "wide", style=plot_style())
    if plot is None:
        raise ValueError("README's board needs scores, times and a baseline.")
    return plot.svg


def table(view: BoardView) -> str:
    """Return the first lines of a board as Markdown, behind the picture with its words."""
    show, key = view.show, choice_key(view.usual)
    assert view.usual.choice is not None
    name = show.metric_name(view.board.headline)
    words = f"{view.board.title} in {view.board.first.entry.host}: {name} against time"
    unit = show.difference_unit
    head = [
        "",
        f"{name} ({show.unit})",
        f"over {view.baseline} ({unit})",
        f"time ÷ {view.baseline}'s",
    ]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for line in view.lines[:LINES]:
        cells = [line.cells[column] for column in ("score", "contrast", f"ratio-{key}")]
        lines.append([line.row.label, *(f"{cell.text} {cell.note}".strip() for cell in cells)])
    rows = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"![{words}](leaderboard/board.svg)\n\n{rows}"


def refreshed(readme: str, view: BoardView) -> str:
    """Return README with the picture's words and the table of a board."""
    return PLACE.sub(lambda _: table(view), readme, count=1)


def main() -> None:
    """Write the picture and the table anew."""
    view, readme = board(), HERE.parent / "README.md"
    write_whole(PICTURE, picture(view))
    write_whole(readme, refreshed(readme.read_text(encoding="utf-8"), view))


if __name__ == "__main__":
    main()
