"""The whole way: cells that run, fail and die, times, export, boards and the site.

The very same cell fails at one time and comes through at another: its operator raises while the
test says so.
"""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import yaml

from bench.config.plan import Choice, plan
from bench.operators.acb import ACB
from bench.record import load_all
from bench.run import cell as cells
from bench.run import describe
from bench.run.dilation import supernet
from leaderboard.board import boards
from leaderboard.build import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FOUR = "data.init_args.options.classes=4"
SHORT = "trainer.max_epochs=1"
COMMAND = "convboard run tiny"


@contextmanager
def elsewhere():
    """Use one store after another: MLflow leaves the address of the last in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def fail(*arguments):
    raise RuntimeError("in a bad mood")


@pytest.fixture(scope="module")
def records(tiny, tmp_path_factory, convboard):
    """What the program wrote, by what had happened before."""
    folder = tmp_path_factory.mktemp("whole")

    def chosen(operator, *sets, **choice):
        (cell,) = plan(str(tiny), Choice(sets=sets, only={"operator": [operator]}, **choice))
        return cell

    def run(cell, runs="good"):
        with elsewhere():
            cells.run_cell(cell, folder / runs, COMMAND)

    def die(cell, runs):
        with elsewhere():
            cells.lost(cell, folder / runs, COMMAND, "error", "its process ended: killed")

    def exported(runs, name=None):
        into = folder / "records" / (name or runs)
        convboard("export", "--runs", folder / runs, "--records", into)
        return load_all(into)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ACB, "forward", fail)
        run(chosen("acb"))
    failed = exported("good", "failed")
    for cell in [*plan(str(tiny)), chosen("acb", FOUR)]:
        run(cell)
    run(chosen("acb", SHORT))
    run(supernet(chosen("icconv", operators=["icconv"]), 2))
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(chosen("dwconv", SHORT).config))
    convboard("fit", "--config", config, "--runs", folder / "good")
    convboard("speed", tiny, "--runs", folder / "good")
    die(chosen("acb"), "later")
    die(chosen("acb", FOUR), "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, "operator_sha256", lambda name: "c" * 64)
        run(chosen("acb"), "changed")
    names = ("good", "later", "other", "changed")
    return SimpleNamespace(failed=failed, **{name: exported(name) for name in names})


def settled(records):
    """Boards by classes of the data and epochs."""
    every = {}
    for board in boards(records):
        epochs = board.first.recipe.config["trainer"]["max_epochs"]
        every[board.first.data.options["classes"], epochs] = board
    return every


def row(board, label):
    (only,) = (row for row in board.rows if row.label == label)
    return only


def test_a_failure_is_a_row_with_its_error(records):
    (board,) = boards(records.failed)
    failed = row(board, "acb")
    assert failed.scores == {}
    assert "in a bad mood" in failed.failures[0].error


def test_a_failure_that_was_run_again_with_success_is_none(records):
    acb = row(settled(records.good)[3, 2], "acb")
    assert list(acb.scores) == [0]
    assert acb.failures == ()
    assert [record.status for record in acb.superseded] == ["error"]


def test_a_success_that_was_run_again_without_is_a_failure(records):
    board = settled([*records.good, *records.later])[3, 2]
    acb = row(board, "acb")
    assert acb.scores == {}
    assert acb.failures == tuple(records.later)
    assert [record.status for record in acb.superseded] == ["error", "ok"]
    assert row(board, "dwconv").scores


def test_a_failure_touches_no_other_board(records):
    every = settled([*records.good, *records.other])
    assert row(every[4, 2], "acb").failures == tuple(records.other)
    assert not any(
        row.failures for key, board in every.items() for row in board.rows if key != (4, 2)
    )


def test_a_setting_makes_a_board_that_names_it(records):
    every = settled(records.good)
    assert set(every) == {(3, 2), (4, 2), (3, 1)}
    epochs = {key: dict(board.settings)["trainer.max_epochs"] for key, board in every.items()}
    assert epochs == {(3, 2): "2", (4, 2): "2", (3, 1): "1"}
    classes = {
        key: dict(board.settings)["data.init_args.options.classes"] for key, board in every.items()
    }
    assert classes == {(3, 2): "3", (4, 2): "4", (3, 1): "3"}
    assert {len(row.scores) for board in every.values() for row in board.rows} == {1}


def test_a_run_of_its_own_stands_beside_those_of_its_settings(records):
    board = settled(records.good)[3, 1]
    assert {row.label: row.first.recipe.name for row in board.rows} == {
        "dwconv": "fit",
        "acb": "quick-classification",
    }


def test_a_supernet_is_no_arm(records):
    assert any(record.entry.operator == "edo" for record in records.good)
    assert {row.label for board in boards(records.good) for row in board.rows} == {
        "dwconv",
        "acb",
    }


def test_results_and_times_of_older_code_are_stale(records):
    fresh = settled(records.good)
    assert not any(row.stale for board in fresh.values() for row in board.rows)
    every = settled([*records.good, *records.changed])
    new = row(every[3, 2], "acb")
    assert (new.stale, new.failures) == ((), ())
    assert [record.status for record in new.superseded] == ["error", "ok"]
    assert new.is_stale(new.latency)
    assert new.is_stale(new.end_to_end)
    for key in ((4, 2), (3, 1)):
        acb = row(every[key], "acb")
        assert len(acb.stale) == len(acb.scores) == 1
    others = [row for board in every.values() for row in board.rows if row.label != "acb"]
    assert len(others) == 2
    assert not any(row.stale for row in others)


def test_the_site_of_it_all(records, tmp_path):
    for stage in (records.good, records.other, records.changed):
        for record in stage:
            record.save(tmp_path / "records")
    build(tmp_path / "records", tmp_path / "site")
    assert "trainer.max_epochs = 1" in (tmp_path / "site" / "index.html").read_text()
    pages = [page.read_text() for page in (tmp_path / "site" / "boards").glob("*.html")]
    assert len(pages) == 3
    every = "".join(pages)
    assert '<tr class="stale"' in every
    assert 'class="num stale"' in every
    assert "its process ended: killed" in every
    assert "supernet" not in every
