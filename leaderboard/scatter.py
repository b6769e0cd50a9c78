"""The plot of a board: every arm with its intervals on both axes, and a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import escape

from leaderboard.labels import Box, Label, place_labels, shortened
from leaderboard.svg import Scale, domain, drawing, element, line, text, tick_text

TOP, RIGHT, BOTTOM, LEFT = 34.0, 14.0, 48.0, 50.0
"""Margins, in pixels."""


@dataclass(frozen=True)
class Span:
    """A value with its interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """An arm in the plot.

    Attributes:
        key: of the arm's row, by which a page shows and hides it.
        label: what stands beside it.
        words: what is said when it is pointed at.
        family: number of its colour.
        x: on the axis across.
        y: on the axis upwards.
        baseline: a diamond.
        stale: pale.
        front: filled where it is surely on the front ('front'), half where 'maybe', else hollow.
        href: page of the arm; none in a file by itself.
    """

    key: str
    label: str
    words: str
    family: int
    x: Span
    y: Span
    baseline: bool = False
    stale: bool = False
    front: str = "front"
    href: str | None = None


@dataclass(frozen=True)
class Axis:
    """What is said of an axis.

    Attributes:
        title: with unit and direction.
        log: whether it is logarithmic.
        origin: the baseline's value, which gets a line.
        suffix: behind each tick's value.
        bounds: the least and the greatest value that there can be.
        sign: whether positive ticks have a sign.
    """

    title: str
    log: bool = False
    origin: float | None = None
    suffix: str = ""
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    sign: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot that is drawn, and how its labels lie in it."""

    svg: str
    area: Box
    labels: tuple[Label | None, ...]


def board_plot(
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    *,
    name: str,
    width: float = 720.0,
    height: float = 400.0,
    style: str = "",
    class_: str = "",
) -> Plot:
    """Draw the plot.

    Args:
        points: at least one, the most important first: their labels choose their places first.
        x: the axis across.
        y: the axis upwards.
        name: what is drawn, in words.
        width: of the drawing, in pixels.
        height: likewise.
        style: style sheet, for a file by itself.
        class_: of the drawing.
    """
    area = Box(LEFT, TOP, width - RIGHT, height - BOTTOM)
    across = _scale([p.x for p in points], x, area.left, area.right)
    up = _scale([p.y for p in points], y, area.bottom, area.top)
    spots = [(across(p.x.value), up(p.y.value)) for p in points]
    texts = [shortened(p.label, 26 if width > 500 else 16) for p in points]
    thin = [
        *(
            [Box(across(x.origin) - 1, area.top, across(x.origin) + 1, area.bottom)]
            if x.origin is not None
            else []
        ),
        *(
            [Box(area.left, up(y.origin) - 1, area.right, up(y.origin) + 1)]
            if y.origin is not None
            else []
        ),
    ]
    for p, (px, py) in zip(points, spots, strict=True):
        if p.x.low is not None and p.x.high is not None:
            thin.append(Box(across(p.x.low), py - 1, across(p.x.high), py + 1))
        if p.y.low is not None and p.y.high is not None:
            thin.append(Box(px - 1, up(p.y.high), px + 1, up(p.y.low)))
    labels = _placed(tuple(spots), tuple(texts), tuple(thin), area)
    few = 4 if width < 500 else 7
    parts = [
        *_across(across, x, area, few),
        *_upwards(up, y, area),
        *(_point(p, across, up) for p in reversed(points)),
        *(_label(p, label, spot) for p, label, spot in zip(points, labels, spots, strict=True)),
    ]
    return Plot(drawing(parts, width, height, name, style=style, class_=class_), area, labels)


@lru_cache(maxsize=64)
def _placed(
    spots: tuple[tuple[float, float], ...],
    texts: tuple[str, ...],
    thin: tuple[Box, ...],
    area: Box,
) -> tuple[Label | None, ...]:
    """Place labels; remembered, as every plot is drawn twice, for its page and as a file."""
    return tuple(place_labels(spots, texts, thin, area))


def _scale(spans: Sequence[Span], axis: Axis, start: float, end: float) -> Scale:
    values = [span.value for span in spans]
    ends = [end for span in spans for end in (span.low, span.high) if end is not None]
    include = [] if axis.origin is None else [axis.origin]
    low, high = domain(values, ends, include, log=axis.log)
    return Scale(max(low, axis.bounds[0]), min(high, axis.bounds[1]), start, end, log=axis.log)


def _across(scale: Scale, axis: Axis, area: Box, count: int) -> list[str]:
    ticks = scale.ticks(count)
    parts = [line(area.left, area.bottom, area.right, area.bottom, "axis")]
    for tick in ticks:
        at = scale(tick)
        parts.append(line(at, area.bottom, at, area.bottom + 4, "axis"))
        words = tick_text(tick, ticks if not axis.log else [tick], sign=axis.sign) + axis.suffix
        parts.append(text(words, at, area.bottom + 18, class_="tick", text_anchor="middle"))
    if axis.origin is not None:
        parts.append(line(scale(axis.origin), area.top, scale(axis.origin), area.bottom, "origin"))
    middle = (area.left + area.right) / 2
    parts.append(text(axis.title, middle, area.bottom + 38, class_="name", text_anchor="middle"))
    return parts


def _upwards(scale: Scale, axis: Axis, area: Box) -> list[str]:
    ticks = scale.ticks(6)
    parts = [text(axis.title, 2, 14, class_="name")]
    for tick in ticks:
        at = scale(tick)
        parts.append(line(area.left, at, area.right, at, "grid"))
        words = tick_text(tick, ticks, sign=axis.sign) + axis.suffix
        parts.append(text(words, area.left - 8, at + 4, class_="tick", text_anchor="end"))
    if axis.origin is not None:
        parts.append(line(area.left, scale(axis.origin), area.right, scale(axis.origin), "origin"))
    return parts


def _point(point: Point, across: Scale, up: Scale) -> str:
    x, y = across(point.x.value), up(point.y.value)
    parts = [f"<title>{escape(point.words)}</title>"]
    if point.x.low is not None and point.x.high is not None:
        parts.append(line(across(point.x.low), y, across(point.x.high), y, "reach"))
    if point.y.low is not None and point.y.high is not None:
        parts.append(line(x, up(point.y.low), x, up(point.y.high), "reach"))
    if point.baseline:
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
        parts.append(element("polygon", points=corners, class_="dot"))
    else:
        parts.append(element("circle", cx=x, cy=y, r=5.5, class_="dot"))
    group = element(
        "g",
        "".join(parts),
        class_=" ".join(
            [
                "point",
                f"f{point.family}",
                point.front or "front",
                *(["pale"] if point.stale else []),
            ]
        ),
        data_arm=point.key,
    )
    if point.href is None:
        return group
    return element("a", group, href=point.href, aria_label=point.words)


def _label(point: Point, label: Label | None, spot: tuple[float, float]) -> str:
    if label is None:
        return ""
    box, parts = label.box, []
    middle = (box.top + box.bottom) / 2
    if label.leader:
        near = min(max(spot[0], box.left), box.right)
        parts.append(line(spot[0], spot[1], near, min(max(spot[1], box.top), box.bottom), "leader"))
    # fonts differ in width: what grows, grows away from the point
    side = "end" if box.right <= spot[0] else "start" if box.left >= spot[0] else "middle"
    at = {"end": box.right, "start": box.left, "middle": (box.left + box.right) / 2}[side]
    parts.append(text(label.text, at, middle + 4.5, class_="label", text_anchor=side))
    return element("g", "".join(parts), data_arm=point.key)
