"""Curves of exact forms, and where they cross."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.record import Interval
from leaderboard.growth import Growth
from leaderboard.operator_page import growth_charts
from leaderboard.site import pages


def ms(value, spread=0.01):
    return Interval(value=value, low=value - spread, high=value + spread, method="t")


def growth(**forms):
    return Growth("parc", "size", 1, {"channels": 8}, None, forms)


def test_a_crossing_is_where_another_form_is_surely_the_fastest():
    curves = growth(
        direct={7: ms(1), 14: ms(2), 28: ms(9), 56: ms(99)},
        fft={7: ms(3), 14: ms(3), 28: ms(4), 56: ms(5)},
    )
    assert curves.crossings == [(7, 14, ["direct"]), (28, 56, ["fft"])]


def test_a_form_has_one_colour_on_a_page():
    line = {7: ms(1), 14: ms(2)}
    drawn = [
        growth_charts(growth(**dict.fromkeys(forms, line)), ["direct", "fft", "padded"])
        for forms in (("direct", "padded"), ("direct", "fft", "padded"))
    ]
    few, all_ = (dict(re.findall(r'class="(f\d)"><title>(\w+)<', svg)) for svg in drawn)
    assert sorted(all_.values()) == ["direct", "fft", "padded"]
    assert few.items() < all_.items()


def test_forms_that_cannot_be_told_apart_share_a_stretch_as_long_as_one_stays():
    curves = growth(a={7: ms(1), 14: ms(1), 28: ms(3)}, b={7: ms(1.005), 14: ms(2), 28: ms(1)})
    assert curves.fastest(7) == ["a", "b"]
    assert curves.crossings == [(7, 14, ["a"]), (28, 28, ["b"])]


def test_a_form_that_cannot_compute_a_size_is_missing_there():
    curves = growth(a={7: ms(5), 14: ms(5)}, b={14: ms(1)})
    assert curves.values == [7, 14]
    assert curves.crossings == [(7, 7, ["a"]), (14, 14, ["b"])]


@pytest.mark.parametrize(("spread", "words"), [(0.01, "a at 7 to 14"), (1, "a or b at 7 to 14")])
def test_the_words_name_all_that_may_be_the_fastest(spread, words):
    curves = growth(
        a={7: ms(1, spread), 14: ms(1, spread)}, b={7: ms(1.5, spread), 14: ms(2, spread)}
    )
    assert curves.words == f"parc, batch 1, side of the map: fastest is {words}."


def test_the_operator_page_draws_them():
    make = SimpleNamespace(
        **runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py")))
    )
    records = [make.accuracy(make.entry("parc"), 0, 0.8)]
    for form, power in (("direct", 3), ("fft", 1)):
        for side in (7, 14, 28):
            who = make.entry(
                f"parc ({form})", "parc", exact_form=form, form="fused", task="operator",
                host="operator", host_options={"channels": 8, "kernel_size": 7, "size": side},
                baseline=form == "direct",
            )  # fmt: skip
            timed = make.speed(who, side**power / 100)
            speed = timed.speed.model_copy(update={"scope": "operator", "input_size": (side, side)})
            records.append(make.changed(timed, speed=speed))
    named = {record.filename: record for record in records}
    page = pages(named, title="ConvBoard", figures=())["operators/parc.html"].decode()
    assert "side of the map: fastest is fft at 7 to 28." in page
    assert page.count('class="curve"') == 2 * 2  # for a window, and for a telephone
    assert "How its time grows" in page
