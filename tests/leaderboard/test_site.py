"""The site: complete, every number with its interval, free of the network."""

import io
import json
import re
import runpy
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.record import Record
from leaderboard.board import boards

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
html = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_pages.py"))))
Page, site, FIGURE = html.Page, html.site, html.FIGURE


@pytest.fixture(scope="module")
def plain():
    records = [
        *make.suite(seeds=(0, 1)),
        make.failure(make.entry("huge"), 0, status="oom", error="RuntimeError: no memory"),
    ]
    return records, site(records, [FIGURE])


def test_every_entry_has_a_page_and_every_link_leads_somewhere(plain):
    records, files = plain
    assert sum(name.startswith("entries/") for name in files) == 8
    assert sum(name.startswith("records/") for name in files) == len(records)
    for name, content in files.items():
        if not name.endswith(".html"):
            continue
        page = Page(content)
        anchors = {attributes.get("id") for _, attributes in page.tags}
        for tag, attributes in page.tags:
            target = attributes.get("href" if tag in ("a", "link") else "src")
            if not target or target.startswith(("data:", "https://arxiv.org")):
                continue
            path, _, anchor = target.partition("#")
            folder = Path(name).parent
            resolved = (folder / path).as_posix().replace("entries/../", "") if path else name
            assert resolved in files, (name, target)
            if anchor and not path:
                assert anchor in anchors


def test_pages_load_nothing(plain):
    _, files = plain
    for name, content in files.items():
        if name.endswith(".html"):
            for tag, attributes in Page(content).tags:
                assert tag not in ("iframe", "img", "object", "embed")
                assert tag != "script" or "src" not in attributes
                assert tag != "link" or attributes["href"] == "data:,"


def test_table_has_every_number_with_its_interval(plain):
    _, files = plain
    rows = {row[1][0]: row for row in Page(files["index.html"]).rows if len(row) == 11}
    rank, label, score, contrast, latency, ratio, rate, _, params, macs, seeds = rows["parc"]
    record = next(r for r in plain[0] if r.kind == "speed" and r.entry.label == "parc")
    assert float(latency[0]) == record.speed.latency_median_ms.value
    for cell in (score, contrast, latency, ratio, rate):
        assert re.search(r"\[\S+, \S+\]", cell[1]), cell
    assert (params[1], macs[1], seeds[1]) == ("140 k", "10.9 M", "2")
    assert "slower" in ratio[1]
    assert rank[1][0].isdigit()
    assert label[1].startswith("parc")
    assert "baseline" in rows["dw7"][3][1]


def test_a_failure_is_a_row_with_dashes(plain):
    _, files = plain
    (row,) = [
        row for row in Page(files["index.html"]).rows if len(row) == 11 and "oom" in row[1][1]
    ]
    assert "RuntimeError: no memory" in row[1][1]
    assert [cell[1] for cell in row[2:10]] == ["—"] * 8
    assert all(cell[0] == "" for cell in row[2:10])


def test_a_failed_gate_is_told_in_the_table_and_on_the_page():
    who = make.entry("parc", form="fused", task="backbone")
    lost = make.speed(who, 1.3, status="invalid", error="relative error 0.3", speed=None)
    files = site([make.accuracy(make.entry("parc"), 0, 0.8), lost])
    (row,) = [row for row in Page(files["index.html"]).rows if row[1][0] == "parc"]
    assert (row[4], row[6]) == (("", "invalid"), ("", "invalid"))
    (name,) = [n for n in files if n.startswith("entries/")]
    assert "relative error 0.3" in Page(files[name]).text


def test_training_is_a_column_of_samples_per_second():
    who = make.entry("parc", form="training", task="backbone")
    step = make.speed(who, 1.3, mode="training_step", batch=8)
    step = make.changed(step, speed=step.speed.model_copy(update={"scope": "training"}))
    files = site([make.accuracy(make.entry("parc"), 0, 0.8), step])
    page = Page(files["index.html"])
    (row,) = [row for row in page.rows if row[1][0] == "parc"]
    assert float(row[8][0]) == step.speed.images_per_second.value
    assert "slower" in row[9][1]
    assert "samples/s, batch 8" in page.text
    (name,) = [n for n in files if n.startswith("entries/")]
    text = Page(files[name]).text
    assert "Training: training step, batch 8" in text
    assert "Form timed: training" in text


def test_the_column_of_scores_is_of_fitted_means_with_the_boards_interval(plain):
    records, files = plain
    page = Page(files["index.html"])
    assert "%, fitted mean" in page.text
    (board,) = boards(records)
    row = next(row for row in board.rows if row.label == "parc")
    (cell,) = (cells[2] for cells in page.rows if len(cells) == 11 and cells[1][0] == "parc")
    assert float(cell[0]) == row.mean
    assert f"[{row.interval.low * 100:.2f}, {row.interval.high * 100:.2f}]" in cell[1]
    assert "plain" not in cell[1]


def test_plot_has_the_arms_with_both_numbers_and_their_intervals(plain):
    _, files = plain
    page = Page(files["index.html"])
    (spec,) = [json.loads(script) for script in page.scripts if script.startswith("{")]
    points = [
        row
        for layer in spec["layer"]
        for row in layer.get("data", spec.get("data", {})).get("values", [])
    ]
    points += [row for values in spec.get("datasets", {}).values() for row in values]
    labels = {row["label"] for row in points if "label" in row}
    assert labels == set(make.ARMS)
    assert "Not in the plot" in page.text
    for row in points:
        if "label" in row:
            assert row["x_low"] < row["x"] < row["x_high"]
            assert row["y_low"] < row["y"] < row["y_high"]


def test_entry_page_has_config_provenance_and_command(plain):
    _, files = plain
    (name,) = [n for n in files if n.startswith("entries/parc-")]
    text = Page(files[name]).text
    for wanted in (
        "class_path: tasks.Classification",
        make.SCORED.provenance.git_commit,
        make.SCORED.provenance.reproduce,
        make.SCORED.software["torch"],
        make.MACHINE.cpu,
        *make.SCORED.accuracy.per_class,
        "Gate: tolerance",
        "paired seeds",
        "fitted mean",
        "residual of the board",
    ):
        assert wanted in text
    assert files[name].count(b"<svg") == 4
    assert sum(tag == "button" for tag, _ in Page(files[name]).tags) >= 1


def test_records_can_be_downloaded_as_they_are(plain):
    records, files = plain
    archive = zipfile.ZipFile(io.BytesIO(files["records.zip"]))
    assert len(archive.namelist()) == len(records)
    for name in archive.namelist():
        assert archive.read(name) == files[name]
        assert Record.model_validate_json(files[name]).filename == Path(name).name


def test_published_figures_stand_apart(plain):
    _, files = plain
    page = Page(files["index.html"])
    (row,) = [row for row in page.rows if row and row[0][0] == "shiftwise_t"]
    assert row[4][1] == "83.4 %"
    assert row[5][1] == "82.1 %"
    assert "Nothing here was measured by us" in page.text
