"""What records change on the boards, in words that do nothing."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.changes import changes, plain

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
SUITE = make.suite(seeds=(0, 1))


def test_the_same_records_change_nothing():
    assert changes(SUITE, SUITE) == changes([], []) == "No board changes.\n"


def test_a_new_board_is_shown_whole():
    text = changes([], SUITE)
    assert text.startswith("### Classification on scenes, test&#95;convnext (new)\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(make.ARMS)
    assert any(line.startswith("| dw7 (baseline) | 2 | new | ") for line in rows)
    assert changes(SUITE, []) == "**Gone:** Classification on scenes, test&#95;convnext\n"


def test_a_new_arm_and_a_failed_one_are_lines():
    who = make.entry("newcomer", "parc", operator_options={"axis": "height"})
    text = changes(SUITE, [*SUITE, *(make.accuracy(who, seed, 0.9) for seed in (0, 1))])
    (line,) = [line for line in text.splitlines() if line.startswith("| newcomer |")]
    assert line.startswith("| newcomer | 2 | new | 90.00 % | +")
    lost = changes(
        SUITE,
        [*SUITE, make.failure(make.entry("lost", "parc", operator_options={"axis": "width"}), 0)],
    )
    assert "| lost | 0, 1 failed | new | — | — | — |" in lost


def test_a_score_that_replaces_another_is_shown_with_it():
    label, (operator, mean, params, macs, _) = next(iter(make.ARMS.items()))
    before = next(r for r in SUITE if r.kind == "accuracy" and r.entry.label == label)
    newer = make.changed(
        make.accuracy(
            make.entry(label, operator), before.recipe.seed, mean - 0.2, params=params, macs=macs
        ),
        provenance=make.provenance("2026-11-23T01:00:00"),
    )
    text = changes(SUITE, [*SUITE, newer])
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    earlier, now = line.split(" | ")[2:4]
    assert float(earlier.split()[0]) > float(now.split()[0])


def test_what_stays_is_counted_and_what_does_not_fit_is_no_failure():
    unfit = make.failure(make.entry("odd"), 0, status="unsupported")
    text = changes(SUITE, [*SUITE, unfit])
    assert "| odd | 0, does not fit | new | — | — | — |" in text
    assert "Seven other operators stay as they were." in text
    one = [record for record in SUITE if record.entry.label == "dw7"]
    assert "One other operator stays as it was." in changes(one, [*one, unfit])


@pytest.mark.parametrize(
    "text", ["<img src=x>", "a|b", "[a](http://b)", "@you #1", "`x`", "a\n# b", "www.b.c", "**x**"]
)
def test_nothing_of_a_record_acts(text):
    assert not set("<>|[]@#`*_./:\n") & set(plain(text).replace("&#", ""))


def test_hostile_records_stay_words():
    text = changes([], make.hostile())
    for line in text.splitlines():
        assert "<" not in line
        assert "@" not in line
        assert "](" not in line
