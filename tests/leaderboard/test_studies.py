"""Arms that were tuned: what the site says of their studies."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.record import Record
from leaderboard.board import boards
from leaderboard.names import arm, arm_names
from leaderboard.studies import study_view, words

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
html = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_pages.py"))))
LR = "model.init_args.lr"


def trial(number, *values, **fields):
    state = "complete" if values else "pruned"
    fields = {"params": {"lr": 0.01 * (number + 1)}, "epochs": 5 if values else 2, **fields}
    return {"number": number, "state": state, "values": list(values), **fields}


def study(name, trials, objectives=1, **fields):
    """The record of a study of `parc`, which stands on its board with its own recipe."""
    kinds = [("top1", "fraction", True), ("time ratio", "ratio", False)]
    told = {
        "name": name,
        "sampler": "tpe",
        "pruner": "median",
        "held_out": 0.2,
        "objectives": [
            {"name": n, "unit": unit, "higher_is_better": higher}
            for n, unit, higher in kinds[:objectives]
        ],
        "searched": {LR: {"low": 0.001, "high": 0.1, "log": True}},
        "trials": trials,
        "importances": {"lr": 1.0},
        "seconds": 60.0,
        **fields,
    }
    scored = make.accuracy(make.entry("parc"), 0, 0.8)
    return make.changed(scored, kind="study", accuracy=None, cost=None, study=told)


def tuned(name, lr, value, label="parc-tuned"):
    who, before = make.entry(label, "parc"), make.SCORED.recipe.config["model"]["init_args"]["lr"]
    recipe = make.recipe(who, 0, {LR: lr}, untuned={LR: before}, tuning_trials=3)
    origin = make.provenance(optuna_study=name)
    return make.accuracy(who, 0, value, recipe=recipe, provenance=origin)


TRIALS = [trial(0, 0.8, default=True), trial(1, 0.9, best=True), trial(2)]


@pytest.fixture(scope="module")
def records():
    return [
        make.accuracy(make.entry("dw7", "dwconv"), 0, 0.7),
        make.accuracy(make.entry("parc"), 0, 0.8),
        tuned("one", 0.02, 0.9),
        tuned("two", 0.03, 0.85),
        study("one", TRIALS),
        study("two", [*TRIALS[:1], trial(1, 0.7)]),
    ]


def test_a_study_is_told_with_its_budget_and_what_came_of_it(records):
    assert words(records[-2].study) == (
        "three trials (1 pruned), 12 epochs in all, by tpe, pruner median, on 20% of the training "
        "set: 90.00 at best, 80.00 for the recipe as it is (%)."
    )
    assert "none was better than the recipe as it is, 80.00" in words(records[-1].study)


def test_a_study_stands_with_the_arm_and_with_what_it_found(records):
    (board,) = boards(records)
    behind = {(row.label, tuple(record.study.name for record in row.studies)) for row in board.rows}
    assert behind == {
        ("dw7", ()),
        ("parc", ("one", "two")),
        ("parc-tuned", ("one",)),
        ("parc-tuned", ("two",)),
    }


def test_where_no_trial_was_better_the_board_says_so(records):
    (board,) = boards([*records[:2], records[-1]])
    assert {row.label: row.stands_after for row in board.rows} == {"dw7": 0, "parc": 2}
    (page,) = html.board_pages(html.site([*records[:2], records[-1]]))
    assert "stands after 2 trials" in page.text
    (board,) = boards(records[:-1])
    assert {row.stands_after for row in board.rows} == {0}


def test_two_studies_from_one_default_are_two_arms(records):
    """They have a label and what stood before in common, and differ in what was found."""
    (board,) = boards(records)
    names = arm_names([board])
    assert len({names[arm(row)] for row in board.rows}) == 4


def test_the_page_of_an_arm_draws_its_study(records):
    files = html.site(records)
    pages = [content.decode() for name, content in files.items() if "entries/parc-tuned" in name]
    assert len(pages) == 2
    page = next(page for page in pages if "90.00 at best" in page)
    assert "top1 by trial, and the best so far" in page
    assert "Share of each setting" in page
    assert page.count('<span class="tag">recipe</span>') == 1


def test_with_two_objectives_a_front_is_drawn():
    recipe = trial(0, 0.8, 1.0, default=True, best=True)
    trials = [recipe, trial(1, 0.9, 1.2, best=True), trial(2, 0.85, 1.3)]
    view = study_view(study("both", trials, objectives=2).study, 3)
    assert len(view["charts"]) == 3
    assert "top1 against time ratio" in view["charts"][1]
    (line,) = re.findall(r'points="([^"]+)"', view["charts"][1])
    (left, low), (right, same), (last, high) = (spot.split(",") for spot in line.split())
    assert low == same
    assert right == last
    assert float(left) < float(right)
    assert float(high) < float(low)  # upwards: the better score
    assert view["trials"][1]["values"] == ["90.00", "1.20"]
    assert "one trial that none beats in both" in view["words"]


def test_names_of_settings_are_escaped():
    bad = "<script>alert(1)</script>"
    trials = [trial(0, 0.8, params={bad: bad}), trial(1, 0.9)]
    record = study(bad, trials, importances={bad: 1.0})
    base = make.accuracy(make.entry("parc"), 0, 0.8)
    files = html.site([base, record])
    pages = [content for name, content in files.items() if name.endswith(".html")]
    assert not any(b"<script>alert(1)" in page for page in pages)


def test_a_study_that_is_not_whole_is_refused():
    with pytest.raises(ValueError, match="needs study"):
        Record.model_validate({**study("x", TRIALS).model_dump(), "study": None, "identity": ""})


def test_a_study_from_a_machine_of_another_kind_breaks_no_page():
    """The process that drives a cluster may see no GPU where its workers have one."""
    graphics = make.MACHINE.model_copy(update={"gpu": "H100"})
    scored = make.accuracy(make.entry("parc"), 0, 0.8, machine=graphics)
    files = html.site([scored, study("one", TRIALS)])
    assert any(name.startswith("entries/") for name in files)
