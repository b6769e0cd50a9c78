"""Boards that are run until they are decided, with records of why each arm stopped."""

import time
from types import SimpleNamespace

import pytest

from bench.cli import decide as verb
from bench.cli.decide import seconds_of
from bench.config.plan import Choice, plan
from bench.errors import UserError
from bench.record import load_all
from bench.run import decide as deciding
from bench.store import DATA, Kept, Store
from leaderboard.board import boards

SEEDS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def contest(tiny):
    (contest,) = deciding.contests(plan(str(tiny), Choice(seeds=SEEDS)))
    return contest


def finished(contest, scores):
    """What the store would know, had these cells run: (arm, seed) → score."""
    return {
        contest.cells[key].hash: Kept(
            run_id="r",
            experiment="tiny",
            cell=contest.cells[key].hash,
            status="FINISHED",
            started=0,
            metrics={"final/top1": score, "train_seconds": 20.0},
            tags={"headline": "top1", "convboard.done": "record.json"},
        )
        for key, score in scores.items()
    }


def test_a_board_of_a_suite_is_planned_with_its_metric(contest):
    assert contest.plan.arms == ("dwconv", "acb")
    assert contest.plan.seeds == (0, 1, 2, 3)
    assert (contest.plan.margin, contest.metric.unit) == (0.01, "fraction")
    assert contest.plan.higher_is_better
    wanted = deciding.judged(contest, {}).wanted
    assert wanted == (("dwconv", 0), ("acb", 0), ("dwconv", 1), ("acb", 1))


def test_how_far_it_is_follows_from_the_store_alone(contest):
    scores = {(arm, seed): 0.5 + seed / 50 for arm in ("dwconv", "acb") for seed in (0, 1)}
    kept = finished(contest, scores)
    decision = deciding.judged(contest, kept)
    assert decision.rounds == 2
    assert decision.ended == "same"  # equal to the last bit
    assert deciding.spent_seconds([contest], kept) == 20
    assert deciding.spent_seconds([contest], {}) is None
    del kept[contest.cells["acb", 1].hash]
    assert deciding.judged(contest, kept).wanted == (("acb", 1),)


@pytest.mark.parametrize(
    ("margin", "message"),
    [("wide", "must be a number"), ("0", "above 0"), ("-1pp", "above 0"), ("nan", "above 0")],
)
def test_a_margin_that_is_none_is_refused(tiny, margin, message):
    with pytest.raises(UserError, match=message):
        deciding.contests(plan(str(tiny), Choice(seeds=SEEDS)), margin)


def test_one_arm_or_one_seed_cannot_be_decided(tiny):
    with pytest.raises(UserError, match="1 seeds"):
        deciding.contests(plan(str(tiny)))
    alone = Choice(seeds=SEEDS, only={"operator": ["acb"]})
    with pytest.raises(UserError, match="1 arms"):
        deciding.contests(plan(str(tiny), alone))


@pytest.mark.parametrize("text", ["soon", "0m", "-3m", "3 days"])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(UserError, match="--budget"):
        seconds_of(text)


@pytest.mark.slow
def test_a_killed_decision_goes_on_and_is_kept(tiny, convboard, tmp_path):
    runs, records = tmp_path / "runs", tmp_path / "records"
    command = ["decide", tiny, "--runs", runs, "--records", records, "--workers", "1"]
    command += ["--seeds-max", "4", "--margin", "99pp"]
    process = convboard(*command, wait=False)
    deadline = time.monotonic() + 400
    try:
        while next(runs.glob("artifacts/**/records/accuracy-*.json"), None) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        process.kill()
        process.wait(30)
    before = {run.run_id for run in Store(runs).kept().values() if run.done}
    done = convboard(*command)
    assert "leads, and" in done.stdout
    kept = Store(runs).kept()
    assert before <= {run.run_id for run in kept.values() if run.done}
    convboard("export", "--runs", runs, "--records", records)
    decisions = [r for r in load_all(records) if r.kind == "decision"]
    assert {r.entry.label for r in decisions} == {"dwconv", "acb"}
    assert sorted(r.decision.outcome for r in decisions) == ["leads", "same"]
    (board,) = boards(load_all(records))
    assert "within 99 points of it" in " ".join(board.notes)
    assert all(len(row.scores) == r.decision.rounds for row in board.rows for r in decisions)

    again = convboard(*command)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    convboard("export", "--runs", runs, "--records", records)
    assert len([r for r in load_all(records) if r.kind == "decision"]) == 2
    assert len(Store(runs).kept()) == len(kept)


def test_other_files_of_the_same_name_are_refused(contest, tiny, tmp_path):
    cells = list(contest.cells.values())[:1]
    kept = finished(contest, {("dwconv", 0): 0.5})
    kept[cells[0].hash].tags[DATA] = "a"
    data = {cells[0].hash: SimpleNamespace(name="photos", files_sha256="b")}
    with pytest.raises(UserError, match=r"`photos`: .* was run on other files of that name"):
        verb._require_same_data(cells, kept, data)
    kept[cells[0].hash].tags[DATA] = "b"
    verb._require_same_data(cells, kept, data)


def test_a_board_on_which_one_arm_fits_leaves_the_others(contest, capsys):
    cells = list(contest.cells.values())
    lone = [cell for cell in cells if cell.operator == "acb"]
    unfit = [cell for cell in cells if cell.operator != "acb"]
    assert verb._contested(lone, unfit) == []
    assert "fewer than two arms fit, so there is nothing to decide." in capsys.readouterr().out
    assert verb._contested(cells, []) == cells
