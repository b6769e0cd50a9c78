"""Tuning: resumable, pruned, on a held-out split; its result is a suite."""

import signal
import sqlite3
import time
from contextlib import closing

import optuna
import pytest
from optuna.trial import FixedTrial

from bench.config.plan import Choice, plan
from bench.config.schema import SearchSpace
from bench.errors import UserError
from bench.record import load_all
from bench.run import spaces, study, tune
from bench.store import Store
from leaderboard.board import boards


def test_space_spans_the_recipe(tiny):
    (cell,) = plan(str(tiny), Choice(only={"operator": ["acb"]}))
    found = spaces.space(cell)
    lr = cell.config["model"]["init_args"]["lr"]
    assert found["model.init_args.lr"].low == pytest.approx(lr / 10)
    assert found["model.init_args.lr"].high == pytest.approx(lr * 10)
    assert "model.init_args.backbone.init_args.options.gamma_init" in found


def test_suggest_puts_each_value_in_its_place():
    searched = {
        "model.init_args.lr": SearchSpace(low=0.1, high=1.0, log=True),
        "a.options.paths": SearchSpace(low=1, high=3),
        "a.options.form": SearchSpace(values=["x", "y"]),
    }
    trial = FixedTrial({"lr": 0.5, "paths": 2, "form": 1})
    assert study.suggest(trial, searched) == {
        "model": {"init_args": {"lr": 0.5}},
        "a": {"options": {"paths": 2, "form": "y"}},
    }


def test_one_cell_only(tiny, tmp_path):
    with pytest.raises(UserError, match="--only operator="):
        tune.tune(str(tiny), Choice(), tmp_path, trials=1, out=None)
    with pytest.raises(UserError, match=r"`--trials` \(=0\)"):
        tune.tune(str(tiny), Choice(), tmp_path, trials=0, out=None)


@pytest.mark.slow
def test_a_study_its_suite_and_its_row_on_the_board(tiny, tmp_path, convboard):
    """Tune, go on, run what was written, export, and look at the board and the site."""
    runs, out = tmp_path / "runs", tmp_path / "tuned.yaml"
    command = ["tune", tiny, "--only", "operator=acb", "--runs", runs, "--out", out, "--trials"]
    convboard(*command, "2")
    convboard(*command, "3")
    store = Store(runs)
    (summary,) = optuna.get_all_study_summaries(store.studies())
    loaded = optuna.load_study(study_name=summary.study_name, storage=store.studies())
    assert len(loaded.trials) == 3
    assert len({trial.params["lr"] for trial in loaded.trials}) == 3  # the third is a new draw
    trials = [run for run, _ in store.runs() if "trial" in run.data.tags]
    assert len(trials) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {
        summary.user_attrs["mlflow_run"]
    }
    assert all(run.data.params["data.init_args.holdout"] == "0.2" for run in trials)

    convboard("run", tiny, "--runs", runs)
    assert "1 to run" in convboard("plan", out, "--runs", runs).stdout  # but the tuned one
    convboard("run", out, "--runs", runs)
    cells = {cell.operator: cell for cell in plan(str(out))}
    assert list(cells) == ["dwconv", "acb", "acb-tuned"]
    assert {cell.board for cell in cells.values()} == {cells["dwconv"].board}
    assert cells["acb-tuned"].config["data"]["init_args"]["holdout"] == 0.0
    assert cells["acb-tuned"].config["model"]["init_args"]["lr"] == loaded.best_params["lr"]
    assert (
        cells["acb-tuned"].untuned["model.init_args.lr"]
        == (cells["acb"].config["model"]["init_args"]["lr"])
    )

    records = tmp_path / "records"
    convboard("export", "--runs", runs, "--records", records)
    (board,) = boards(load_all(records))
    rows = {row.label: row for row in board.rows}
    assert set(rows) == {"dwconv", "acb", "acb-tuned"}
    assert board.baseline is not None
    assert board.baseline.label == "dwconv"
    assert all(row.difference for label, row in rows.items() if label != "dwconv")
    convboard("site", "--records", records, "--out", tmp_path / "site")
    (page,) = (tmp_path / "site" / "boards").glob("*.html")
    assert "3 trials" in page.read_text()


@pytest.mark.slow
def test_a_trial_that_is_cut_off_is_queued_again(tiny, tmp_path, convboard):
    """By Ctrl-C, which says so, and by a kill, which says nothing: it is silent for a minute."""
    runs = tmp_path / "runs"
    command = ["tune", tiny, "--only", "operator=acb", "--runs", runs, "--trials", "1"]
    command += ["--set", "trainer.max_epochs=20"]

    def cut_off(number):
        process = convboard(*command, wait=False)
        deadline = time.monotonic() + 240
        while not list(runs.glob("trials/*/last.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(number)
        return process.wait(60)

    def of_trials():
        by_number = {run.data.tags.get("trial"): run.info.status for run, _ in store.runs()}
        by_number.pop(None)  # the study's own
        return [by_number[number] for number in sorted(by_number)]

    assert cut_off(signal.SIGINT) == 130
    store = Store(runs)
    assert of_trials() == ["KILLED"]
    assert cut_off(signal.SIGKILL) == -signal.SIGKILL
    assert of_trials() == ["KILLED", "RUNNING"]
    with closing(sqlite3.connect(runs / "optuna.db")) as connection, connection:
        connection.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?)",
            (f"-{2 * study.HEARTBEAT_S + 1} seconds",),
        )
    convboard(*command)
    (summary,) = optuna.get_all_study_summaries(store.studies())
    trials = optuna.load_study(study_name=summary.study_name, storage=store.studies()).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE"]
    assert trials[0].params == trials[1].params == trials[2].params
    assert not any("error" in trial.user_attrs for trial in trials)
    assert of_trials() == ["KILLED", "KILLED", "FINISHED"]
    assert list(runs.glob("trials/*")) == []


@pytest.mark.slow
def test_two_at_once_share_a_study(tiny, tmp_path, convboard):
    runs = tmp_path / "runs"
    command = ["tune", tiny, "--only", "operator=acb", "--runs", runs, "--trials", "4"]
    other = convboard(*command, wait=False)
    convboard(*command)
    assert other.wait(240) == 0
    (summary,) = optuna.get_all_study_summaries(Store(runs).studies())
    assert 4 <= summary.n_trials <= 5  # both may have had one under way
