"""What a board says: arms and seeds, what counts, what is stale, tuned, unlinked; and its speed."""

import random
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.board import boards
from leaderboard.times import choices, ratios

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
LR = "model.init_args.lr"


def by_label(board):
    return {row.label: row for row in board.rows}


def at(day, hour=0):
    return make.provenance(f"2026-11-{day:02}T{hour:02}:00:00")


def test_one_board_with_its_arms_joined_with_speed():
    (board,) = boards(make.suite())
    assert (board.title, board.headline, board.seeds) == (
        "Classification on scenes",
        "top1",
        (0, 1, 2),
    )
    assert set(by_label(board)) == set(make.ARMS)
    assert board.baseline.label == "dw7"
    assert (board.settings, board.notes, board.whole) == ((), (), True)
    parc = by_label(board)["parc"]
    assert len(parc.scores) == 3
    assert parc.mean == pytest.approx(sum(parc.scores.values()) / 3)
    assert parc.latency.speed.mode == "latency"
    assert parc.throughput.speed.batch == 8
    assert parc.cost.params == 139_500
    assert parc.difference.value == pytest.approx(parc.mean - by_label(board)["dw7"].mean)
    assert parc.paired.value == pytest.approx(parc.difference.value)
    assert by_label(board)["dw7"].difference is None
    assert not any(row.stale or row.tuned for row in board.rows)


def test_the_order_of_records_does_not_matter():
    records = [*make.suite(), *make.hostile()]
    expected = boards(records)
    random.Random(0).shuffle(records)
    assert boards(records) == expected


def test_rows_come_by_the_fitted_mean_whatever_their_times():
    (board,) = boards(make.suite())
    means = [row.mean for row in board.rows]
    assert means == sorted(means, reverse=True)
    assert [row.rank.place for row in board.rows] == list(range(1, 8))
    assert [row.key for row in board.rows] == list(board.pairs.order)
    tied = [row for row in board.rows if "a" in row.rank.letters]
    times = [row.latency.speed.latency_median_ms.value for row in tied]
    assert times != sorted(times)


def test_the_probabilities_of_being_the_best_are_shared_out():
    (board,) = boards(make.suite())
    chances = [row.p_best for row in board.rows]
    assert sum(chances) == pytest.approx(1, abs=0.005)
    assert chances[0] == max(chances) > 0.5
    assert chances[-1] == 0
    assert chances == [row.p_best for row in boards(reversed(make.suite()))[0].rows]


def test_arms_are_told_apart_by_network_not_by_what_they_are_called():
    records = [
        make.accuracy(make.entry("parc"), 0, 0.8),
        make.accuracy(make.entry("another name", "parc"), 1, 0.8),
        make.accuracy(make.entry("parc", operator_options={"form": "fft"}), 0, 0.8),
        make.accuracy(make.entry("parc", selection={"stages": [3]}), 0, 0.8),
        make.accuracy(make.entry("parc", mix="pointwise"), 0, 0.8),
    ]
    (board,) = boards(records)
    assert sorted(len(row.scores) for row in board.rows) == [1, 1, 1, 2]


# What counts.


def test_the_newest_result_of_a_seed_counts_whatever_became_of_it():
    who = make.entry("parc")
    good = make.accuracy(who, 0, 0.8, provenance=at(20))
    lost = make.failure(who, 0, provenance=at(21))
    again = make.accuracy(who, 0, 0.7, provenance=at(22))
    other = make.accuracy(who, 1, 0.6, provenance=at(19))

    def row(*records):
        (board,) = boards(records)
        (only,) = board.rows
        return only

    assert row(good, other).scores == {0: 0.8, 1: 0.6}
    after = row(lost, good, other)
    assert (after.scores, after.failures, after.superseded) == ({1: 0.6}, (lost,), (good,))
    after = row(again, lost, good, other)
    assert (after.scores, after.failures) == ({0: 0.7, 1: 0.6}, ())
    assert after.superseded == (good, lost)


