"""Grouping records into boards, and joining them with speed."""

import random
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.board import boards

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def arms(board):
    return {arm.label: arm for arm in board.arms}


def test_one_board_with_its_arms_joined_with_speed():
    (board,) = boards(make.suite())
    assert (board.title, board.headline, board.seeds) == (
        "Classification on scenes",
        "top1",
        (0, 1, 2),
    )
    assert set(arms(board)) == set(make.ARMS)
    assert board.baseline.label == "dw7"
    parc = arms(board)["parc"]
    assert len(parc.scores) == 3
    assert parc.mean == pytest.approx(sum(parc.scores.values()) / 3)
    assert parc.latency.speed.mode == "latency"
    assert parc.throughput.speed.batch == 8
    assert parc.cost.params == 139_500
    assert parc.difference.value == pytest.approx(parc.mean - arms(board)["dw7"].mean)
    assert parc.paired.value == pytest.approx(parc.difference.value)
    assert arms(board)["dw7"].difference is None


def test_the_order_of_records_does_not_matter():
    records = [*make.suite(), *make.hostile()]
    expected = boards(records)
    random.Random(0).shuffle(records)
    assert boards(records) == expected


def test_arms_come_by_place_and_inside_a_tie_group_by_speed():
    (board,) = boards(make.suite())
    places = [arm.rank.place for arm in board.arms]
    assert places == sorted(places)
    assert len(set(places)) < len(places)
    for first, second in zip(board.arms, board.arms[1:], strict=False):
        if first.rank.place == second.rank.place:
            times = [a.latency.speed.latency_median_ms.value for a in (first, second)]
            assert times == sorted(times)


@pytest.mark.parametrize(
    "change",
    [
        {"entry": make.entry("parc", host="resnet18")},
        {"entry": make.entry("parc", host_options={"drop_path_rate": 0.1})},
        {"entry": make.entry("parc", head="fcos")},
        {"data": make.data(revision="2")},
        {"data": make.data(options={"image_size": 96})},
    ],
)
def test_what_cannot_be_compared_is_another_board(change):
    other = make.accuracy(make.entry("parc"), 0, 0.9).model_copy(update=change)
    assert len(boards([*make.suite(), other])) == 2


def test_a_seed_among_the_data_options_does_not_split_a_board():
    records = [
        make.accuracy(make.entry("parc"), seed, 0.8, data=make.data(options={"seed": seed}))
        for seed in (0, 1)
    ]
    (board,) = boards(records)
    assert board.seeds == (0, 1)


def test_options_and_selection_make_another_arm():
    records = [
        make.accuracy(make.entry("parc"), 0, 0.8),
        make.accuracy(make.entry("parc", operator_options={"form": "fft"}), 0, 0.8),
        make.accuracy(make.entry("parc", selection={"stages": [3]}), 0, 0.8),
        make.accuracy(make.entry("parc", mix="pointwise"), 0, 0.8),
    ]
    (board,) = boards(records)
    assert len(board.arms) == 4


def test_the_newest_result_of_a_seed_counts_and_the_older_is_kept():
    who = make.entry("parc")
    old = make.accuracy(who, 0, 0.5, provenance=make.provenance("2026-11-20T00:00:00"))
    new = make.accuracy(who, 0, 0.8, provenance=make.provenance("2026-11-21T00:00:00"))
    (board,) = boards([new, old])
    (arm,) = board.arms
    assert (arm.scores, arm.superseded) == ({0: 0.8}, (old,))


def test_results_of_older_code_of_the_operator_are_not_mixed_in():
    old = [
        make.accuracy(make.entry("parc", operator_sha256="old"), seed, 0.5) for seed in (0, 1, 2)
    ]
    later = make.provenance("2026-11-23T00:00:00")
    new = make.accuracy(make.entry("parc", operator_sha256="new"), 0, 0.8, provenance=later)
    (board,) = boards([*old, new])
    (arm,) = board.arms
    assert arm.scores == {0: 0.8}
    assert len(arm.superseded) == 3


def test_failures_are_rows_and_never_scores():
    records = [
        *make.suite(seeds=(0, 1)),
        make.failure(make.entry("parc"), 2),
        make.failure(make.entry("huge"), 0, status="oom"),
    ]
    (board,) = boards(records)
    found = arms(board)
    assert len(found["parc"].scores) == 2
    assert [r.status for r in found["parc"].failures] == ["error"]
    assert board.arms[-1].label == "huge"
    assert (found["huge"].mean, found["huge"].rank, found["huge"].difference) == (None, None, None)


