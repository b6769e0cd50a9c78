"""Drawings: labels that stay apart and inside, scales, ticks, and text that stays text."""

import random
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from leaderboard.charts import curve_chart, lines_chart, samples_chart, taps_chart
from leaderboard.labels import Box, place_labels
from leaderboard.scatter import Axis, Point, Span, board_plot
from leaderboard.svg import Scale, domain, tick_text


def points(count, seed, spread=1.0):
    draw = random.Random(seed)
    made = []
    for index in range(count):
        x, y = 1 + spread * draw.random(), 5 * spread * draw.gauss(0, 1)
        made.append(
            Point(
                key=str(index),
                label=f"operator {index}" + "x" * draw.randrange(30),
                words=f"<&> {index}",
                family=index % 9,
                x=Span(x, 0.97 * x, 1.04 * x),
                y=Span(y, y - 3, y + 2),
                baseline=index == 0,
            )
        )
    return made


AXES = (Axis("time", log=True, origin=1.0, suffix="×"), Axis("gain", origin=0.0, sign=True))


@pytest.mark.parametrize("width", [720.0, 340.0])
@pytest.mark.parametrize(("count", "spread"), [(1, 1.0), (7, 0.01), (12, 1.0), (60, 0.3)])
def test_labels_never_collide_nor_leave_the_plot(count, spread, width):
    plot = board_plot(points(count, count, spread), *AXES, name="a plot", width=width)
    boxes = [label.box for label in plot.labels if label]
    assert boxes
    assert len(boxes) == count or count > (12 if width > 500 else 7)
    for index, box in enumerate(boxes):
        assert box.inside(plot.area)
        assert not any(box.overlap(other) for other in boxes[index + 1 :])


def test_a_plot_is_one_drawing_with_its_points_and_text_as_text():
    plot = board_plot(points(7, 0), *AXES, name="a <b> & 'c'")
    tree = ElementTree.fromstring(plot.svg)
    groups = [g for g in tree.iter("g") if "point" in g.get("class", "")]
    assert sorted(g.get("data-arm") for g in groups) == [str(i) for i in range(7)]
    assert {g.find("title").text for g in groups} == {f"<&> {i}" for i in range(7)}
    assert tree.find("title").text == "a <b> & 'c'"
    assert tree.get("aria-label") == "a <b> & 'c'"


def test_points_stand_where_their_values_are():
    plot = board_plot(
        [
            Point("a", "a", "a", 0, Span(1.0), Span(0.0), baseline=True),
            Point("b", "b", "b", 1, Span(4.0), Span(2.0)),
            Point("c", "c", "c", 1, Span(2.0), Span(1.0)),
        ],
        *AXES,
        name="a plot",
    )
    tree = ElementTree.fromstring(plot.svg)
    c, b = (
        next(g.iter("circle"))
        for g in tree.iter("g")
        if g.get("data-arm") in "bc" and g.get("class")
    )
    corner = next(tree.iter("polygon")).get("points").split()
    a = float(corner[0].split(",")[0]), float(corner[1].split(",")[1])
    middle = (a[0] + float(b.get("cx"))) / 2, (a[1] + float(b.get("cy"))) / 2
    # half way of the logarithm of the time, and of the gain
    assert (float(c.get("cx")), float(c.get("cy"))) == pytest.approx(middle, abs=0.2)


def test_ticks_are_round_and_inside():
    assert Scale(0.93, 2.4, 0, 1, log=True).ticks(6) == [1.0, 1.5, 2.0]
    assert Scale(-7.3, 18.2, 0, 1).ticks(6) == [-5.0, 0.0, 5.0, 10.0, 15.0]
    assert [tick_text(t, [0.25, 0.5]) for t in (0.25, 0.5)] == ["0.25", "0.50"]
    for low, high in ((1e-9, 2e-9), (5.0, 5.1), (0.999, 1.001)):
        for log in (False, True):
            ticks = Scale(low, high, 0, 1, log=log).ticks(5)
            assert len(ticks) >= 2
            assert all(low <= tick <= high for tick in ticks)


def test_a_range_holds_the_points_and_as_much_of_the_intervals_as_helps():
    low, high = domain([1.0, 3.0], [-50.0, 3.5], [0.0], log=False)
    assert -2.5 < low < -1.5  # half of the range of the points beyond them, not 50
    assert 3.5 < high < 4.0
    low, high = domain([2.0, 2.0], [], [], log=True)
    assert low < 2.0 < high


def test_curves_have_whole_epochs_and_gaps():
    svg = curve_chart({0: [(5, 0.1), (10, None), (15, 0.3), (20, 0.4)]}, "val/top1", 2)
    tree = ElementTree.fromstring(svg)
    words = [t.text for t in tree.iter("text")]
    assert {"5", "10", "15", "20"} <= set(words)
    (line,) = tree.iter("polyline")
    assert len(line.get("points").split()) == 2  # the first point is alone before the gap
    assert [path.get("d").count("M") for path in tree.iter("path")] == [3]
    assert curve_chart({0: [(1, None)]}, "x", 0) == ""


def test_lines_are_named_and_the_names_stay_apart():
    curves = [
        (f"form<{index}>", index, [(7.0, 1.0, 0.9, 1.1), (14.0, 2.0 + index / 100, 1.9, 2.3)])
        for index in range(5)
    ]
    tree = ElementTree.fromstring(lines_chart(curves, "time (ms)", "side (pixels)"))
    labels = [t for t in tree.iter("text") if "label" in t.get("class", "")]
    assert sorted(t.text for t in labels) == [f"form<{index}>" for index in range(5)]
    heights = sorted(float(t.get("y")) for t in labels)
    assert min(b - a for a, b in pairwise(heights)) >= 13.9
    assert {"7", "14"} <= {t.text for t in tree.iter("text")}
    assert len(list(tree.iter("polyline"))) == 5
    assert lines_chart([], "time", "side") == ""


def test_every_raw_time_is_drawn():
    samples = [[1.0, 1.1, 1.2], [1.3, 1.4, 1.5]]
    tree = ElementTree.fromstring(samples_chart(samples, [[1.0] * 3] * 2, "acb", "dwconv", 4))
    assert [path.get("d").count("M") for path in tree.iter("path")] == [6, 6]


def test_taps_are_drawn_one_by_one():
    tree = ElementTree.fromstring(taps_chart([("square", ["#+.", " o#"])], "acb", 4))
    kinds = [rect.get("class") for rect in tree.iter("rect")]
    assert sorted(kinds) == [
        "tap none",
        "tap pale",
        "tap strong",
        "tap strong",
        "tap strong middle",
    ]


def test_no_label_where_there_is_no_room():
    narrow = Box(0, 0, 20, 20)
    assert place_labels([(10, 10)], ["longer than the plot"], [], narrow) == [None]