def test_results_of_older_code_are_stale_and_count():
    old = [
        make.accuracy(make.entry("parc", operator_sha256="old"), s, 0.5, provenance=at(20))
        for s in (0, 1)
    ]
    new = make.accuracy(make.entry("parc", operator_sha256="new"), 0, 0.8, provenance=at(23))
    (board,) = boards([*old, new])
    (row,) = board.rows
    assert row.scores == {0: 0.8, 1: 0.5}
    assert row.stale == (old[1],)
    assert row.superseded == (old[0],)


def test_a_failure_of_newer_code_does_not_empty_an_arm():
    old = [
        make.accuracy(make.entry("parc", operator_sha256="old"), s, 0.5, provenance=at(20))
        for s in (0, 1)
    ]
    lost = make.failure(make.entry("parc", operator_sha256="new"), 0, provenance=at(23))
    (board,) = boards([*old, lost])
    (row,) = board.rows
    assert (row.scores, row.failures) == ({1: 0.5}, (lost,))
    assert row.stale == (old[1],)


def test_newer_code_is_known_from_any_record_of_the_operator():
    score = make.accuracy(make.entry("parc"), 0, 0.8, provenance=at(20))
    fused = make.entry("parc", form="fused", task="backbone", operator_sha256="new")
    time = make.speed(fused, 1.3, provenance=at(21))
    elsewhere = make.accuracy(make.entry("acb"), 0, 0.8, provenance=at(21))
    (board,) = boards([score, time, elsewhere])
    row = by_label(board)["parc"]
    assert row.stale == (score,)
    assert not row.is_stale(row.latency)
    assert not by_label(board)["acb"].stale


def test_code_that_only_a_gpu_runs_makes_nothing_of_a_cpu_stale():
    score = make.accuracy(make.entry("parc"), 0, 0.8, provenance=at(20))
    on_gpu = make.MACHINE.model_copy(update={"gpu": "a GPU", "gpu_count": 1})
    entry = make.entry("parc", form="fused", task="backbone", operator_sha256="with a GPU's")
    older = entry.model_copy(update={"operator_sha256": "with a GPU's of before"})
    times = [
        make.speed(one, 1.3, provenance=at(day), machine=on_gpu)
        for day, one in ((21, older), (22, entry))
    ]
    (board,) = boards([score, *times])
    row = by_label(board)["parc"]
    assert not row.stale
    assert [row.is_stale(time) for time in times] == [True, False]


def test_times_of_older_code_are_joined_and_stale():
    score = make.accuracy(make.entry("parc"), 0, 0.8, provenance=at(23))
    fused = make.entry("parc", form="fused", task="backbone", operator_sha256="old")
    time = make.speed(fused, 1.3, provenance=at(21))
    (board,) = boards([score, time])
    (row,) = board.rows
    assert row.latency == time
    assert row.is_stale(row.latency)
    assert not row.stale


def test_what_was_trained_on_the_way_is_no_arm():
    supernet = make.entry("edo", ranked=False)
    older = make.entry("edo", selection={"stages": [1]})
    records = [make.accuracy(who, 0, 0.9) for who in (supernet, older, make.entry("parc"))]
    (board,) = boards(records)
    assert [row.label for row in board.rows] == ["parc"]


# Failures.


def test_failures_are_rows_and_never_scores():
    records = [
        *make.suite(seeds=(0, 1)),
        make.failure(make.entry("parc"), 2),
        make.failure(make.entry("huge"), 0, status="oom"),
    ]
    (board,) = boards(records)
    rows = by_label(board)
    assert len(rows["parc"].scores) == 2
    assert [r.status for r in rows["parc"].failures] == ["error"]
    assert board.rows[-1].label == "huge"
    assert (rows["huge"].mean, rows["huge"].rank, rows["huge"].difference) == (None, None, None)


def test_a_failure_stands_on_its_own_board_only():
    elsewhere = make.data(name="chess", files_sha256="other")
    records = [
        *make.suite(seeds=(0, 1)),
        *(make.accuracy(make.entry(label), 0, 0.7, data=elsewhere) for label in ("dw7", "parc")),
        make.failure(make.entry("parc"), 0, data=elsewhere, provenance=at(25)),
    ]
    other, home = boards(records)
    assert other.first.data.name == "chess"
    assert [row.label for row in other.rows if row.failures] == ["parc"]
    assert not any(row.failures for row in home.rows)
    assert len(by_label(home)["parc"].scores) == 2


