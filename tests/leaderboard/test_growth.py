"""Curves of exact forms, and where they cross."""

import pytest

from bench.record import Interval
from leaderboard.growth import Growth


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
