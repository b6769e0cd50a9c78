"""What the page of a machine shows of times that stand on no board."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from leaderboard.machine_page import machine_views

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def view(*records):
    (values,) = machine_views(records, {id(r): r.filename for r in records}).values()
    return values


def alone(label, relative, **changes):
    entry = make.entry(label, form="fused", task="backbone")
    record = make.speed(entry, relative, **changes)
    return make.changed(record, provenance=record.provenance.model_copy(update={"suite": None}))


def test_times_without_a_suite_are_shown_the_baseline_first():
    slow, fast = alone("parc", 1.9), alone("acb", 0.8)
    base = alone("dw7", 1.0, verdict="baseline")
    (table,) = view(slow, fast, base)["times"]
    assert [row["operator"] for row in table["rows"]] == ["dw7", "acb", "parc"]
    row = table["rows"][1]
    assert row["ratio"].startswith("0.800 [")
    assert row["file"] == fast.filename
    assert table["baseline"] == "dw7"
    assert table["command"] == fast.provenance.reproduce


def test_a_record_is_linked_by_the_name_that_its_file_has():
    record = alone("acb", 0.8)
    (values,) = machine_views([record], {id(record): "kept.json"}).values()
    assert values["times"][0]["rows"][0]["file"] == "kept.json"


def test_times_of_suites_and_of_forms_against_each_other_stand_elsewhere():
    of_suite = make.speed(make.entry("parc", form="fused", task="backbone"), 1.3)
    assert of_suite.provenance.suite
    form = alone("parc", 1.3)
    form = make.changed(form, entry=form.entry.model_copy(update={"exact_form": "fft"}))
    assert view(of_suite, form)["times"] == []


def test_what_has_no_time_says_why():
    bad = make.changed(alone("parc", 1.3), status="oom", error="no memory")
    (table,) = view(bad)["times"]
    assert table["rows"][0]["status"] == "oom: no memory"
