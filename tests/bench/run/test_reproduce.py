"""A record is enough to run its cell once more, and to say whether its score came out again."""

import pytest

from bench.errors import UserError
from bench.record import Record
from bench.run.reproduce import cell_of, compare, known_before


@pytest.fixture(scope="module")
def exported(tiny, convboard, tmp_path_factory):
    """The record of a cell that was run, as a file; the runs folder it comes from."""
    runs = tmp_path_factory.mktemp("reproduce") / "runs"
    one = ("--only", "operator=acb", "--set", "trainer.max_epochs=1")
    convboard("run", tiny, "--runs", runs, *one, at_once=True)
    convboard("export", "--runs", runs)
    (path,) = (runs / "records").glob("accuracy-*.json")
    return path, runs


def changed(record, **accuracy):
    return record.model_copy(update={"accuracy": record.accuracy.model_copy(update=accuracy)})


def scored(record, value):
    headline = record.accuracy.headline
    metric = record.accuracy.metrics[headline].model_copy(update={"value": value})
    return changed(record, metrics={**record.accuracy.metrics, headline: metric})


@pytest.mark.slow
def test_a_cell_is_run_again_from_its_record_alone(exported, convboard, tmp_path):
    path, runs = exported
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.is_file()}
    command = ("reproduce", path, "--runs", tmp_path / "runs")
    told = convboard(*command, at_once=True).stdout
    assert "top1: " in told
    assert " now: equal." in told
    of_git = ("commit", "uncommitted changes")  # somebody may be writing code meanwhile
    assert told.count("differs") == sum(told.count(f"differs: {what}:") for what in of_git)
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.is_file()} == before

    record = Record.load(path)
    assert cell_of(record).hash == record.provenance.cell
    folder = tmp_path / "tampered"
    value = record.accuracy.metrics["top1"].value
    far = changed(scored(record, 1 - value if value != 0.5 else 0.0), sampling_error=0.001)
    far = far.model_copy(update={"software": {**record.software, "torch": "1.0"}})
    told = convboard("reproduce", far.save(folder), *command[2:], status=1, at_once=True)
    assert "differs: torch: 1.0 → " in told.stdout  # not run once more: all is as it was
    assert "outside its 95% interval" in told.stderr


@pytest.mark.slow
def test_what_differs_is_named(exported):
    record = Record.load(exported[0])
    entry = record.entry.model_copy(update={"operator_sha256": "0" * 64})
    data = record.data.model_copy(update={"files_sha256": "1" * 64})
    machine = record.machine.model_copy(update={"cores": 1000})
    other = record.model_copy(update={"entry": entry, "data": data, "machine": machine})
    git = known_before(record, cell_of(record), record.data)
    assert {d.what for d in git} <= {"commit", "uncommitted changes"}
    differences = known_before(other, cell_of(other), record.data)
    assert {(d.what, d.before) for d in differences if d not in git} == {
        ("operator's code", "0" * 12),
        ("data: files sha256", "1" * 12),
        ("machine: cores", "1000"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "shift", "equal", "within"),
    [
        (0.1, 0.0, True, True),
        (0.1, 0.19, False, True),
        (0.1, 0.2, False, False),
        (None, 0.1, False, False),
        (None, 5e-7, True, False),
    ],
)
def test_the_verdict(exported, error, shift, equal, within):
    record = scored(changed(Record.load(exported[0]), sampling_error=error), 0.5)
    result = compare(record, scored(record, 0.5 + shift))
    assert (result.equal, result.within) == (equal, within)
    assert (result.interval is None) == (error is None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"a": "fft", "b": "direct"}, {"a": "fft", "b": "direct"}, []),
        ({"a": "fft", "b": "direct"}, {"a": "fft"}, ["form: b"]),
        ({"a": "fft", "b": "direct"}, {"a": "padded", "b": "direct"}, ["form: a"]),
        ({"a": "fft"}, {}, ["form: a"]),  # by the rule
        ({}, {"a": "fft"}, ["form: a"]),
    ],
)
def test_forms_that_differ_are_told(exported, before, now, told):
    record = Record.load(exported[0])

    def trained(forms):
        recipe = record.recipe.model_copy(update={"forms": forms})
        return record.model_copy(update={"recipe": recipe})

    differences = compare(trained(before), trained(now)).differences
    assert [difference.what for difference in differences] == told


@pytest.mark.slow
def test_what_is_no_score_is_refused_with_its_own_command(exported, convboard, tmp_path):
    record = Record.load(exported[0])
    failed = record.model_copy(update={"status": "error", "error": "boom", "accuracy": None})
    with pytest.raises(UserError, match=r"`record` .*accuracy, error.*convboard run .*cell="):
        cell_of(failed)
    nowhere = convboard("reproduce", tmp_path / "no.json", status=2, at_once=True)
    assert "must be the file of a record" in nowhere.stderr


@pytest.mark.slow
def test_stores_are_merged_as_their_exports_are(exported, convboard, tmp_path):
    path, runs = exported
    whole = tmp_path / "whole"
    merge = ("merge", runs, runs / "records", "--records", whole)
    told = convboard(*merge, at_once=True).stdout
    assert "1 new, 1 there already, of 1 machine:" in told
    names = {path.name, *Record.load(path).beside}
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {
        name: path.with_name(name).read_bytes() for name in names
    }
    refused = convboard("merge", runs, tmp_path / "none", status=2, at_once=True)
    assert "`runs` (='none') must be a folder of runs" in refused.stderr
