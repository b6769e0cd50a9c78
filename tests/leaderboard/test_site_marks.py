"""What the site marks: older code, settings, tuned arms, missing seeds, unlinked arms."""

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
    recipe = make.recipe(who, 0, {lr: 0.02}, untuned={lr: 0.008}, tuning_trials=17)
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
    long, short = sorted(cells_of(files, "parc"), key=lambda cells: -float(cells["score"][0]))
    assert "stale" in long["arm"][1]
    assert "stale" in short["arm"][1]  # its time is, and the row is not grey for that
    words = b"Timed with older code of the operator: latency."
    pages = [content for name, content in files.items() if name.startswith("boards/")]
    assert sum(words in content for content in pages if b"<table" in content) == 2
    marked = [
        name
        for page in html.board_pages(files)
        for (tag, a), row in zip([t for t in page.tags if t[0] == "tr"], page.rows, strict=True)
        if "stale" in a.get("class", "").split()
        for name in [row["arm"][0]]
    ]
    assert marked == ["parc"]
    times = [
        a["data-column"].split("-")[0]
        for page in html.board_pages(files)
        for tag, a in page.tags
        if tag == "td" and "stale" in a.get("class", "").split()
    ]
    assert set(times) == {"rate", "ratio", "time"}
    assert b"tr.stale td" in files["assets/site.css"]
    texts = [Page(files[n]).text for n in files if n.startswith("entries/parc-")]
    assert sum("Made with older code of the operator: seed 0." in text for text in texts) == 1


def test_a_board_says_by_which_setting_it_differs(mixed):
    _, files = mixed
    for epochs in (1, 3):
        words = f"trainer.max_epochs = {epochs}"
        assert sum(words in page.text for page in html.board_pages(files)) == 1
        assert words in Page(files["index.html"]).text
    texts = [Page(files[n]).text for n in files if n.startswith("entries/parc-")]
    assert sum("trainer.max_epochs = 1" in text for text in texts) == 1


def test_a_tuned_arm_shows_its_budget_and_what_was_tuned(mixed):
    _, files = mixed
    (cells,) = cells_of(files, "parc-tuned")
    assert "tuned, 17 trials" in cells["arm"][1]
    assert "baseline" in cells_of(files, "dw7")[0]["arm"][1]
    (name,) = [name for name in files if name.startswith("entries/parc-tuned-")]
    assert "model.init_args.lr = 0.008" in Page(files[name]).text


def test_an_arm_that_lacks_a_seed_shows_both_means(mixed):
    records, files = mixed
    (cells,) = cells_of(files, "acb")
    board = next(board for board in boards(records) if board.baseline)
    row = next(row for row in board.rows if row.label == "acb")
    assert row.mean > 0.75
    assert float(cells["score"][0]) == row.mean
    assert "plain 60.00" in cells["score"][1]
    assert any("lack seeds" in page.text for page in html.board_pages(files))


def test_an_arm_that_no_seed_links_says_so(mixed):
    _, files = mixed
    (cells,) = cells_of(files, "shift")
    assert "not linked" in cells["arm"][1]
    assert (cells["rank"][0], cells["contrast"][0]) == ("", "")
    (name,) = [name for name in files if name.startswith("entries/shift-")]
    assert "No chain of shared seeds" in Page(files[name]).text
