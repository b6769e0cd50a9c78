"""The drawings of a board, its data for other pages, and the badge of the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from markupsafe import Markup, escape

from leaderboard.board_page import BoardView, choice_key
from leaderboard.board_plot import SIZES, Axes, axes_of, drawn
from leaderboard.encode import script_json
from leaderboard.pairs import board_pairs
from leaderboard.svg import drawing, element, text

CSS = Path(__file__).parent / "templates" / "css"


@dataclass(frozen=True)
class PagePlot:
    """A plot of a board's page: one time and one pair of axes, in every size."""

    choice: str
    axes: Axes
    svgs: tuple[Markup, ...]


@cache
def plot_style() -> str:
    """The style sheet of a drawing that is a file by itself."""
    return "".join((CSS / name).read_text(encoding="utf-8") for name in ("tokens.css", "chart.css"))


def plot_pages(view: BoardView) -> list[PagePlot]:
    """Return the plots of a board's page, the one that it opens with first."""
    return [
        PagePlot(
            choice_key(stand),
            axes,
            tuple(
                Markup(plot.svg)
                for size in SIZES
                if (plot := drawn(view, stand, axes, size, root="../"))
            ),
        )
        for stand in view.standings
        for axes in axes_of(view, stand)
    ]


def board_drawings(view: BoardView, name: str) -> dict[str, bytes]:
    """Return the drawings that other pages show, and anybody may.

    They are `boards/<name>-<time>.svg`, the narrow ones, and `boards/<name>.svg` of the usual time.
    They are relative to the baseline; where that has no score or no time, absolute.
    """
    files = {}
    for stand in view.standings:
        for axes, size in product(axes_of(view, stand)[:1], SIZES):
            plot = drawn(view, stand, axes, size, style=plot_style())
            if plot:
                end = "" if size == "wide" else f"-{size}"
                files[f"boards/{name}-{choice_key(stand)}{end}.svg"] = plot.svg.encode()
    usual = files.get(f"boards/{name}-{choice_key(view.usual)}.svg")
    return files | ({f"boards/{name}.svg": usual} if usual else {})


def board_script(
    view: BoardView, name: str, names: Mapping[str, str], cards: Mapping[str, str]
) -> bytes:
    """Return what other pages load of a board: its cards and its pairs."""
    data = {"cards": dict(cards), "pairs": board_pairs(view, names)}
    return f"convboard.board({script_json(name)}, {script_json(data)});\n".encode()


def badge(views: Sequence[BoardView]) -> bytes:
    """Return a badge: on how many boards how many operators stand."""
    arms = {row.label for view in views for row in view.board.rows}
    left = "ConvBoard"
    right = f"{len(arms)} operators on {len(views)} board{'' if len(views) == 1 else 's'}"
    a, b = 7.0 * len(left) + 14, 6.6 * len(right) + 14
    style = "text{font:12px Verdana,DejaVu Sans,sans-serif;fill:#fff}"
    parts = [
        element("rect", width=a + b, height=20, rx=4, fill="#0a5ca3"),
        element("path", d=f"M4,0H{a:.0f}V20H4a4,4 0 0 1 -4,-4V4a4,4 0 0 1 4,-4z", fill="#2b3036"),
        text(left, a / 2, 14, text_anchor="middle"),
        text(right, a + b / 2, 14, text_anchor="middle"),
    ]
    return drawing(parts, round(a + b), 20, f"{left}: {right}", style=str(escape(style))).encode()