def test_an_old_failure_without_data_stands_where_its_settings_do():
    lost = make.failure(make.entry("shift"), 0, data=None, provenance=at(25))
    twin = make.accuracy(make.entry("dw7"), 0, 0.8, data=make.data(revision="2"))
    root = {"data.init_args.root": "elsewhere"}
    other = make.accuracy(make.entry("dw7"), 0, 0.8, settings=root, data=make.data(name="chess"))
    named = make.recipe(make.entry("dw7"), 0, name="another")
    third = make.accuracy(
        make.entry("dw7"), 0, 0.8, recipe=named, data=make.data(name="third", revision="3")
    )
    every = boards([*make.suite(seeds=(0, 1)), twin, other, third, lost])
    assert [any(row.failures for row in board.rows) for board in every] == [
        board.first.data.name == "scenes" for board in every
    ]
    (alone,) = boards([lost])
    assert [row.failures for row in alone.rows] == [(lost,)]
    assert (alone.headline, alone.seeds, alone.title) == (None, (), "Classification")
    assert len(boards([lost, other])) == 2


def test_an_old_failure_without_data_gives_way_to_later_results():
    lost = make.failure(make.entry("parc"), 0, data=None, provenance=at(20))
    (board,) = boards([lost, make.accuracy(make.entry("parc"), 0, 0.8, provenance=at(21))])
    (row,) = board.rows
    assert (row.failures, row.superseded) == ((), (lost,))


def test_a_failure_without_a_recipe_is_a_board_of_its_own():
    lost = make.failure(make.entry("parc"), 0, data=None, recipe=None)
    alone, suite = sorted(boards([*make.suite(seeds=(0,)), lost]), key=lambda b: len(b.rows))
    assert [row.failures for row in alone.rows] == [(lost,)]
    assert not any(row.failures for row in suite.rows)


# Boards.


@pytest.mark.parametrize(
    "change",
    [
        {"entry": make.entry("parc", host="resnet18")},
        {"entry": make.entry("parc", host_options={"drop_path_rate": 0.1})},
        {"entry": make.entry("parc", head="fcos")},
        {"data": make.data(revision="2")},
        {"data": make.data(options={"image_size": 96})},
        {"settings": {"trainer.max_epochs": 1}},
        {"settings": {LR: 0.5}},
    ],
)
def test_what_cannot_be_compared_is_another_board(change):
    who = change.pop("entry", make.entry("parc"))
    other = make.accuracy(who, 0, 0.9, **change)
    assert len(boards([*make.suite(), other])) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"data.init_args.num_workers": 7, "data.init_args.memory_mb": 1},
        {"data.init_args.root": "elsewhere", "data.init_args.download": True},
        {"trainer.enable_progress_bar": True, "trainer.callbacks": None},
    ],
)
def test_what_decides_nothing_does_not_split_a_board(settings):
    assert (
        len(boards([*make.suite(), make.accuracy(make.entry("x"), 0, 0.9, settings=settings)])) == 1
    )


def test_a_seed_among_the_data_options_does_not_split_a_board():
    records = [
        make.accuracy(make.entry("parc"), seed, 0.8, data=make.data(options={"seed": seed}))
        for seed in (0, 1)
    ]
    (board,) = boards(records)
    assert board.seeds == (0, 1)


def test_boards_say_by_which_settings_they_differ():
    short = {"trainer.max_epochs": 1}
    records = [
        *make.suite(seeds=(0, 1)),
        make.accuracy(make.entry("parc"), 0, 0.1, settings=short),
        make.accuracy(make.entry("parc"), 0, 0.2, settings=short, data=make.data(revision="2")),
        make.accuracy(make.entry("parc", host="resnet18"), 0, 0.3, settings={LR: 0.5}),
    ]
    settings = {(b.first.entry.host, round(b.rows[0].mean, 9)): b.settings for b in boards(records)}
    assert settings["test_convnext", 0.1] == (("trainer.max_epochs", "1"), ("data revision", "1"))
    assert settings["test_convnext", 0.2] == (("trainer.max_epochs", "1"), ("data revision", "2"))
    assert settings["resnet18", 0.3] == ()
    (long,) = (b for b in boards(records) if len(b.rows) == 7)
    assert long.settings == (("trainer.max_epochs", "3"),)
    assert len(by_label(long)["parc"].scores) == 2


