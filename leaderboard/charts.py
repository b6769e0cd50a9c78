"""The small charts of the pages of arms and operators: curves, raw times, taps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import escape

from leaderboard.labels import shortened
from leaderboard.svg import Scale, domain, drawing, element, line, text, tick_text, whole_ticks

WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 10.0, 24.0, 40.0
CELL, LINE = 15.0, 14.0
"""Side of a tap, and height of a line of text, in pixels."""


def frame(
    up: Scale, y_title: str, x_title: str, width: float = WIDTH, height: float = HEIGHT
) -> list[str]:
    """Draw the axes: the lines of the axis upwards, and the titles."""
    ticks = up.ticks(4)
    parts = [text(y_title, 2, 13, class_="name")]
    for tick in ticks:
        parts.append(line(LEFT, up(tick), width - RIGHT, up(tick), "grid"))
        words = tick_text(tick, [tick] if up.log else ticks)
        parts.append(text(words, LEFT - 6, up(tick) + 4, class_="tick", text_anchor="end"))
    bottom = height - BOTTOM
    parts.append(line(LEFT, bottom, width - RIGHT, bottom, "axis"))
    middle = (LEFT + width - RIGHT) / 2
    parts.append(text(x_title, middle, height - 4, class_="name", text_anchor="middle"))
    return parts


def x_tick(at: float, words: str, height: float = HEIGHT) -> str:
    """Draw the words of a tick of the axis across."""
    return text(words, at, height - BOTTOM + 16, class_="tick", text_anchor="middle")


def curve_chart(
    curves: Mapping[int, Sequence[tuple[int, float | None]]], title: str, family: int
) -> str:
    """One metric by epoch, a line per seed; where it was no number there is a gap.

    Args:
        curves: seed → (epoch, value) in order.
        title: of the axis upwards.
        family: number of the colour.
    """
    values = [v for points in curves.values() for _, v in points if v is not None]
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    if not values:
        return ""
    low, high = domain(values, [], [], log=False)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    first, last = min(epochs), max(max(epochs), min(epochs) + 1)
    across = Scale(first, last, LEFT + 8, WIDTH - RIGHT - 8)
    parts = frame(up, title, "epoch")
    parts += [x_tick(across(t), str(t)) for t in whole_ticks(first, last, 6)]
    for seed, points in sorted(curves.items()):
        pieces: list[list[str]] = [[]]
        for epoch, value in points:
            if value is None:
                pieces.append([])
            else:
                pieces[-1].append(f"{across(epoch):.1f},{up(value):.1f}")
        inside = [f"<title>seed {seed}</title>"]
        inside += [
            element("polyline", points=" ".join(piece), class_="curve")
            for piece in pieces
            if len(piece) > 1
        ]
        dots = "".join(f"M{spot}h0" for piece in pieces for spot in piece)
        inside.append(element("path", d=dots, class_="sample"))
        parts.append(element("g", "".join(inside), class_=f"f{family}"))
    return drawing(parts, WIDTH, HEIGHT, f"{title} by epoch, a line per seed")


def samples_chart(
    samples: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    label: str,
    to: str,
    family: int,
) -> str:
    """Every raw time of an arm and of the baseline beside it, process by process.

    Args:
        samples: process → times in ms, in order.
        baseline: the same of the baseline.
        label: the arm's.
        to: the baseline's label.
        family: number of the arm's colour.
    """
    beside = [(baseline, "beside", -0.17)] if to != label else []
    every = [*beside, (samples, f"f{family}", 0.17 if beside else 0.0)]
    times = [time for processes, _, _ in every for rounds in processes for time in rounds]
    if not times:
        return ""
    low, high = domain(times, [], [], log=False)
    up = Scale(max(low, 0.0), high, HEIGHT - BOTTOM, TOP)
    count = max(len(samples), len(baseline))
    across = Scale(0.5, count + 0.5, LEFT, WIDTH - RIGHT)
    parts = frame(up, "one pass (ms)", "process, its rounds from left to right")
    parts += [x_tick(across(process), str(process)) for process in range(1, count + 1)]
    for processes, class_, shift in every:
        dots = []
        for process, rounds in enumerate(processes, start=1):
            left, step = across(process + shift - 0.135), (across(2) - across(1)) * 0.27
            step /= max(len(rounds), 1)
            for index, time in enumerate(rounds):
                dots.append(f"M{left + step * (index + 0.5):.1f},{up(time):.1f}h0")
        parts.append(element("path", d="".join(dots), class_=f"{class_} sample"))
    return drawing(parts, WIDTH, HEIGHT, f"Raw times of {label}, process by process")


def taps_chart(pictures: Sequence[tuple[str, Sequence[str]]], name: str, family: int) -> str:
    """Kernels side by side, tap by tap: '#' strong, '+' pale, 'o' the pixel, '.' none.

    Args:
        pictures: caption and rows of each kernel.
        name: of the operator.
        family: number of the colour.
    """
    parts, left, tallest = [], 8.0, max((len(rows) for _, rows in pictures), default=0)
    for caption, rows in pictures:
        columns = max((len(row) for row in rows), default=0)
        width = max(columns * CELL, 7.2 * len(caption))
        top = 8 + (tallest - len(rows)) * CELL / 2
        for i, row in enumerate(rows):
            for j, tap in enumerate(row):
                if tap == " ":
                    continue
                kind = {"#": "strong", "+": "pale", "o": "strong middle"}.get(tap, "none")
                x = left + (width - columns * CELL) / 2 + j * CELL
                parts.append(
                    element(
                        "rect",
                        x=x,
                        y=top + i * CELL,
                        width=CELL - 2,
                        height=CELL - 2,
                        rx=2,
                        class_=f"tap {kind}",
                    )
                )
        at = left + width / 2
        parts.append(text(caption, at, tallest * CELL + 26, class_="tick", text_anchor="middle"))
        left += width + 26
    group = element("g", "".join(parts), class_=f"f{family}")
    return drawing([group], max(left - 18, 60), tallest * CELL + 36, f"Taps of {name}")


def lines_chart(
    curves: Sequence[tuple[str, int, Sequence[tuple[float, float, float, float]]]],
    y_title: str,
    x_title: str,
    *,
    wide: bool = True,
) -> str:
    """Curves over a size, on logarithmic axes, with intervals, each named at the right edge.

    Args:
        curves: name, number of the colour, and (x, value, low, high) in order of x; all positive.
        y_title: of the axis upwards.
        x_title: of the axis across.
        wide: for a window; else for a telephone.
    """
    values = [v for _, _, points in curves for _, *three in points for v in three]
    if not values:
        return ""
    width, height, room, letters = (560.0, 360.0, 130.0, 18) if wide else (340.0, 300.0, 86.0, 11)
    up = Scale(*domain(values, [], [], log=True), height - BOTTOM, TOP, log=True)
    xs = sorted({x for _, _, points in curves for x, *_ in points})
    across = Scale(xs[0] * 0.95, xs[-1] * 1.05, LEFT, width - RIGHT - room, log=True)
    parts = frame(up, y_title, x_title, width, height)
    shown: list[float] = []
    for x in xs:
        if not shown or across(x) - across(shown[-1]) > 26:
            shown.append(x)
            parts.append(x_tick(across(x), f"{x:g}", height))
    ordered = sorted(curves, key=lambda curve: -curve[2][-1][1])
    ends: list[float] = []
    for _, _, points in ordered:
        ends.append(max([up(points[-1][1]), *(end + LINE for end in ends)]))
    over = max(0.0, ends[-1] - (height - BOTTOM))
    edge = across(xs[-1]) + 22
    for (name, family, points), end in zip(ordered, ends, strict=True):
        spots = [(across(x), up(v)) for x, v, _, _ in points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        inside = [element("title", str(escape(name)))]
        inside.append(line(spots[-1][0] + 4, spots[-1][1], edge - 3, end - over, "leader"))
        inside += [line(across(x), up(a), across(x), up(b), "reach") for x, _, a, b in points]
        inside.append(element("polyline", points=way, class_="curve"))
        inside.append(
            element("path", d="".join(f"M{x:.1f},{y:.1f}h0" for x, y in spots), class_="sample")
        )
        inside.append(text(shortened(name, letters), edge, end - over + 4, class_="label small"))
        parts.append(element("g", "".join(inside), class_=f"f{family}"))
    class_ = "wide" if wide else "narrow"
    return drawing(parts, width, height, f"{y_title} against {x_title}", class_=class_)
