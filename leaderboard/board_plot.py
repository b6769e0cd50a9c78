"""The points and axes of a board's plot: the gain against the time ratio, or both as they are."""

from __future__ import annotations

from typing import Literal

from bench.intervals import bounds
from bench.record import Interval
from leaderboard.board_page import BoardView
from leaderboard.families import colour
from leaderboard.names import entry_file
from leaderboard.rows import Row
from leaderboard.scatter import Axis, Plot, Point, Span, board_plot
from leaderboard.standing import Standing

Axes = Literal["relative", "absolute"]
SIZES = {"wide": (720.0, 400.0), "narrow": (340.0, 340.0)}
"""Of the drawing, in pixels: for a window, and for a telephone."""


def axes_of(view: BoardView, stand: Standing) -> tuple[Axes, ...]:
    """Return the axes on which a board can be drawn by one of its times, the first choice first."""
    if stand.choice is None or view.board.metric is None:
        return ()
    every: tuple[Axes, ...] = ("relative", "absolute") if view.baseline else ("absolute",)
    return tuple(
        axes
        for axes in every
        if any(_point(view, stand, row, axes, None) for row in view.board.rows)
    )


def drawn(
    view: BoardView,
    stand: Standing,
    axes: Axes,
    size: str,
    *,
    root: str | None = None,
    style: str = "",
) -> Plot | None:
    """Draw a board by one of its times; None where no arm has both numbers.

    Args:
        view: the board.
        stand: the time, and what was found by it.
        axes: relative to the baseline, or absolute.
        size: 'wide' or 'narrow'.
        root: way to the site's root, for the links of a page; None for a file by itself.
        style: style sheet of a file by itself.
    """
    points = [p for row in view.board.rows if (p := _point(view, stand, row, axes, root))]
    if not points or stand.choice is None or view.board.metric is None:
        return None
    up = "higher" if view.board.metric.higher_is_better else "lower"
    name = view.show.metric_name(view.board.headline)
    unit = view.show.unit
    batch = f", batch {stand.choice.batch}" if size == "wide" else ""
    if axes == "relative":
        x = Axis(
            f"time ÷ {view.baseline}'s{batch} (left is faster)", log=True, origin=1.0, suffix="×"
        )
        gain = view.show.difference_unit or "gain"
        shown = f"{name}: {gain} over {view.baseline} ({up} is better)"
        short = f"{name}: {gain} over {view.baseline}"
        y = Axis(shown if size == "wide" else short, origin=0.0, sign=True)
    else:
        x = Axis(f"time of a batch of {stand.choice.batch} (ms; left is faster)", log=True)
        bounds = (0.0, 100.0) if unit == "%" else (float("-inf"), float("inf"))
        y = Axis(f"{name} ({unit + '; ' if unit else ''}{up} is better)", bounds=bounds)
    width, height = SIZES[size]
    return board_plot(
        points,
        x,
        y,
        name=f"{view.board.title}: {name} against time of {len(points)} operators",
        width=width,
        height=height,
        style=style,
        class_=size,
    )


def _point(
    view: BoardView, stand: Standing, row: Row, axes: Axes, root: str | None
) -> Point | None:
    place, show, base = stand.of(row), view.show, view.board.baseline
    speed = place.record.speed if place.record else None
    if row.mean is None or speed is None:
        return None
    if axes == "relative":
        is_base = base is not None and row.key == base.key
        if is_base and place.verdict != "baseline":  # it could not be timed
            return None
        if not is_base and (place.ratio is None or row.difference is None):
            return None
        x = Span(1.0) if is_base or place.ratio is None else _span(place.ratio)
        within = row.difference.interval if row.difference else None
        value = row.difference.value if row.difference else 0.0
        y = Span(
            show.scaled(value),
            show.scaled(within.low) if within else None,
            show.scaled(within.high) if within else None,
        )
    else:
        if speed.latency_median_ms is None:
            return None
        x = _span(speed.latency_median_ms)
        interval = row.interval
        y = Span(
            show.scaled(row.mean),
            show.scaled(interval.low) if interval else None,
            show.scaled(interval.high) if interval else None,
        )
    stale = bool(row.stale) or (place.record is not None and row.is_stale(place.record))
    return Point(
        key=row.key[:12],
        label=row.label,
        words=_words(view, stand, row, stale=stale),
        family=colour(row.first.entry.operator),
        x=x,
        y=y,
        baseline=row.baseline,
        stale=stale,
        front=place.front.word if place.front else "maybe",  # or not known
        href=None if root is None else root + entry_file(view.board, row),
    )


def _span(interval: Interval) -> Span:
    return Span(interval.value, interval.low, interval.high)


def _words(view: BoardView, stand: Standing, row: Row, *, stale: bool) -> str:
    place, show = stand.of(row), view.show
    parts = [row.label]
    if row.baseline:
        parts.append("the baseline")
    if row.difference and row.difference.interval:
        parts.append(
            f"{show.difference(row.difference.value)} {show.difference_unit} "
            f"{show.difference_interval(row.difference.interval)}"
        )
    else:
        parts.append(f"{show.score(row.mean)} {show.unit} {show.score_interval(row.interval)}")
    if place.ratio and not row.baseline:
        ratio = place.ratio
        parts.append(f"{ratio.value:.2f}× the time {bounds(ratio.low, ratio.high, 2)}")
    if place.front:
        front = {"front": "on the front", "maybe": "maybe on the front", "no": "behind the front"}
        parts.append(front[place.front.word])
    if stale:
        parts.append("stale")
    return ", ".join(part.strip() for part in parts)