def test_a_failure_before_the_data_were_known_is_a_row_of_every_board_of_its_host():
    lost = make.failure(make.entry("shift", task="classification"), 0, data=None, recipe=None)
    other = [
        make.accuracy(make.entry("dw7"), 0, 0.8, data=make.data(revision="2")),
    ]
    found = boards([*make.suite(seeds=(0, 1)), *other, lost])
    assert len(found) == 2
    assert "shift" in arms(found[0])
    assert "shift" in arms(found[1])
    alone = boards([lost])
    assert [arm.failures for arm in alone[0].arms] == [(lost,)]


def test_a_failure_without_a_seed_gives_way_to_later_results():
    lost = make.failure(
        make.entry("parc"),
        0,
        data=None,
        recipe=None,
        provenance=make.provenance("2026-11-20T00:00:00"),
    )
    (board,) = boards([lost, make.accuracy(make.entry("parc"), 0, 0.8)])
    (arm,) = board.arms
    assert arm.failures == ()
    assert arm.superseded == (lost,)


def test_speed_of_another_input_size_host_or_scope_is_not_joined():
    who = make.entry("parc", form="fused", task="backbone")
    good = make.speed(who, 1.3)
    other_size = good.model_copy(
        update={"speed": good.speed.model_copy(update={"input_size": (224, 224)})}
    )
    other_scope = good.model_copy(
        update={"speed": good.speed.model_copy(update={"scope": "operator"})}
    )
    other_host = make.speed(make.entry("parc", form="fused", host="resnet18"), 1.3)
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    (board,) = boards([score, other_size, other_scope, other_host])
    assert board.arms[0].latency is None
    assert board.setup is None
    (board,) = boards([score, other_size, good])
    assert board.arms[0].latency == good


def test_end_to_end_times_are_joined_on_their_own_board_alone():
    def whole(score, relative, **changes):
        plain = make.speed(make.entry("parc", form="fused"), relative)
        speed = plain.speed.model_copy(update={"scope": "end_to_end", "input_size": (80, 64)})
        where = {"data": score.data, "recipe": score.recipe, "speed": speed, **changes}
        return plain.model_copy(update=where)

    score = make.accuracy(make.entry("parc"), 0, 0.8)
    backbone = make.speed(make.entry("parc", form="fused", task="backbone"), 1.3)
    other = make.accuracy(make.entry("parc"), 0, 0.7, data=make.data(name="elsewhere"))
    here, there = whole(score, 1.1), whole(other, 1.2)
    found = {b.first.data.name: b.arms[0] for b in boards([score, other, backbone, here, there])}
    assert found["scenes"].end_to_end == here
    assert found["elsewhere"].end_to_end == there
    assert {arm.latency.speed.scope for arm in found.values()} == {"backbone"}
    assert found["scenes"].speeds == (backbone, here)
    (board,) = boards([score, here])
    assert (board.arms[0].latency, board.setup) == (None, None)
    assert board.arms[0].end_to_end == here


def test_a_failed_gate_is_shown_until_a_later_time():
    who = make.entry("parc", form="fused", task="backbone")
    invalid = make.speed(who, 1.3, status="invalid", error="relative error 0.3 > 1e-4", speed=None)
    score = make.accuracy(make.entry("parc"), 0, 0.8)
    (board,) = boards([score, invalid])
    assert board.arms[0].untimed == invalid
    later = make.speed(who, 1.3, provenance=make.provenance("2026-11-23T00:00:00"))
    (board,) = boards([score, invalid, later])
    assert (board.arms[0].untimed, board.arms[0].latency) == (None, later)


def test_columns_show_one_setup_that_of_most_arms():
    records = make.suite(seeds=(0, 1))
    gpu = make.MACHINE.model_copy(update={"gpu": "Test GPU"})
    parc = next(r for r in records if r.kind == "speed" and r.entry.label == "parc")
    elsewhere = parc.model_copy(
        update={
            "machine": gpu,
            "speed": parc.speed.model_copy(update={"device": "cuda"}),
            "provenance": make.provenance("2027-01-01T00:00:00"),
        }
    )
    (board,) = boards([*records, elsewhere])
    found = arms(board)["parc"]
    assert found.latency == parc
    assert elsewhere in found.speeds
    assert "Test CPU" in board.setup.words


def test_without_or_with_two_baselines_there_are_no_contrasts():
    plain = [make.accuracy(make.entry(label), s, 0.8) for label in "ab" for s in (0, 1)]
    (board,) = boards(plain)
    assert all(arm.difference is None for arm in board.arms)
    assert "No baseline" in board.notes[0]
    twice = [
        make.accuracy(make.entry(label, baseline=True), s, 0.8) for label in "ab" for s in (0, 1)
    ]
    (board,) = boards(twice)
    assert board.baseline is None
    assert "2 baselines" in board.notes[0]


def test_no_records_no_boards():
    assert boards([]) == []
