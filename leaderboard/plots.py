"""The plots, as Vega-Lite specifications and as SVG: the only file that imports Altair.

Colours are CSS variables of the page, so that a plot follows the reader's light or dark theme.
Every string of a record is data or a plain title, never an expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from leaderboard.labels import HEIGHT, SIDES, place_labels
from leaderboard.rows import Board, Row
from leaderboard.show import Show

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
INK, MUTED, LINE, ACCENT = "var(--ink)", "var(--muted)", "var(--line)", "var(--accent)"


@cache
def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network."""
    names = "vegaEmbed, vega, vegaLite"
    text: str = vl_convert.javascript_bundle(f"Object.assign(window, {{{names}}});", VEGA_LITE)
    if "</script" in text.lower():
        raise RuntimeError("the bundle of Vega cannot stand inside a script element.")
    return text


def board_plot(board: Board, show: Show) -> dict[str, Any] | None:
    """Accuracy against batch-1 latency with intervals on both axes; None without speed.

    The points are the arms that have both; `left_out` names the others.
    """
    points = [_point(row, show) for row in board.rows if plotted(row)]
    if not points or board.metric is None or board.headline is None:
        return None
    x_scale = _domain(points, "x")
    y_scale = _domain(points, "y")
    if board.metric.unit == "fraction":
        y_scale = [max(y_scale[0], 0.0), min(y_scale[1], 100.0)]
    place_labels(points, x_scale, y_scale)
    seeds = [{"x": p["x"], "y": value} for p in points for value in p.pop("seeds") if p["x"]]
    batch = next(r.latency.speed.batch for r in board.rows if r.latency and r.latency.speed)
    better = "higher" if board.metric.higher_is_better else "lower"
    x = alt.X("x", type="quantitative").scale(domain=x_scale, nice=False)
    x = x.axis(grid=False, tickCount=8).title(f"latency, batch {batch} (ms, lower is better)")
    y = alt.Y("y", type="quantitative").scale(domain=y_scale, nice=False)
    y = y.axis(tickCount=6).title(
        f"{show.metric_name(board.headline)} ({show.unit}, {better} is better)"
    )
    data = alt.Data(values=points)
    baseline = alt.datum.baseline
    tooltip = [
        alt.Tooltip("label", type="nominal", title="arm"),
        alt.Tooltip("score", type="nominal", title=show.metric_name(board.headline)),
        alt.Tooltip("latency", type="nominal", title="latency"),
        alt.Tooltip("ratio", type="nominal", title="time / baseline"),
        alt.Tooltip("rank", type="nominal", title="rank"),
    ]
    across = alt.Chart(data).mark_rule(color=ACCENT, opacity=0.6, strokeWidth=1.5, clip=True)
    across = across.encode(
        x=alt.X("x_low", type="quantitative").scale(domain=x_scale, nice=False),
        x2="x_high",
        y=y,
    ).transform_filter("isValid(datum.x_low)")
    along = alt.Chart(data).mark_rule(color=ACCENT, opacity=0.6, strokeWidth=1.5, clip=True)
    along = along.encode(
        x=x,
        y=alt.Y("y_low", type="quantitative").scale(domain=y_scale, nice=False),
        y2="y_high",
    ).transform_filter("isValid(datum.y_low)")
    single = alt.Chart(alt.Data(values=seeds)).mark_tick(
        color=MUTED, opacity=0.7, size=9, thickness=1.5, orient="horizontal", clip=True
    )
    marks = (
        alt.Chart(data)
        .mark_point(filled=True, size=95, strokeWidth=2)
        .encode(
            x=x,
            y=y,
            shape=alt.condition(baseline, alt.value("diamond"), alt.value("circle")),
            fill=alt.condition(baseline, alt.value("var(--paper)"), alt.value(ACCENT)),
            stroke=alt.condition(baseline, alt.value(INK), alt.value(ACCENT)),
            opacity=alt.condition(alt.datum.stale, alt.value(0.45), alt.value(1)),
            tooltip=tooltip,
        )
    )
    labels = [
        alt.Chart(data)
        .mark_text(align=align, dx=dx, dy=dy, baseline="middle", color=INK, fontSize=13)
        .encode(x=x, y=y, text=alt.Text("text", type="nominal"))
        .transform_filter(f"datum.side === '{side}'")
        for side, (align, dx, dy) in SIDES.items()
    ]
    layers = [across, along, single.encode(x=x, y=y), marks, *labels]
    chart = alt.layer(*layers).properties(width="container", height=HEIGHT)
    return _spec(chart)


def plotted(row: Row) -> bool:
    """Whether the row has a place in the plot: a score and a latency."""
    speed = row.latency.speed if row.latency else None
    return row.mean is not None and speed is not None and speed.latency_median_ms is not None


