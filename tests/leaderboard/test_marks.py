"""What changes what can be read of a row is marked, and nothing else is."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from leaderboard.board import boards

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def marks(records, label="parc"):
    (board,) = boards(records)
    (row,) = [row for row in board.rows if row.label == label]
    return {mark.kind: mark.text for mark in row.marks}


def at(day):
    return make.provenance(f"2026-11-{day:02}T00:00:00")


def again(record, value, day):
    """The same result once more, with another score."""
    metrics = {**record.accuracy.metrics}
    metrics["top1"] = metrics["top1"].model_copy(update={"value": value})
    scored = record.accuracy.model_copy(update={"metrics": metrics})
    return make.changed(record, accuracy=scored, provenance=at(day))


def test_a_plain_row_has_no_marks():
    (board,) = boards(make.suite())
    assert [row.label for row in board.rows if row.marks] == []
    assert any(row.latency.speed.noise == "noisy" for row in board.rows)


def test_noise_is_marked_where_it_leaves_the_verdict_open():
    records = []
    for record in make.suite():
        if record.kind == "speed" and record.entry.label == "parc" and record.speed.batch == 1:
            unstable = record.speed.model_copy(update={"noise": "unstable"})
            record = make.changed(record, speed=unstable)
        records.append(record)
    assert marks(records) == {"noise": "Too noisy to judge: latency."}


def test_equal_results_that_disagree_are_a_conflict_and_others_only_superseded():
    suite = make.suite()
    (first,) = [
        r for r in suite if r.kind == "accuracy" and r.entry.label == "parc" and r.recipe.seed == 1
    ]
    value = first.accuracy.metrics["top1"].value
    near, far = again(first, value + 0.0001, 23), again(first, value - 0.2, 21)
    assert near.identity == first.identity
    assert marks([*suite, near]) == {"superseded": "One older result replaced."}
    found = marks([*suite, near, far])
    assert found["superseded"] == "Two older results replaced."
    assert "2026-11-23 00:00 UTC and 2026-11-21 00:00 UTC" in found["conflict"]
    # by other code it is another result
    other = make.entry("parc", operator_sha256="other")
    code = make.changed(far, entry=other)
    assert "conflict" not in marks([*suite, code])


def test_times_that_disagree_are_a_conflict():
    fused = make.entry("parc", form="fused", task="backbone")
    slow = make.speed(fused, 1.9, provenance=at(20))
    assert marks([*make.suite(), slow])["conflict"].startswith("Times of the same settings")
    assert "conflict" not in marks([*make.suite(), make.speed(fused, 1.311, provenance=at(20))])


def test_a_fresh_start_in_a_trained_host_is_marked():
    def started(record, carried):
        return make.changed(record, entry=record.entry.model_copy(update=carried))

    for carried, words in ((0, "all of its slots"), (3, "1 of 4 slots"), (4, None)):
        slots = {"slots_swapped": 4, "slots_carried": carried}
        records = [started(r, slots) if r.kind == "accuracy" else r for r in make.suite()]
        found = marks(records)
        assert found.keys() == ({"fresh"} if words else set())
        assert words is None or f"fresh in {words}:" in found["fresh"]


def test_missing_failed_stale_and_unfit():
    few = [
        r
        for r in make.suite()
        if r.kind != "accuracy" or r.entry.label != "parc" or r.recipe.seed == 0
    ]
    assert marks(few) == {"missing": "Not run with seeds 1 and 2."}
    lost = make.failure(make.entry("parc"), 1, error="RuntimeError: shapes differ\nmore")
    assert marks([*few, lost]) == {
        "failed": "Failed (error): seed 1. RuntimeError: shapes differ",
        "missing": "Not run with seed 2.",
    }
    unfit = make.failure(make.entry("odd"), 0, status="unsupported", error="needs stride 1")
    assert marks([*few, unfit], "odd") == {"unfit": "Does not fit the host: needs stride 1"}
    old = make.accuracy(make.entry("acb", operator_sha256="old"), 5, 0.8, provenance=at(1))
    assert (
        marks([*make.suite(), old], "acb")["stale"]
        == "Made with older code of the operator: seed 5."
    )
