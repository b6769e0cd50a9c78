"""Who is on the front of score against time, and how sure that is."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from leaderboard.board import boards
from leaderboard.front import fronts
from leaderboard.standing import standing
from leaderboard.times import choices, ratios

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def brute(scores, times):
    """Share of draws in which an arm is not dominated, one arm and draw at a time."""
    arms = list(scores)
    on = dict.fromkeys(arms, 0)
    for d in range(len(scores[arms[0]])):
        for i in arms:
            on[i] += not any(
                scores[j][d] >= scores[i][d]
                and times[j][d] <= times[i][d]
                and (scores[j][d] > scores[i][d] or times[j][d] < times[i][d])
                for j in arms
            )
    return {arm: count / len(scores[arms[0]]) for arm, count in on.items()}


def test_probabilities_are_counts_of_draws():
    draw = np.random.default_rng(0)
    scores = {str(i): draw.normal(scale=1, size=200).round(1) for i in range(5)}
    times = {str(i): draw.normal(scale=1, size=200).round(1) for i in range(5)}
    found = fronts(scores, times)
    assert {arm: front.probability for arm, front in found.items()} == pytest.approx(
        brute(scores, times), abs=0.001
    )
    assert all(f.low == f.high == f.probability for f in found.values())


def test_times_that_are_not_known_leave_it_open():
    scores = {"good": np.array([3.0]), "open": np.array([2.0]), "poor": np.array([1.0])}
    times = {"good": np.array([0.0]), "open": np.array([-1.0]), "poor": np.array([-2.0])}
    words = {arm: front.word for arm, front in fronts(scores, times, ["open"]).items()}
    # the best score is on the front whatever the times; the others may be or not
    assert words == {"good": "front", "open": "maybe", "poor": "maybe"}
    times["poor"] = np.array([1.0])
    assert fronts(scores, times, ["open"])["poor"].word == "no"


def test_places_of_a_board_are_the_same_again_and_follow_the_times():
    (board,) = boards(make.suite())
    seen = standing(board)
    assert seen.choice.words == "latency, batch 1, backbone"
    by_label = {row.label: seen.of(row) for row in board.rows}
    assert by_label["dw7"].verdict == "baseline"
    assert by_label["parc"].ratio.value == pytest.approx(1.31)
    # unireplk scores higher and is faster than icconv
    assert by_label["icconv"].front.word == "no"
    assert by_label["dw7"].front.word == "front"
    again = standing(boards(reversed(make.suite()))[0])
    assert again.places == seen.places
    assert again.card == seen.card
    second = choices(board)[1]
    assert second.words == "throughput, batch 8, backbone"
    assert standing(board, second).of(board.rows[0]).record.speed.batch == 8


def test_without_seeds_to_test_nothing_is_on_the_front():
    (board,) = boards(make.suite(seeds=(0,)))
    assert all(place.front is None for place in standing(board).places.values())


def test_a_run_that_compared_with_another_arm_is_brought_to_the_boards_baseline():
    records = []
    for record in make.suite():
        if record.kind == "speed":
            timed = record.speed
            # all times against conv3, which takes 1.42 of dw7's time
            update = {
                "baseline": "conv3",
                "baseline_samples_ms": [[1.42 * t for t in p] for p in timed.baseline_samples_ms],
                "verdict": "baseline" if record.entry.label == "conv3" else "faster",
                "ratio_to_baseline": None,
            }
            record = make.changed(record, speed=timed.model_copy(update=update))
        records.append(record)
    (board,) = boards(records)
    found = ratios(board, choices(board)[0])
    values = {row.label: found[row.key].interval for row in board.rows if row.key in found}
    assert values["parc"].value == pytest.approx(1.31, rel=0.01)
    assert values["conv3"].value == pytest.approx(1.42, rel=0.01)
    assert values["dw7"] is None


def test_a_run_without_the_boards_baseline_gives_no_ratio():
    timed = [
        make.changed(r, speed=r.speed.model_copy(update={"baseline": "another"}))
        for r in make.suite()
        if r.kind == "speed" and r.entry.label != "dw7"
    ]
    scored = [r for r in make.suite() if r.kind == "accuracy"]
    (board,) = boards([*scored, *timed])
    assert ratios(board, choices(board)[0]) == {}
    assert all(place.front is None for place in standing(board).places.values())
