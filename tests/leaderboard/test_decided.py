"""Boards to which seeds were added until they were decided: arms have unlike numbers of seeds."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.record import Decision
from leaderboard.board import boards
from leaderboard.site import pages
from leaderboard.standing import standing

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
SCORES = {
    "dw7": (0.84, 0.86, 0.845, 0.85),
    "acb": (0.90, 0.915, 0.903, 0.908),
    "conv3": (0.50, 0.52),
}


def decision(label, outcome, rounds, **changes):
    """The record of why an arm runs no more, as the program makes it from its last score."""
    last = make.accuracy(make.entry(label), rounds - 1, 0.5)
    fields = {"outcome": outcome, "rounds": rounds, "seeds_max": 10, "margin": 0.01, "risk": 0.04}
    return make.changed(
        last, kind="decision", accuracy=None, cost=None, decision=Decision(**fields | changes)
    )


def records(*decisions):
    return [
        *(
            make.accuracy(make.entry(label), seed, value)
            for label, values in SCORES.items()
            for seed, value in enumerate(values)
        ),
        *decisions,
    ]


DECIDED = (
    decision("conv3", "worse", 2, by="acb", least=0.31),
    decision("acb", "best", 4),
    decision("dw7", "worse", 4, by="acb"),
)


def test_an_arm_that_was_stopped_is_no_arm_that_lacks_seeds():
    (board,) = boards(records(*DECIDED))
    marks = {row.label: {m.kind: m.text for m in row.marks} for row in board.rows}
    assert marks["conv3"] == {
        "stopped": "Stopped after two seeds: at least 31 points worse than acb, "
        "by a test of these two."
    }
    assert marks["acb"] == {}
    (plain,) = boards(records())
    assert {m.kind for row in plain.rows for m in row.marks} == {"missing"}
    assert "acb is surely the best" in board.notes[0]
    assert plain.notes == ()


def test_fitted_means_take_out_the_seeds_that_an_arm_lacks():
    (board,) = boards(records(*DECIDED))
    rows = {row.label: row for row in board.rows}
    shared = [(SCORES["dw7"][s] + SCORES["acb"][s]) / 2 for s in range(4)]
    shift = sum(shared) / 4 - sum(shared[:2]) / 2
    assert rows["conv3"].mean == pytest.approx(0.51 + shift)
    assert rows["conv3"].plain_mean == pytest.approx(0.51)


def test_tests_allow_for_having_looked_often():
    (plain,), (board,) = boards(records()), boards(records(*DECIDED))
    assert (plain.looks, board.looks) == (1, 9)
    assert board.detectable > plain.detectable
    assert board.rows[0].difference == plain.rows[0].difference
    assert standing(board).card.text.startswith("acb: +5.78 points over dw7 [")


def test_a_decision_on_older_scores_makes_newer_ones_not_stale():
    newer = make.accuracy(
        make.entry("conv3", operator_sha256="new"),
        2,
        0.51,
        provenance=make.provenance("2026-11-23T00:00:00"),
    )
    late = make.changed(DECIDED[0], provenance=make.provenance("2026-11-24T00:00:00"))
    (board,) = boards(records(newer, late))
    (row,) = [row for row in board.rows if row.label == "conv3"]
    assert [record.recipe.seed for record in row.stale] == [0, 1]


def test_the_page_of_a_machine_counts_decisions():
    made = records(*DECIDED)
    site = pages({record.filename: record for record in made}, title="ConvBoard", figures=[])
    (machine,) = (page for name, page in site.items() if name.startswith("machines/"))
    assert b"3 records of when to stop" in machine


def test_a_decision_on_an_arm_that_was_run_on_counts_no_more():
    older = decision("acb", "worse", 2, by="dw7", least=0.1)
    (board,) = boards(records(older))
    marks = {row.label: [m.kind for m in row.marks] for row in board.rows}
    assert marks["acb"] == []
    assert board.notes == ()


def test_the_card_says_what_the_decision_says():
    """Its test of the best against the others is sharper than that of all pairs."""
    scores = {"dw7": (0.55, 0.5333), "acb": (0.5833, 0.5667), "conv3": (0.5333, 0.5333)}
    trained = [
        make.accuracy(make.entry(label), seed, value)
        for label, values in scores.items()
        for seed, value in enumerate(values)
    ]
    decided = [
        decision("acb", "best", 2, seeds_max=2),
        decision("dw7", "worse", 2, by="acb", seeds_max=2),
        decision("conv3", "worse", 2, by="acb", least=0.02, seeds_max=2),
    ]
    (plain,), (board,) = boards(trained), boards([*trained, *decided])
    assert "which may be chance" in standing(plain).card.text
    said = standing(board).card.text
    assert said.startswith("acb: +3.3 points over dw7 [")
    assert "conv3 is surely worse than acb." in said
    assert "acb is surely the best" in board.notes[0]


def test_a_board_that_leads_only_tells_nothing_apart():
    leads = [decision("acb", "leads", 4), decision("dw7", "worse", 4, by="acb")]
    (board,), (plain,) = boards(records(*leads)), boards(records())
    assert board.pairs.apart <= plain.pairs.apart


def test_what_held_for_all_arms_is_not_said_once_another_one_came():
    newcomer = [make.accuracy(make.entry("parc"), seed, 0.95) for seed in range(4)]
    (board,) = boards([*records(*DECIDED), *newcomer])
    assert not [note for note in board.notes if "surely" in note]
    rows = {row.label: row for row in board.rows}
    assert "stopped" in {mark.kind for mark in rows["conv3"].marks}  # a test of these two stands
    assert (rows["acb"].key, rows["dw7"].key) in board.pairs.apart


def test_a_decision_does_not_outlive_the_scores_that_it_judged():
    again = [
        make.accuracy(
            make.entry("dw7"), seed, 0.9, provenance=make.provenance("2026-11-25T00:00:00")
        )
        for seed in range(4)
    ]
    (board,) = boards([*records(*DECIDED), *again])
    rows = {row.label: row for row in board.rows}
    assert (rows["acb"].key, rows["dw7"].key) not in board.pairs.apart
    assert not [note for note in board.notes if "surely" in note]


def test_seeds_that_were_there_before_leave_the_answer(tmp_path):
    """An arm that was stopped may have more of them, and one whose seeds failed has no decision."""
    more = make.accuracy(make.entry("conv3"), 2, 0.51)
    lost = [make.accuracy(make.entry("shift"), 0, 0.5), make.failure(make.entry("shift"), 1)]
    (board,) = boards([*records(*DECIDED), more, *lost])
    assert "acb is surely the best" in board.notes[-1]
