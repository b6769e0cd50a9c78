"""What other pages load of two arms: numbers that can be turned round, and words as in tables."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from leaderboard.board import boards
from leaderboard.board_data import board_data
from leaderboard.board_page import BoardView
from leaderboard.names import arm
from leaderboard.pairs import board_pairs, time_ratio

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def timed(label, samples):
    record = make.speed(make.entry(label, form="fused", task="backbone"), 1.0)
    speed = record.speed.model_copy(update={"samples_ms": samples})
    return record.model_copy(update={"speed": speed})


def test_a_very_small_ratio_is_not_rounded_to_nothing():
    fast, slow = timed("acb", [[1e-3], [1.1e-3]]), timed("dw7", [[1e4], [1e4]])
    ratio = time_ratio(fast, slow)
    assert 0 < ratio[1] < ratio[0] < ratio[2]


def test_intervals_are_said_for_both_orders_as_tables_say_them():
    (board,) = boards(make.suite(seeds=(0, 1)))
    view = BoardView(board)
    names = {arm(row): row.label for row in board.rows}
    found = board_pairs(view, names)["pairs"]["dw7 parc"]["times"]
    for time in found.values():
        forth, back = ([float(end) for end in words[1:-1].split(", ")] for words in time["bounds"])
        assert forth[0] <= time["ratio"][0] <= forth[1] < 1 < back[0] <= back[1]
    rows = {row["label"]: row for row in board_data(view)["rows"]}
    (line,) = (line for line in view.lines if line.row.label == "icconv")
    assert rows["icconv"]["p_best_words"] == line.cells["best"].text == "< 1 %"
    for time in rows["parc"]["times"].values():
        assert time["ms_bounds"].startswith("[")
        assert time["ratio_bounds"].startswith("[")
