"""A glance at the database says what the store says, of every kind of run."""

import sqlite3

import pytest

from bench.errors import UserError
from bench.store import CELL, DONE, Store, StoreError
from bench.store.glance import Glance, look
from bench.store.kept import beginning_with


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    store = Store(folder)

    def run(cell, **tags):
        return store.begin("mine", f"run of {cell}", {CELL: cell, **tags}, {"lr": 1}, resume=False)

    store.end(run("aa1"), "FAILED")
    ended = run("aa1")
    store.metrics(ended, {"final/top1": 0.5, "odd": float("nan"), "far": float("inf")})
    store.metrics(ended, {"final/top1": 0.75})
    store.done(ended, "accuracy-1.json")
    store.end(run("aa1"), "KILLED")  # newer, but not done
    run("aa2")
    store.end(run("bb3"), "FAILED")
    deleted = run("cc4")
    store.client.delete_run(deleted)
    store.begin("speed", "of no cell", {}, {})
    store.begin("gone", "hidden", {CELL: "dd5"}, {})
    store.client.delete_experiment(store.experiment("gone"))
    return folder


def plain(kept):
    return {cell: str(run) for cell, run in kept.items()}


def test_it_says_what_the_store_says(folder):
    glance = look(folder, 1)
    assert isinstance(glance, Glance)
    assert plain(glance.kept()) == plain(Store(folder).kept())
    assert sorted(glance.kept()) == ["aa1", "aa2", "bb3"]
    assert glance.kept()["aa1"].done
    assert glance.kept()["aa1"].metrics["final/top1"] == 0.75


def test_the_files_of_a_run_are_those_of_the_store(folder, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text("lr: 1\n")
    store, run = Store(folder), look(folder, 1).kept()["aa1"]
    store.keep(run.run_id, config)
    store.keep(run.run_id, config, "records")
    glance = look(folder, 1)
    monkeypatch.setattr(glance, "_asked", None)  # it needs no MLflow
    for place in ("", "records", "nowhere"):
        assert glance.files(run.run_id, place) == sorted(store.files(run.run_id, place))
    assert glance.config(run) == store.config(run) == {"lr": 1}
    with glance.artifact(run.run_id, "records/config.yaml", tmp_path) as path:
        assert path.read_text() == "lr: 1\n"


def test_a_run_that_it_does_not_know_is_the_stores(folder, tmp_path):
    store, glance = Store(folder), look(folder, 1)
    (started, *_) = (r.info.run_id for r, name in store.runs() if name == "speed")
    (tmp_path / "times.json").write_text("[]")
    store.keep(started, tmp_path / "times.json")
    assert glance.files(started, "") == ["times.json"]
    with glance.artifact(started, "times.json", tmp_path) as path:
        assert path.read_text() == "[]"


def test_a_deleted_experiment_is_told(folder):
    glance = look(folder, 1)
    glance.require_active(["mine"])
    with pytest.raises(StoreError, match="the experiment 'gone' was deleted in MLflow; restore it"):
        glance.require_active(["mine", "gone"])


def test_a_cell_is_found_by_the_beginning_of_its_hash(folder):
    kept = look(folder, 1).kept()
    assert beginning_with(kept, "b", folder).cell == "bb3"
    with pytest.raises(UserError, match="begins the hashes of 2 cells"):
        beginning_with(kept, "aa", folder)
    with pytest.raises(UserError, match="no cell that was run"):
        beginning_with(kept, "zz", folder)


def test_a_folder_without_a_store_stays_as_it_is(tmp_path):
    glance = look(tmp_path / "none", 1)
    glance.require_active(["mine"])
    assert glance.kept() == {}
    assert not (tmp_path / "none").exists()


def test_mlflow_is_asked_where_the_database_is_not_enough(folder, tmp_path):
    copy = tmp_path / "mlflow.db"
    with sqlite3.connect(folder / "mlflow.db") as before, sqlite3.connect(copy) as after:
        before.backup(after)
        after.execute("DELETE FROM tags WHERE key = ?", (DONE,))  # as an older version left it
    assert isinstance(look(tmp_path, 1), Store)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database at all, though long enough to be one")
    with pytest.raises(StoreError, match="is not a database"):
        look(tmp_path, 0.1)
