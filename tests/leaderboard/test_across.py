"""Operators over all boards: the grid, and geometric means to one fixed baseline."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.across import overview
from leaderboard.board import boards
from leaderboard.board_page import BoardView
from leaderboard.overview import grid

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def scored(label, value, **changes):
    return [
        make.accuracy(make.entry(label, **changes), seed, value + move)
        for seed, move in enumerate((0.0, 0.01, 0.002))
    ]


def suites(*hosts):
    """Boards of several hosts on which acb scores 1.1, 1.2, … times the baseline."""
    records = []
    for number, host in enumerate(hosts, start=1):
        records += scored("dw7", 0.5, host=host)
        records += scored("acb", 0.5 * (1 + number / 10), host=host)
    return records


def test_the_grid_says_what_the_boards_tests_tell():
    records = [*make.suite(), make.failure(make.entry("huge"), 0)]
    (board,) = boards(records)
    seen = overview([board])
    assert seen.operators[0] == seen.baseline == "dw7"
    verdicts = {name: seen.cell(name, board).verdict for name in seen.operators}
    apart = {row.key: row.label for row in board.rows}
    base = board.baseline.key
    assert (
        {name for name, word in verdicts.items() if word == "worse"}
        == {apart[arm] for arm in board.pairs.worse(base)}
        != set()
    )
    assert (verdicts["dw7"], verdicts["huge"]) == ("baseline", "failed")
    certain = seen.cell("icconv", board)
    assert certain.certainty > 0.99
    assert certain.difference.high < 0
    assert seen.cell("nobody", board) is None


def test_geometric_means_are_over_boards_with_an_interval_from_three_on():
    seen = overview(boards(suites("a", "b")))
    (mean,) = seen.means
    means = [(0.504 + 0.05 * n) / 0.504 for n in (1, 2)]
    assert mean.score.value == pytest.approx(math.sqrt(means[0] * means[1]))
    assert (mean.score.count, mean.score.interval, mean.times) == (2, None, None)
    (mean,) = overview(boards(suites("a", "b", "c"))).means
    assert mean.score.where == "three boards"
    assert mean.score.interval.low < mean.score.value < mean.score.interval.high


def test_boards_with_another_baseline_are_left_out_of_the_means():
    other = [
        make.accuracy(make.entry(label, host="z", baseline=label == "acb"), seed, value)
        for label, value in (("acb", 0.5), ("dw7", 0.9))
        for seed in (0, 1)
    ]
    seen = overview(boards([*suites("a", "b"), *other]))
    assert len(seen.boards) == 3
    assert (seen.baseline, seen.means[0].score.count) == ("dw7", 2)
    views = [BoardView(board) for board in seen.boards]
    assert not grid(views).zeros  # the first column has a gain
    assert grid([view for view in views if view.baseline == "dw7"]).zeros


def test_the_same_networks_timed_once_are_one_place_whatever_the_boards():
    elsewhere = make.data(name="other", files_sha256="other")
    second = [make.changed(r, data=elsewhere) for r in make.suite() if r.kind == "accuracy"]
    seen = overview(boards([*make.suite(), *second]))
    assert len(seen.boards) == 2
    by_name = {mean.operator: mean for mean in seen.means}
    assert by_name["parc"].score.count == 2
    assert by_name["parc"].times.count == 1
    assert by_name["parc"].times.value == pytest.approx(1.31, rel=0.01)


def test_tuned_arms_take_no_part_and_no_boards_give_nothing():
    tuned = [make.tuned("parc-tuned", seed, 0.95) for seed in (0, 1)]
    assert "parc-tuned" not in overview(boards([*make.suite(), *tuned])).operators
    nothing = overview([])
    assert (nothing.operators, nothing.means, nothing.baseline) == ((), (), None)
