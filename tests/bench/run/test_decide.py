"""Boards that are run until they are decided, with records of why each arm stopped."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from bench.cli import decide as verb
from bench.cli.decide import seconds_of
from bench.config.plan import Choice, plan
from bench.config.schema import load_suite
from bench.errors import UserError
from bench.record import load_all
from bench.run import decide as deciding
from bench.run.on_slurm import OnSlurm
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
    [
        *(("wide", "must be a number"), ("0", "above 0"), ("-1pp", "above 0"), ("nan", "above 0")),
        *(("1", "below 1 for a metric in 0…1: 0.01 is one point"), ("100pp", "below 1")),
    ],
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


def test_cells_that_are_no_whole_rounds_can_not_be_decided(tiny):
    cells = plan(str(tiny), Choice(seeds=SEEDS))
    with pytest.raises(UserError, match="acb has no seed 3, which another arm has; `--only` must"):
        deciding.contests([c for c in cells if (c.operator, c.seed) != ("acb", 3)])


def test_a_board_goes_on_from_its_own_seeds(tiny, tmp_path):
    suite = yaml.safe_load(tiny.read_text())
    suite["boards"].append({**suite["boards"][0], "seeds": [7]})
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(suite))
    first, second = load_suite(str(path)).boards
    choice = Choice(seeds_max=3)
    assert choice.seeds_of(second, load_suite(str(path))) == [7, 0, 1]
    assert choice.seeds_of(first, load_suite(str(path)))[0] == suite["seeds"][0]
    own = [cell for cell in plan(str(path), choice) if cell.seed == 7]
    assert own
    assert all("--seeds 7,0,1" in cell.words for cell in own)


class Tagged:
    """A store that keeps tags and records of the runs of `finished`, each its cell's."""

    def __init__(self, kept):
        self.kept_ = kept

    def tag(self, run_id, tags):
        for run in self.kept_.values():
            if run.run_id == run_id:
                run.tags.update(tags)


def test_the_risks_of_several_plans_add_up(tiny, monkeypatch, capsys):
    """Levels that hang on the seeds at most are no longer those of one test when these change."""

    def contest_of(most):
        (contest,) = deciding.contests(plan(str(tiny), Choice(seeds=list(range(most)))))
        return contest

    scores = {(arm, seed): 0.5 + seed / 50 for arm in ("dwconv", "acb") for seed in (0, 1)}
    kept = {
        cell: replace(run, run_id=cell) for cell, run in finished(contest_of(4), scores).items()
    }
    parts = []
    store = Tagged(kept)
    store.record = lambda run: SimpleNamespace(entry=None, data=None, recipe=None)
    store.keep = lambda *_: None
    record = SimpleNamespace(save=lambda folder: folder)
    monkeypatch.setattr(
        deciding, "record_of", lambda cell, **said: parts.append(said["decision"]) or record
    )
    risks = []
    for most in (3, 4, 4):
        contest = contest_of(most)
        deciding.keep(contest, deciding.judged(contest, kept), store, kept, "command", over=True)
        risks.append([part.risk for part in parts])
        verb._tell_plans(contest, deciding.plans(contest, kept))
    assert risks == [[0.04] * 2, [0.04] * 2 + [0.08] * 2, [0.04] * 2 + [0.08] * 2]
    told = capsys.readouterr().out
    assert told.count("judged with --seeds-max 3 and 4") == 2
    assert "a risk of up to 8%, not 4%" in told


@pytest.mark.parametrize("text", ["soon", "0m", "-3m", "3 days"])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(UserError, match="--budget"):
        seconds_of(text)


def test_a_round_takes_as_long_as_the_fullest_of_its_workers():
    assert verb._turns(SimpleNamespace(workers=4), 6) == 2
    assert verb._turns(SimpleNamespace(workers=8), 6) == 1
    slurm = object.__new__(OnSlurm)  # it is not installed here
    slurm.most = None  # it is handed all
    assert verb._turns(slurm, 6) == 1
    slurm.most = 4
    assert verb._turns(slurm, 6) == 2


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