def test_a_tuned_arm_stands_beside_the_default_one():
    plain = make.suite(seeds=(0, 1))
    (board,) = boards([*plain, *(make.tuned("parc-tuned", seed, 0.95) for seed in (0, 1))])
    rows = by_label(board)
    assert (rows["parc-tuned"].tuned, rows["parc-tuned"].trials) == (True, 20)
    assert not rows["parc"].tuned
    assert rows["parc-tuned"].difference.interval
    assert rows["parc-tuned"].latency == rows["parc"].latency
    before = by_label(boards(plain)[0])["parc"]
    assert (rows["parc"].scores, rows["parc"].superseded) == (before.scores, ())


def test_a_tuned_arm_is_never_the_baseline():
    default = make.suite(seeds=(0, 1))
    baseline = make.entry("dw7", "dwconv")
    settings = {LR: 0.02}
    recipes = [
        make.recipe(baseline, s, settings, untuned={LR: 0.008}, tuning_trials=9) for s in (0, 1)
    ]
    best = [make.accuracy(baseline, s, 0.99, recipe=recipes[s]) for s in (0, 1)]
    (board,) = boards([*default, *best])
    assert not board.baseline.tuned
    assert sum(row.baseline for row in board.rows) == 1
    assert all(row.difference for row in board.rows if row.key != board.baseline.key)
    assert board.first.recipe.untuned == {}
    (tuned,) = (row for row in board.rows if row.tuned)
    ratio = ratios(board, choices(board)[0])[tuned.key]
    assert (ratio.interval.value, ratio.verdict) == (1, "same")


# Fitted means and ranks.


def test_ranks_are_by_fitted_means():
    a, b = make.entry("a", baseline=True), make.entry("b")
    records = [
        make.accuracy(a, 0, 0.9),
        make.accuracy(a, 1, 0.5),
        make.accuracy(b, 1, 0.6),
    ]
    (board,) = boards(records)
    assert [row.label for row in board.rows] == ["b", "a"]
    assert [row.mean for row in board.rows] == pytest.approx([0.8, 0.7])
    assert board.rows[0].plain_mean == 0.6
    assert board.rows[0].difference.value == pytest.approx(0.1)
    assert not board.whole


def test_intervals_of_arms_are_of_the_board_and_within_the_metrics_range():
    records = [
        make.accuracy(make.entry(label), seed, value)
        for label, values in {"dw7": (0.99, 0.97), "b": (0.6, 0.9), "c": (0.02, 0.01)}.items()
        for seed, value in enumerate(values)
    ]
    (board,) = boards(records)
    widths = set()
    for row in board.rows:
        assert 0 <= row.interval.low < row.interval.value < row.interval.high <= 1
        assert "residual of the board with 2 degrees of freedom" in row.interval.method
        if row.interval.low > 0 and row.interval.high < 1:
            widths.add(row.interval.high - row.interval.low)
    assert len(widths) <= 1


def test_an_arm_without_shared_seeds_has_no_rank_and_the_board_says_so():
    far = [make.accuracy(make.entry("far"), seed, 0.99) for seed in (7, 8)]
    (board,) = boards([*make.suite(seeds=(0, 1)), *far])
    row = by_label(board)["far"]
    assert (row.linked, row.rank, row.difference) == (False, None, None)
    assert row.mean == pytest.approx(0.99)
    assert "links far with" in board.notes[0]
    assert board.rows[-1] == row
    assert sorted(r.rank.place for r in board.rows if r.rank)[0] == 1


def test_without_or_with_two_baselines_there_are_no_contrasts():
    plain = [make.accuracy(make.entry(label), s, 0.8) for label in "ab" for s in (0, 1)]
    (board,) = boards(plain)
    assert all(row.difference is None for row in board.rows)
    assert "No baseline" in board.notes[0]
    twice = [
        make.accuracy(make.entry(label, baseline=True), s, 0.8) for label in "ab" for s in (0, 1)
    ]
    (board,) = boards(twice)
    assert board.baseline is None
    assert "2 baselines" in board.notes[0]


def test_no_records_no_boards():
    assert boards([]) == []
