"""Results of several machines in one folder: nothing lost, nothing twice, nothing mixed."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.record import Machine, Record, load_all
from bench.store.merge import merge
from leaderboard.board import boards
from leaderboard.times import choices, record_of

RESULTS = Path(__file__).parents[3] / "leaderboard" / "results"
OUTCOMES = b"one per image"
SHA256 = sha256(OUTCOMES).hexdigest()
OTHER = Machine(cpu="another processor", cores=8, memory_bytes=1 << 34, os="another system")


@pytest.fixture(scope="module")
def board():
    """Published records of one board, of two arms: their scores and times, by file."""
    folders = ("detection-bccd-test-convnext", "backbone-test-convnext-240x320")
    paths = [path for name in folders for path in (RESULTS / name).rglob("*.json")]
    chosen = {path: Record.load(path) for path in sorted(paths)}
    wanted = {(o, kind) for o in ("dwconv", "acb") for kind in ("accuracy", "speed")}
    chosen = {p: r for p, r in chosen.items() if (r.entry.operator, r.kind) in wanted}
    assert {(r.entry.operator, r.kind) for r in chosen.values()} == wanted
    return chosen


@pytest.fixture
def here(board, tmp_path):
    """A folder of records, as this machine has exported them; those of scores with outcomes."""
    folder = tmp_path / "here"
    folder.mkdir()
    for path, record in board.items():
        if record.kind == "speed":
            shutil.copy(path, folder)
            continue
        (folder / record.accuracy.outcomes.file).write_bytes(OUTCOMES)
        outcomes = record.accuracy.outcomes.model_copy(update={"sha256": SHA256})
        accuracy = record.accuracy.model_copy(update={"outcomes": outcomes})
        record.model_copy(update={"accuracy": accuracy}).save(folder)
    return folder


@pytest.fixture
def there(board, tmp_path):
    """The same, as another machine would have measured the speed."""
    folder = tmp_path / "there"
    for record in board.values():
        if record.kind == "speed":
            other = record.model_copy(update={"machine": OTHER, "identity": ""})
            Record.model_validate(other.model_dump()).save(folder)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_lost_and_nothing_is_there_twice(here, there, tmp_path):
    whole = tmp_path / "whole"
    merged = merge([here, there, here], whole)
    assert contents(whole) == contents(here) | contents(there)
    assert len(merged.known) == len(load_all(here))
    assert not merged.faults
    again = merge([there, here], whole)
    assert not again.new
    assert contents(whole) == contents(here) | contents(there)


def test_what_is_no_record_where_all_are_brought_together_is_told_and_stays(here, tmp_path):
    whole = tmp_path / "whole"
    merge([here], whole)
    (whole / "notes.json").write_text("{}")
    (whole / "half.json").write_text("{")
    merged = merge([here], whole)
    assert len(merged.known) == len(load_all(here))
    assert [fault.partition(":")[0] for fault in merged.faults] == [
        "whole/half.json",
        "whole/notes.json",
    ]
    assert (whole / "half.json").read_text() == "{"


def test_a_record_under_another_name_is_the_same_record(here, tmp_path):
    renamed = tmp_path / "renamed"
    shutil.copytree(here, renamed)
    for path in renamed.glob("*.json"):
        path.rename(path.with_name(f"copy-{path.name}"))
    merged = merge([here, renamed], tmp_path / "whole")
    assert contents(tmp_path / "whole") == contents(here)
    assert len(merged.known) == len(merged.new)
    other_way = merge([renamed, here], tmp_path / "other")
    assert len(other_way.known) == len(other_way.new)
    assert load_all(tmp_path / "other") == load_all(here)


def test_what_lies_beside_a_record_comes_from_whoever_has_it(here, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(here, bare, ignore=shutil.ignore_patterns("*.npz"))
    merged = merge([bare, here], tmp_path / "whole")
    assert not merged.faults
    assert contents(tmp_path / "whole") == contents(here)


def test_times_of_two_machines_stay_apart(here, there, tmp_path):
    merged = merge([here, there], tmp_path / "whole")
    assert OTHER in merged.machines
    (alone,), (both,) = boards(load_all(here)), boards(load_all(tmp_path / "whole"))
    machines = {choice.setup.speed.machine for choice in choices(alone)}
    assert machines
    assert {choice.setup.speed.machine for choice in choices(both)} == machines | {OTHER}
    for choice in choices(both):
        shown = [record_of(row, choice) for row in both.rows]
        assert {r.machine for r in shown if r} == {choice.setup.speed.machine}
    scores = [{row.label: row.scores for row in board.rows} for board in (alone, both)]
    assert scores[0] == scores[1]


def test_what_is_damaged_is_told_and_the_others_go_on(here, tmp_path):
    (here / "accuracy-torn.json").write_text('{"kind": "accuracy"')
    changed = next(here.glob("*.npz"))
    changed.write_bytes(b"other outcomes")
    merged = merge([here], tmp_path / "whole")
    assert any("here/accuracy-torn.json: " in fault for fault in merged.faults)
    assert any(f"{changed.name} beside it is not what it says" in f for f in merged.faults)
    assert len(merged.faults) == 2
    whole = load_all(tmp_path / "whole")
    assert len(whole) == len(list(here.glob("*.json"))) - len(merged.faults)
    assert all((tmp_path / "whole" / name).is_file() for r in whole for name in r.beside)


@pytest.mark.parametrize("kind", ["nowhere", "empty", "file"])
def test_what_holds_no_results_is_refused_before_anything_is_copied(here, tmp_path, kind):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=rf"`runs` \(='{kind}'\) must be a folder of runs"):
        merge([here, tmp_path / kind], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_server_in_the_environment_is_not_asked_in_place_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI names a server"):
        merge([tmp_path], tmp_path / "whole")
