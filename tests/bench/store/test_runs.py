"""Runs as MLflow's UI shows them: names, words, groups of boards, what an experiment opens with."""

import json
import tomllib
from pathlib import Path

import pytest

from bench import locks
from bench.config.plan import plan
from bench.record import Record
from bench.run import cell as cells
from bench.store import CELL, Store, ui
from bench.store.export import export
from bench.store.logger import renamed
from bench.store.ui import page

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "leaderboard" / "results"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def tags(store, run_id):
    return store.client.get_run(run_id).data.tags


def test_a_database_that_the_user_names_is_every_stores(tmp_path, monkeypatch):
    named = f"sqlite:///{tmp_path / 'own.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    assert [Store(tmp_path / "runs").uri for _ in range(2)] == [named, named]


def test_a_cell_that_another_process_runs_by_now_is_not_said_to_be_lost(tiny, store, monkeypatch):
    (cell, _) = plan(str(tiny))
    live = cells.begin(cell, store)
    monkeypatch.setattr(cells, "ENDING_S", 0)
    with locks.lock(locks.of_cell(store.folder, cell.hash)):
        assert cells.lost(cell, store.folder, "convboard run", "error", "died").record is None
    assert store.client.get_run(live).info.status == "RUNNING"
    assert cells.lost(cell, store.folder, "convboard run", "error", "died").record is not None
    assert store.client.get_run(live).info.status == "FAILED"


def test_a_cell_stands_below_its_board_and_its_operator_comes_first(tiny, store):
    first, second = plan(str(tiny))
    one, other = (cells.begin(cell, store) for cell in (first, second))
    parent = tags(store, one)["mlflow.parentRunId"]
    assert tags(store, other)["mlflow.parentRunId"] == parent
    assert store.client.get_run(one).info.run_name.startswith(f"{first.operator} · seed 0 · ")
    assert first.reproduce in tags(store, one)["mlflow.note.content"]
    group = store.client.get_run(parent)
    assert group.info.run_name == "scenes-classification · test_convnext"
    assert group.info.status == "FINISHED"
    assert "quick-classification" in group.data.tags["mlflow.note.content"]
    # it only groups: it is none of the runs that are kept
    assert {run.info.run_id for run, _ in store.runs()} == {one, other}
    assert cells.begin(first, store) == one  # it goes on


def test_boards_have_groups_of_their_own(store):
    first = store.group("mine", "a" * 64, "a", "words")
    assert store.group("mine", "a" * 64, "a", "words") == first
    assert store.group("mine", "b" * 64, "b", "words") != first
    assert store.group("others", "a" * 64, "a", "words") != first


def test_an_experiment_opens_with_runs_also_one_of_an_older_version(store):
    kind = "mlflow.experimentKind"
    made = store.experiment("mine")
    old = store.client.create_experiment("old")
    assert store.experiment("old") == old
    for experiment in (made, old):
        assert store.client.get_experiment(experiment).tags[kind] == "custom_model_development"


def test_a_cell_that_died_before_it_was_marked_has_one_score(store, tmp_path):
    """Its record was kept by then; it runs again, and keeps another."""
    record = Record.load(next(RESULTS.rglob("accuracy-*.json")))
    record = record.model_copy(
        update={"accuracy": record.accuracy.model_copy(update={"outcomes": None})}
    )
    later = record.provenance.model_copy(update={"created": "2030-01-01T00:00:00.000+00:00"})
    first = record.save(tmp_path)
    second = record.model_copy(update={"provenance": later}).save(tmp_path)
    run_id = store.begin("mine", "one", {CELL: "c"}, {})
    store.keep(run_id, first, "records")
    store.end(run_id, "FAILED")
    assert export(store, tmp_path / "records").records == []
    assert store.begin("mine", "one", {CELL: "c"}, {}) == run_id
    store.keep(run_id, second, "records")
    store.done(run_id, second.name)
    assert [path.name for path in export(store, tmp_path / "records").records] == [second.name]


def test_settings_are_logged_whatever_their_keys_are(store):
    options = {"pattern": {"(0, 0)": 40, "(1, 3)": 24}, "none": {}, "dmax": 2}
    run_id = store.begin("mine", "one", {}, {"options": options})
    assert store.client.get_run(run_id).data.params == {
        "options.pattern": "{'(0, 0)': 40, '(1, 3)': 24}",
        "options.none": "{}",
        "options.dmax": "2",
    }


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")  # MLflow's import
def test_the_ui_begins_with_the_half_for_training():
    from bench.store import ui_app

    client = ui_app.pages.test_client()
    said = client.get(ui_app.START, headers={"Host": "127.0.0.1:5000"}).get_data(as_text=True)
    assert 'location.replace("./" + location.hash)' in said
    assert json.dumps([*ui_app.KEPT.items()]) in said
    folder = Path(ui_app.pages.static_folder) / "static" / "js"
    theirs = "".join(path.read_text() for path in folder.glob("main.*.js"))
    for key in ui_app.KEPT:  # which a newer MLflow may call otherwise
        name, _, version = key.rpartition("_v")
        assert f'key:"{name}",version:{version}' in theirs
    assert ui_app.KEPT["mlflow.workflowType_v1"].strip('"') in theirs
    app = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert app["mlflow.app"] == {ui.APP: f"{ui_app.__name__}:app"}
    assert f"/{ui.APP}" == ui_app.START


def test_metrics_of_epochs_keep_their_steps(store):
    run_id = store.begin("mine", "one", {CELL: "c"}, {})
    logger = store.logger("mine", run_id)
    for step in (49, 99):
        logger.log_metrics({"train/loss_epoch": 1 / step, "train/loss_step": 2 / step}, step)
    history = store.client.get_metric_history(run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(49, 1 / 49), (99, 1 / 99)]
    assert store.client.get_run(run_id).data.metrics["step/train/loss"] == 2 / 99
    assert renamed({"val/top1": 0.5, "epoch": 1.0}) == {"val/top1": 0.5, "epoch": 1.0}


def test_the_ui_opens_with_the_charts_of_the_suite_that_was_trained_last(store):
    assert page(store) == ""
    for experiment, cell, metrics in (
        ("older", "a", {"final/top1": 0.5}),
        ("newer", "b", {"final/top1": 0.5}),
        ("newer-speed", "c", {"acb/batch_1_ms": 2.0}),
    ):
        run_id = store.begin(experiment, cell, {CELL: cell}, {})
        store.metrics(run_id, metrics)
        store.done(run_id, "record.json")
    newest = store.experiment("newer")
    assert (
        page(store)
        == f"#/experiments/{newest}/runs?compareRunsMode=CHART&workflowType=machine_learning"
    )
