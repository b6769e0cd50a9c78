"""Times joined with the rows of a board: by network, input size and board, one setup a column."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from bench.hashing import digest
from leaderboard.board import boards
from leaderboard.standing import standing
from leaderboard.times import choices, ratios
from leaderboard.wording import processor

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def by_label(board):
    return {row.label: row for row in board.rows}


def test_speed_of_another_input_size_host_or_scope_is_not_joined():
    who = make.entry("parc", form="fused", task="backbone")
    good = make.speed(who, 1.3)

    def like(**changes):
        return make.changed(good, speed=good.speed.model_copy(update=changes))

    other_host = make.speed(make.entry("parc", form="fused", host="resnet18"), 1.3)
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    far = [like(input_size=(224, 224)), like(scope="operator"), other_host]
    (board,) = boards([score, *far])
    assert board.rows[0].latency is None
    assert board.setup is None
    (board,) = boards([score, *far, good])
    assert board.rows[0].latency == good


def test_end_to_end_times_are_joined_on_their_own_board_alone():
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    backbone = make.speed(make.entry("parc", form="fused", task="backbone"), 1.3)
    other = make.accuracy(make.entry("parc"), 0, 0.7, data=make.data(name="elsewhere"))
    here, there = make.behind(score, 1.1), make.behind(other, 1.2)
    by_data = {b.first.data.name: b.rows[0] for b in boards([score, other, backbone, here, there])}
    assert by_data["scenes"].end_to_end == here
    assert by_data["elsewhere"].end_to_end == there
    assert {row.latency.speed.scope for row in by_data.values()} == {"backbone"}
    assert by_data["scenes"].speeds == (backbone, here)
    (board,) = boards([score, here])
    assert (board.rows[0].latency, board.setup) == (None, None)
    assert board.rows[0].end_to_end == here


def test_end_to_end_a_tuned_arm_has_its_own_time():
    scores = [make.accuracy(make.entry("parc"), 0, 0.8), make.tuned("parc-tuned", 0, 0.9)]
    times = [
        make.behind(score, relative) for score, relative in zip(scores, (1.1, 1.2), strict=True)
    ]
    rows = by_label(boards([*scores, *times])[0])
    assert [rows[label].end_to_end for label in ("parc", "parc-tuned")] == times


def test_a_failed_end_to_end_time_is_shown_on_its_own_board_alone():
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    other = make.accuracy(make.entry("parc"), 0, 0.7, data=make.data(name="elsewhere"))
    lost = make.behind(other, 1, status="invalid", error="relative error 0.3", speed=None)
    by_data = {b.first.data.name: b.rows[0] for b in boards([score, other, lost])}
    assert by_data["elsewhere"].untimed_end_to_end == lost
    assert by_data["scenes"].untimed_end_to_end is None
    assert {row.untimed for row in by_data.values()} == {None}


def test_a_failed_gate_is_shown_until_a_later_time():
    who = make.entry("parc", form="fused", task="backbone")
    invalid = make.speed(who, 1.3, status="invalid", error="relative error 0.3 > 1e-4", speed=None)
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    (board,) = boards([score, invalid])
    assert board.rows[0].untimed == invalid
    later = make.speed(who, 1.3, provenance=make.provenance("2026-11-23T00:00:00"))
    (board,) = boards([score, invalid, later])
    assert (board.rows[0].untimed, board.rows[0].latency) == (None, later)


def test_columns_show_one_setup_that_of_most_arms():
    records = make.suite(seeds=(0, 1))
    gpu = make.MACHINE.model_copy(update={"gpu": "Test GPU"})
    parc = next(r for r in records if r.kind == "speed" and r.entry.label == "parc")
    elsewhere = make.changed(
        parc,
        machine=gpu,
        speed=parc.speed.model_copy(update={"device": "cuda"}),
        provenance=make.provenance("2027-01-01T00:00:00"),
    )
    (board,) = boards([*records, elsewhere])
    row = by_label(board)["parc"]
    assert row.latency == parc
    assert elsewhere in row.speeds
    assert processor(make.MACHINE.cpu) in board.setup.words


def test_times_of_unlike_forms_share_no_column():
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    fused = make.speed(make.entry("parc", form="fused", task="backbone"), 1.3)
    later = make.provenance("2026-11-24T00:00:00")
    trained = make.speed(
        make.entry("parc", form="training", task="backbone"), 1.5, provenance=later
    )
    (board,) = boards([score, fused, trained])
    assert len(board.rows[0].speeds) == 2
    assert board.rows[0].latency == trained
    assert "unfused" in board.setup.words


def test_training_steps_have_a_column_of_their_own():
    who = make.entry("parc", form="training", task="backbone")
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    time = make.speed(make.entry("parc", form="fused", task="backbone"), 1.3)
    step = make.speed(who, 1.2, mode="training_step", batch=8)
    step = make.changed(step, speed=step.speed.model_copy(update={"scope": "training"}))
    (board,) = boards([score, time, step])
    (row,) = board.rows
    assert (row.latency, row.throughput, row.training) == (time, None, step)
    assert row.speeds == (time, step)
    small = make.changed(step, speed=step.speed.model_copy(update={"input_size": (9, 9)}))
    (board,) = boards([score, small])
    assert board.rows[0].training is None


def in_run(run, who, relative, **changes):
    """A time of a run of its own: of other code, or compared with another arm."""
    timed = make.speed(who, relative)
    return make.changed(
        timed,
        speed=timed.speed.model_copy(update={"run": run, **changes}),
        provenance=make.provenance(f"2026-11-2{run}T00:00:00"),
    )


def fused(label, operator=None, **changes):
    return make.entry(label, operator, form="fused", task="backbone", **changes)


def ratios_of(records):
    (board,) = boards(records)
    (choice,) = choices(board)
    found = ratios(board, choice)
    return {row.label: found.get(row.key) for row in board.rows}, by_label(board)


SCORES = [make.accuracy(make.entry("dw7", "dwconv"), 0, 0.8)]
SCORES += [make.accuracy(make.entry(label), 0, 0.8) for label in ("parc", "acb")]


def test_a_later_run_without_the_boards_baseline_takes_no_ratio_away():
    first = [
        in_run("3", fused("dw7", "dwconv"), 1.0),
        in_run("3", fused("parc"), 1.3),
        in_run("3", fused("acb"), 1.4),
    ]
    later = [
        in_run("4", fused("parc"), 0.6, baseline="conv3"),
        in_run("4", fused("acb"), 1.0, baseline="acb", verdict="baseline"),
    ]
    found, rows = ratios_of([*SCORES, *first, *later])
    assert found["parc"].run == found["acb"].run == "3"
    assert rows["parc"].latency == first[1]
    assert rows["parc"].earlier == (later[0],)
    assert not [mark for row in rows.values() for mark in row.marks]  # no conflict: other baselines


def test_a_ratio_is_to_the_very_network_of_the_baseline():
    """The label alone says nothing: another suite may call another network by it."""
    times = [in_run("3", fused("dw7", "dwconv"), 1.0), in_run("4", fused("parc"), 1.3)]
    found, _ = ratios_of([*SCORES, *times])
    assert found["parc"] is None


def test_a_ratio_to_older_code_of_the_baseline_is_known_as_that():
    old = digest("older")
    times = [
        in_run("3", fused("dw7", "dwconv", operator_sha256=old), 1.0),
        in_run("3", fused("acb"), 1.4),
        in_run("4", fused("dw7", "dwconv"), 1.0),
        in_run("4", fused("parc"), 1.3),
    ]
    found, rows = ratios_of([*SCORES, *times])
    assert found["acb"].old
    assert not found["parc"].old
    assert rows["dw7"].latency == times[2]


def test_times_of_the_newest_code_count_before_older_ones_with_a_ratio():
    old = digest("older")
    times = [
        in_run("3", fused("dw7", "dwconv"), 1.0),
        in_run("3", fused("parc", operator_sha256=old), 1.3),
        in_run("4", fused("parc"), 0.6, baseline="conv3"),
    ]
    found, rows = ratios_of([*SCORES, *times])
    assert rows["parc"].latency == times[2]
    assert found["parc"] is None


def test_two_runs_with_one_baseline_that_disagree_are_a_conflict():
    times = [in_run(run, fused("dw7", "dwconv"), 1.0) for run in "34"]
    times += [in_run(run, fused("parc"), ratio) for run, ratio in (("3", 1.3), ("4", 0.6))]
    _, rows = ratios_of([*SCORES, *times])
    assert [mark.kind for mark in rows["parc"].marks] == ["conflict"]
    for changed in times:
        if changed.speed.run == "3" and changed.entry.label == "dw7":
            times[times.index(changed)] = make.changed(
                changed, entry=changed.entry.model_copy(update={"operator_sha256": digest("old")})
            )
    _, rows = ratios_of([*SCORES, *times])
    assert not rows["parc"].marks


def test_the_card_says_why_an_arm_has_no_ratio():
    oom = {"status": "oom", "error": "no memory"}
    times = [
        in_run("3", fused("dw7", "dwconv"), 1.0),
        in_run("3", fused("parc"), 1.3),
        in_run("4", fused("acb"), 1.4, baseline="conv3"),
    ]
    lost = make.changed(in_run("3", fused("shift"), 1.0), **oom)
    scores = [
        make.accuracy(make.entry(name, op), seed, 0.8)
        for name, op in (("dw7", "dwconv"), *((n, n) for n in ("parc", "acb", "shift", "icconv")))
        for seed in (0, 1)
    ]
    behind = make.behind(scores[-1], 1.2)
    (board,) = boards([*scores, *times, lost, behind])
    (backbone,) = (c for c in choices(board) if c.scope == "backbone")
    words = standing(board, backbone).card.text
    assert "acb was timed apart from the baseline." in words
    assert "shift could not be timed." in words
    assert "icconv was not timed." in words  # as a backbone
