"""What the site marks: older code, settings, tuned arms, missing seeds, unlinked arms."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.board import boards

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
html = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_pages.py"))))
Page, site = html.Page, html.site
cells_of = html.cells_of


@pytest.fixture(scope="module")
def mixed():
    """Boards with what is out of the ordinary: older code, a tuned arm, a hole, a lone arm."""
    old, lr = "0" * 64, "model.init_args.lr"
    base, parc, acb = make.entry("dw7", "dwconv"), make.entry("parc"), make.entry("acb")
    later = make.provenance("2026-11-25T00:00:00")
    fused = {"form": "fused", "task": "backbone"}
    who = make.entry("parc-tuned", "parc")
    recipe = make.recipe(who, 0, {lr: 0.02}, untuned={lr: 0.006}, tuning_trials=17)
    records = [
        *(make.accuracy(base, seed, value) for seed, value in ((0, 0.9), (1, 0.5))),
        make.accuracy(make.entry("parc", operator_sha256=old), 0, 0.8),
        make.accuracy(parc, 1, 0.45, provenance=later),
        make.speed(make.entry("parc", operator_sha256=old, **fused), 1.3),
        make.speed(make.entry("dw7", "dwconv", **fused), 1.0),
        make.accuracy(acb, 1, 0.6),
        make.accuracy(who, 0, 0.95, recipe=recipe),
        make.accuracy(make.entry("shift"), 7, 0.99),
        make.accuracy(parc, 1, 0.2, settings={"trainer.max_epochs": 1}, provenance=later),
    ]
    return records, site(records)


def test_rows_and_times_of_older_code_are_grey_and_say_stale(mixed):
    _, files = mixed
    long, short = sorted(cells_of(files, "parc"), key=lambda cells: -float(cells[2][0]))
    assert "stale: 1 of 2 seeds" in long[1][1]
    assert "stale" in long[4][1]
    assert "stale" not in short[1][1]
    assert "stale" not in cells_of(files, "dw7")[0][4][1]
    rows = re.findall(
        r'<tr class="([^"]*)".*?<a href="entries/([a-z0-9-]+)-',
        files["index.html"].decode(),
        re.DOTALL,
    )
    assert [name for classes, name in rows if "stale" in classes.split()] == ["parc"]
    assert b"tr.stale td" in files["index.html"]
    text = Page(
        next(files[n] for n in files if n.startswith("entries/parc-") and b"older code" in files[n])
    ).text
    assert "1 of 2 results is of older code" in text


def test_a_board_says_by_which_setting_it_differs(mixed):
    _, files = mixed
    page = Page(files["index.html"])
    for epochs in (1, 5):
        assert page.text.count(f"trainer.max_epochs = {epochs}") == 2  # contents and title
    assert (
        sum(
            "trainer.max_epochs = 1" in Page(files[n]).text
            for n in files
            if n.startswith("entries/parc-")
        )
        == 1
    )


def test_a_tuned_arm_shows_its_budget_and_what_was_tuned(mixed):
    _, files = mixed
    (cells,) = cells_of(files, "parc-tuned")
    assert "tuned, 17 trials" in cells[1][1]
    assert "baseline" in cells_of(files, "dw7")[0][1][1]
    (name,) = [name for name in files if name.startswith("entries/parc-tuned-")]
    assert '"model.init_args.lr": 0.006' in Page(files[name]).text


def test_an_arm_that_lacks_a_seed_shows_both_means(mixed):
    records, files = mixed
    (cells,) = cells_of(files, "acb")
    board = next(board for board in boards(records) if board.baseline)
    row = next(row for row in board.rows if row.label == "acb")
    assert row.mean > 0.75
    assert float(cells[2][0]) == row.mean
    assert "plain 60.00" in cells[2][1]
    assert "lack seeds" in Page(files["index.html"]).text


def test_an_arm_that_no_seed_links_says_so(mixed):
    _, files = mixed
    (cells,) = cells_of(files, "shift")
    assert "not linked" in cells[1][1]
    assert (cells[0][0], cells[3][0]) == ("", "")
    (name,) = [name for name in files if name.startswith("entries/shift-")]
    assert "No chain of shared seeds" in Page(files[name]).text
