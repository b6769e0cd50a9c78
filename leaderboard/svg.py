"""What drawings are made of: scales, ticks, and SVG as text, with everything escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import escape

STEPS = (1.0, 2.0, 5.0, 10.0)
LOG_STEPS = (
    (1,),
    (1, 2, 5),
    (1, 2, 3, 5, 7),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
)


@dataclass(frozen=True)
class Scale:
    """Values to pixels, along one axis.

    Example:
        >>> scale = Scale(0.0, 10.0, 0.0, 100.0)
        >>> scale(5.0), scale.ticks(4)
        (50.0, [0.0, 5.0, 10.0])
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, kept inside the axis."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, count: int) -> list[float]:
        """Return round values, about so many of them."""
        if self.log:
            for steps in LOG_STEPS:
                decades = range(
                    math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1
                )
                found = [
                    float(f"{s * 10.0**d:.12g}")
                    for d in decades
                    for s in steps
                    if self.low <= s * 10.0**d <= self.high
                ]
                if len(found) >= 3:
                    return found if len(found) <= 2 * count else found[:: len(found) // count]
        span = self.high - self.low
        raw = span / max(count, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * s for s in STEPS if power * s >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [
            round(i * step, 12) + 0.0 for i in range(first, math.floor(self.high / step + 1e-9) + 1)
        ]


def whole_ticks(low: int, high: int, count: int) -> list[int]:
    """Return whole numbers from `low` to `high`, about so many.

    Example:
        >>> whole_ticks(1, 5, 6), whole_ticks(0, 300, 6)
        ([1, 2, 3, 4, 5], [0, 50, 100, 150, 200, 250, 300])
    """
    values = Scale(low, max(high, low + 1), 0, 1).ticks(min(count, max(high - low, 1)))
    return [int(value) for value in values if value == int(value)]


def domain(
    values: Sequence[float], bounds: Sequence[float], include: Sequence[float], *, log: bool
) -> tuple[float, float]:
    """Range of an axis: the values, and of their intervals as much as half that range beyond.

    Where little is known an interval is many times the range of the points; the plot cuts it
    (the table has it whole), or the points could not be told apart.

    Args:
        values: of the points; positive where `log`.
        bounds: ends of their intervals.
        include: what must be seen, e.g. the baseline.
        log: whether the axis is logarithmic.
    """

    def to(value: float) -> float:
        return math.log(max(value, 1e-12)) if log else value

    inner = [to(value) for value in [*values, *include]]
    low, high = min(inner), max(inner)
    span = high - low or (0.2 if log else abs(high) * 0.2) or 1.0
    ends = [to(bound) for bound in bounds]
    low = max(min([low, *ends]), low - span / 2)
    high = min(max([high, *ends]), high + span / 2)
    margin = 0.08 * (high - low or span)
    low, high = low - margin, high + margin
    return (math.exp(low), math.exp(high)) if log else (low, high)


def tick_text(value: float, ticks: Sequence[float], *, sign: bool = False) -> str:
    """A tick's value with as many places as its neighbours need.

    Example:
        >>> [tick_text(t, [-0.5, 0.0, 0.5], sign=True) for t in (-0.5, 0.0, 0.5)]
        ['−0.5', '0.0', '+0.5']
        >>> tick_text(5000.0, [0.0, 5000.0])
        '5,000'
    """
    places = 0
    while places < 6 and any(abs(round(tick, places) - tick) > 1e-9 for tick in ticks):
        places += 1
    text = f"{value:+,.{places}f}" if sign and value else f"{value:,.{places}f}"
    return text.replace("-", "−")


@lru_cache(maxsize=4096)
def _safe(words: str) -> str:
    """A value for an attribute; the same few come again and again."""
    return str(escape(words))


def element(name: str, content: str = "", **attributes: object) -> str:
    """One element; `class_` is class, `_` in names is a dash, numbers are rounded.

    Args:
        name: of the element.
        content: ready SVG inside; escape what is text.
        attributes: escaped here; None leaves one out.

    Example:
        >>> element("circle", cx=1.23456, class_="a", stroke_width=2)
        '<circle cx="1.2" class="a" stroke-width="2"/>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else _safe(str(value))
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{shown}"')
    opening = " ".join(parts)
    return f"<{opening}>{content}</{name}>" if content else f"<{opening}/>"


def text(words: str, x: float, y: float, **attributes: object) -> str:
    """A line of text, escaped."""
    return element("text", str(escape(words)), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def drawing(
    parts: Sequence[str],
    width: float,
    height: float,
    name: str,
    *,
    style: str = "",
    class_: str = "",
) -> str:
    """A whole drawing; with `style` a file by itself, without it a part of a page.

    Args:
        parts: its elements.
        width: in pixels.
        height: in pixels.
        name: what is drawn, for those who can't see it.
        style: style sheet of a file by itself.
        class_: of the element in a page.
    """
    inside = "".join(parts)
    if style:
        inside = f"<style>{style}</style>" + inside
    return element(
        "svg",
        f"<title>{escape(name)}</title>" + inside,
        xmlns="http://www.w3.org/2000/svg" if style else None,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        class_=f"chart {class_}".strip(),
        role="group" if "<a " in inside else "img",  # what can be followed must be reached
        aria_label=name,
    )
