"""Records are filed where people look for them; what cannot be published is refused as a whole."""

import hashlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.errors import UserError
from bench.record import Record
from leaderboard.filing import fault, home, put, records_in

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
SCORE = make.SCORED


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("board", sorted(path.name for path in RESULTS.iterdir()))
def test_every_published_record_is_by_its_schema_and_in_its_place(board):
    paths = sorted((RESULTS / board).rglob("*.json"))
    assert paths
    for path in paths:
        record = Record.load(path)
        assert fault(record, path.name) is None
        assert path.parent.relative_to(RESULTS).as_posix() == home(record).as_posix()


def test_the_folder_says_board_machine_and_date():
    assert home(SCORE).parts[0] == "classification-scenes-test-convnext"
    assert home(make.BEHIND).parts[0] == "classification-scenes-test-convnext"
    assert home(make.TIMED).parts[0] == "backbone-test-convnext-64x64"
    epyc = SCORE.machine.model_copy(update={"cpu": "AMD EPYC", "cores": 2})
    created = SCORE.provenance.created[:10]
    assert home(make.changed(SCORE, machine=epyc)).parts[1:] == ("amd-epyc-2-cores", created)
    gpu = SCORE.machine.model_copy(update={"gpu": "NVIDIA H100 80GB HBM3", "gpu_count": 1})
    assert home(make.changed(SCORE, machine=gpu)).parts[1] == "nvidia-h100-80gb-hbm3"
    strange = make.changed(SCORE, entry=make.entry("a", host="../../up"))
    assert home(strange).parts[0] == "classification-scenes-up"


def test_records_are_filed_once_with_what_lies_beside_them(tmp_path, into):
    outcomes = tmp_path / "new" / SCORE.accuracy.outcomes.file
    outcomes.parent.mkdir()
    outcomes.write_bytes(b"outcomes")
    named = SCORE.accuracy.outcomes.model_copy(
        update={"sha256": hashlib.sha256(b"outcomes").hexdigest()}
    )
    record = make.changed(SCORE, accuracy=SCORE.accuracy.model_copy(update={"outcomes": named}))
    path = record.save(outcomes.parent)
    (name,) = put(records_in([tmp_path / "new"]), into).new
    assert name == f"{home(record)}/{path.name}"
    assert (into / name).read_bytes() == path.read_bytes()
    assert (into / name).with_name(outcomes.name).read_bytes() == b"outcomes"
    again = put(records_in([path, tmp_path / "new"]), into)
    assert (again.new, again.known) == ((), (name,))
    outcomes.write_bytes(b"others")
    with pytest.raises(UserError, match="is not what it says: other hash"):
        records_in([path])


def test_what_lay_beside_a_record_is_filed_later_too(tmp_path, into):
    named = SCORE.accuracy.outcomes.model_copy(
        update={"sha256": hashlib.sha256(b"outcomes").hexdigest()}
    )
    record = make.changed(SCORE, accuracy=SCORE.accuracy.model_copy(update={"outcomes": named}))
    path = record.save(tmp_path / "new")
    (name,) = put(records_in([path]), into).new
    path.with_name(named.file).write_bytes(b"outcomes")
    assert put(records_in([path]), into).known == (name,)
    filed = (into / name).with_name(named.file)
    assert filed.read_bytes() == b"outcomes"
    filed.write_bytes(b"others")
    with pytest.raises(UserError, match="another file of this name is filed"):
        put(records_in([path]), into)
    assert filed.read_bytes() == b"others"


def test_two_files_of_one_name_must_be_the_same(tmp_path, into):
    one, other = (SCORE.save(tmp_path / name) for name in ("one", "other"))
    assert len(put(records_in([one, other]), into).new) == 1
    (into / put(records_in([one]), into).known[0]).unlink()
    other.write_text(other.read_text() + "\n")
    with pytest.raises(UserError, match=r"another record of this name is filed, or is to be"):
        put(records_in([one, other]), into)
    assert not list(into.rglob("*.json"))


def test_nothing_is_overwritten(tmp_path, into):
    path = SCORE.save(tmp_path / "new")
    (name,) = put(records_in([path]), into).new
    (into / name).write_text("other")
    with pytest.raises(UserError, match="another record of this name is filed"):
        put(records_in([path]), into)
    assert (into / name).read_text() == "other"


def test_all_that_is_wrong_is_told_before_anything_is_filed(tmp_path):
    folder = tmp_path / "new"
    good = SCORE.save(folder)
    dirty = make.changed(SCORE, provenance=make.provenance(git_dirty=True)).save(folder)
    placed = make.changed(SCORE, provenance=make.provenance(command="run /home/me/a.yaml"))
    placed = placed.save(folder)
    renamed = good.rename(folder / "accuracy-0.json")
    (folder / "broken.json").write_text("{}")
    (folder / "link.json").symlink_to(dirty)
    with pytest.raises(UserError, match=r"nothing is filed") as caught:
        records_in([folder])
    told = str(caught.value)
    assert f"{dirty.name}: it was made by code that no commit holds" in told
    assert f"{placed.name}: it names a folder from the root" in told
    assert f"{renamed.name}: its name is not that of its content" in told
    assert "broken.json is not a record of schema 1" in told
    assert "link.json: it is a link" in told


def test_a_path_must_be_there(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UserError, match="must be a record, or a folder with some"):
            records_in([path])
    with pytest.raises(UserError, match="run it in a checkout"):
        put({}, tmp_path / "none")


def test_a_dry_run_tells_what_is_new_and_what_is_removed(tmp_path, into, convboard):
    records = make.suite(seeds=(0, 1))
    for record in records:
        record.save(into)
    lost = [r for r in records if r.kind == "accuracy" and r.entry.label == "acb"]
    later = make.accuracy(make.entry("dw7", "dwconv"), 2, 0.9)
    for record in (*(r for r in records if r not in lost), later):
        record.save(tmp_path / "proposed")
    line = ("submit", tmp_path / "proposed", "--into", into)
    told = convboard(*line, "--dry-run", "--whole", at_once=True).stdout
    assert "| acb | gone |" in told
    assert told.endswith("Records: 1 new, 2 removed.\n")
    told = convboard(*line, "--dry-run", at_once=True).stdout
    assert "gone" not in told
    assert told.endswith("Records: 1 new.\n")
    assert len(list(into.rglob("*.json"))) == len(records)
    refused = convboard(*line, "--whole", status=2, at_once=True)
    assert "`--whole` (=True) must be there with --dry-run" in refused.stderr
