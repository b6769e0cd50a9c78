"""Tuning: resumable, pruned, on a held-out split; its result is a suite."""

import random
import runpy
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import optuna
import psutil
import pytest
import yaml

from bench.config.plan import plan
from bench.errors import Failure
from bench.record import load_all
from bench.run import tune as tuning
from bench.run.tune.database import HEARTBEAT_S
from bench.run.tune.study import DEFAULT
from bench.store import Store
from leaderboard.board import boards

servers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("servers.py"))))


@pytest.fixture
def learning(tiny, tmp_path):
    """The tiny suite with a recipe that learns nothing, and a space in which all others learn."""
    suite = yaml.safe_load(tiny.read_text())
    (board,) = suite["boards"]
    board["set"]["model"] = {"init_args": {"lr": 1e-9}}
    board["set"]["trainer"] = {"max_epochs": 6, "check_val_every_n_epoch": 6}
    board["tune"] = {"model.init_args.lr": {"values": [0.004]}}
    path = tmp_path / "learning.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


def test_what_it_writes_must_be_known_for_a_suite(tiny, tmp_path, convboard):
    for verb in ("tune", "search-dilation"):
        line = (verb, tiny, "--runs", tmp_path / "runs", "--out", tmp_path / "found")
        told = convboard(*line, status=2, at_once=True).stderr
        assert "`--out` (=" in told
        assert "must be a file that ends in .yaml" in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_study_its_suite_and_its_row_on_the_board(learning, tmp_path, convboard):
    """Tune, go on, run what was written, export, and look at the board and the site."""
    runs, out = tmp_path / "runs", tmp_path / "tuned.yaml"
    command = ["tune", learning, "--only", "operator=acb", "--runs", runs, "--out", out, "--trials"]
    convboard(*command, "2")
    assert "trial 2" in convboard(*command, "3").stdout
    store = Store(runs)
    (summary,) = optuna.get_all_study_summaries(store.studies())
    study = optuna.load_study(study_name=summary.study_name, storage=store.studies())
    assert len(study.trials) == 3
    assert "lr" not in study.trials[0].params  # the recipe's own, which its space does not hold
    assert len({trial.params["weight_decay"] for trial in study.trials}) == 3
    trials = [run for run, _ in store.runs() if "trial" in run.data.tags]
    assert len(trials) == 3
    parent = summary.user_attrs["mlflow_run"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent}
    assert all(run.data.params["data.init_args.holdout"] == "0.2" for run in trials)
    assert all(run.data.params["trainer.check_val_every_n_epoch"] == "1" for run in trials)
    assert "pictures/history.png" in store.files(parent, "pictures")

    convboard("run", out, "--runs", runs)
    cells = {cell.operator: cell for cell in plan(str(out))}
    assert list(cells) == ["dwconv", "acb", "acb-tuned"]
    assert cells["acb"].hash == plan(str(learning))[1].hash
    assert {cell.board for cell in cells.values()} == {cells["dwconv"].board}
    assert cells["acb-tuned"].config["data"]["init_args"]["holdout"] == 0.0
    assert cells["acb-tuned"].config["model"]["init_args"]["lr"] == 0.004
    assert cells["acb-tuned"].untuned["model.init_args.lr"] == 1e-9

    records = tmp_path / "records"
    convboard("export", "--runs", runs, "--records", records)
    every = load_all(records)
    assert sum(record.kind == "study" for record in every) == 2  # of two trials, and of three
    (board,) = boards(every)
    rows = {row.label: row for row in board.rows}
    assert set(rows) == {"dwconv", "acb", "acb-tuned"}
    assert board.baseline is not None
    assert board.baseline.label == "dwconv"
    assert all(row.difference for label, row in rows.items() if label != "dwconv")
    for label in ("acb", "acb-tuned"):
        (told,) = rows[label].studies
        assert len(told.study.trials) == 3
        assert told.study.name == summary.study_name
    convboard("site", "--records", records, "--out", tmp_path / "site")
    (page,) = (tmp_path / "site" / "boards").glob("*.html")
    assert "3 trials" in page.read_text()
    for entry in (tmp_path / "site" / "entries").glob("acb*.html"):
        assert "three trials, 18 epochs in all" in entry.read_text()


def test_an_arm_that_does_not_fit_is_a_row_and_stops_no_other(
    tiny, tmp_path, convboard, monkeypatch
):
    taken = []

    def tuned(arm, store, search, **others):
        taken.append((arm.cell.operator, search.trials))
        raise Failure("no trial has a score")

    monkeypatch.setattr(tuning, "tune", tuned)
    runs = tmp_path / "runs"
    command = ["tune", tiny, "--hosts", "test_resnet", "--where", "stages=4", "--trials", "3"]
    told = convboard(*command, "--runs", runs, at_once=True, status=1).stdout
    assert "does not fit: test_resnet · dwconv: dwconv fits none of the" in told
    assert "no trial has a score" in told
    assert taken == [("acb", 3)]
    (run,) = Store(runs).kept().values()
    assert run.tags["operator"] == "dwconv"
    assert "dwconv is depthwise" in run.tags["error"]


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
            (f"-{2 * HEARTBEAT_S + 1} seconds",),
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
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_four_workers_that_are_killed_lose_no_trial(tiny, tmp_path, convboard):
    runs = tmp_path / "runs"
    command = ["tune", tiny, "--only", "operator=acb", "--runs", runs, "--trials", "8"]
    process = convboard(*command, "--workers", "4", wait=False)
    draw = random.Random(0)
    for number in range(3):
        servers.wait_for(lambda: list(runs.glob("trials/*")) or process.poll() is not None)
        family = servers.workers(process)
        if number:
            time.sleep(draw.uniform(0, 1))
            family = family and [draw.choice(family)]
        for worker in family:  # at first all of them
            with suppress(psutil.NoSuchProcess):
                worker.kill()
    assert process.wait(500) == 0
    store = Store(runs)
    (summary,) = optuna.get_all_study_summaries(store.studies())
    trials = optuna.load_study(study_name=summary.study_name, storage=store.studies()).trials
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(ended) == 8
    assert {trial.state for trial in trials} == {trial.state for trial in (*ended, *lost)}
    assert lost
    history = optuna.storages.RetryHeartbeatStaleTrialCallback.retry_history
    again = [number for trial in ended for number in history(trial)]
    assert sorted(again) == [trial.number for trial in lost]  # each was run again, once
    assert [bool(trial.user_attrs.get(DEFAULT)) for trial in ended].count(True) == 1
    assert len({str(trial.params) for trial in ended}) == 8
    of_trials = {run.data.tags.get("trial"): run.info.status for run, _ in store.runs()}
    of_trials.pop(None)  # the study's own
    assert "RUNNING" not in of_trials.values()
    assert {str(trial.number) for trial in ended} <= set(of_trials)
    assert list(runs.glob("trials/*")) == []


@pytest.mark.slow
def test_two_at_once_share_a_study(tiny, tmp_path, convboard):
    runs = tmp_path / "runs"
    command = ["tune", tiny, "--only", "operator=acb", "--runs", runs, "--trials", "4"]
    other = convboard(*command, wait=False)
    convboard(*command)
    assert other.wait(240) == 0
    (summary,) = optuna.get_all_study_summaries(Store(runs).studies())
    assert summary.n_trials == 4
    tags = [run.data.tags for run, _ in Store(runs).runs("tiny-tune")]
    assert sum("study" in of for of in tags) == 1