@debug_mode(False)  # checking each part against the schema takes longer than drawing
def curve_plot(curves: Mapping[int, Sequence[float | None]], name: str) -> str:
    """One metric per epoch, a line per seed, as SVG; where it was no number there is a gap."""
    points = [
        {"epoch": epoch, "value": value, "seed": f"seed {seed}"}
        for seed, values in sorted(curves.items())
        for epoch, value in enumerate(values, start=1)
    ]
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("epoch", type="quantitative").axis(tickMinStep=1, format="d").title("epoch"),
        y=alt.Y("value", type="quantitative").scale(zero=False).title(name),
        detail=alt.Detail("seed", type="nominal"),
    )
    line = base.mark_line(color=ACCENT, strokeWidth=1.8, opacity=0.8)
    dots = base.mark_point(color=ACCENT, filled=True, size=22)
    return _svg(alt.layer(line, dots).properties(width=330, height=190))


@debug_mode(False)
def samples_plot(
    samples: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], label: str, to: str
) -> str:
    """Every raw time of an arm and of the baseline beside it, process by process, as SVG."""
    beside = [(to, baseline, MUTED, -0.16)] if to != label else []
    this = (label, samples, ACCENT, 0.16 if beside else 0.0)
    times: list[dict[str, Any]] = []
    for name, processes, colour, shift in [*beside, this]:
        for process, rounds in enumerate(processes, start=1):
            for index, time in enumerate(rounds):
                x = process + shift + 0.26 * ((index + 0.5) / len(rounds) - 0.5)
                times.append({"x": x, "y": time, "arm": name, "colour": colour})
    count = max(len(samples), len(baseline), 1)
    ticks = list(range(1, count + 1))
    chart = (
        alt.Chart(alt.Data(values=times))
        .mark_point(filled=True, size=16, opacity=0.75)
        .encode(
            x=alt.X("x", type="quantitative")
            .scale(domain=[0.5, count + 0.5], nice=False)
            .axis(values=ticks, format="d", grid=False)
            .title("process (rounds from left to right)"),
            y=alt.Y("y", type="quantitative").scale(zero=False).title("time of one forward (ms)"),
            color=alt.Color("colour", type="nominal").scale(None),
        )
        .properties(width=330, height=190)
    )
    return _svg(chart)


def _point(row: Row, show: Show) -> dict[str, Any]:
    speed = row.latency.speed if row.latency else None
    assert row.latency is not None
    assert row.mean is not None
    assert speed is not None
    assert speed.latency_median_ms is not None
    latency, score = speed.latency_median_ms, row.interval
    stale = bool(row.stale) or row.is_stale(row.latency)
    words = [*(["baseline"] if row.baseline else []), *(["stale"] if stale else [])]
    return {
        "label": row.label,
        "text": f"{row.label} ({', '.join(words)})" if words else row.label,
        "baseline": row.baseline,
        "stale": stale,
        "x": latency.value,
        "x_low": latency.low,
        "x_high": latency.high,
        "y": show.scaled(row.mean),
        "y_low": show.scaled(score.low) if score else None,
        "y_high": show.scaled(score.high) if score else None,
        "seeds": [show.scaled(value) for value in row.scores.values()],
        "score": f"{show.score(row.mean)} {show.score_interval(row.interval)}".strip(),
        "latency": f"{show.number(latency.value)} {show.interval(latency)} ms",
        "ratio": show.ratio(speed.ratio_to_baseline),
        "rank": show.rank(row.rank),
    }


def _domain(points: Sequence[Mapping[str, Any]], axis: str) -> list[float]:
    """Range of the points and of their intervals, which may reach half the range beyond it.

    Where little is known an interval is many times the range of the points; the plot cuts it
    (the table has it whole) or the points could not be told apart.
    """
    values = [point[axis] for point in points]
    if axis == "y":
        values += [value for point in points for value in point["seeds"]]
    low, high = min(values), max(values)
    span = (high - low) or abs(high) * 0.2 or 1.0
    bounds = [point[f"{axis}_{end}"] for point in points for end in ("low", "high")]
    ends = [bound for bound in bounds if bound is not None]
    low = max(min([low, *ends]), low - span / 2)
    high = min(max([high, *ends]), high + span / 2)
    margin = 0.08 * (high - low or span)
    return [low - margin, high + margin]


def _themed(chart: Any) -> Any:
    return (
        chart.configure(background="transparent", font="system-ui, sans-serif", padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED,
            titleColor=MUTED,
            gridColor=LINE,
            domainColor=LINE,
            tickColor=LINE,
            titleFontWeight="normal",
            labelFontSize=12,
            titleFontSize=13,
            titlePadding=10,
        )
    )


def _spec(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = _themed(chart).to_dict()
    del spec["$schema"]  # an address, which nothing needs
    return spec


def _svg(chart: Any) -> str:
    svg: str = vl_convert.vegalite_to_svg(_themed(chart).to_dict(), vl_version=VEGA_LITE)
    return svg
