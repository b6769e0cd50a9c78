"""The site: complete, every number with its interval, free of the network."""

import html as html_text
import io
import json
import re
import runpy
import zipfile
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from bench.operators.parc import Parc
from bench.record import Record
from leaderboard import site as site_module
from leaderboard.board import boards
from leaderboard.wording import processor

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


def board_page(files):
    (page,) = html.board_pages(files)
    return page


def entry_page(files, label):
    (name,) = [name for name in files if name.startswith(f"entries/{label}-")]
    return Page(files[name])


def inside(folder, path):
    """A relative path from a folder of the site, as a path in the site."""
    parts = []
    for part in PurePosixPath(folder, path).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def test_every_entry_has_a_page_and_every_link_leads_somewhere(plain):
    records, files = plain
    assert sum(name.startswith("entries/") for name in files) == 8
    assert sum(name.startswith("records/") for name in files) == len(records)
    assert_links_lead_somewhere(files)


def assert_links_lead_somewhere(files):
    for name, content in files.items():
        if not name.endswith(".html"):
            continue
        for tag, attributes in Page(content).tags:
            for key in ("href", "src", "srcset"):
                target = attributes.get(key)
                if tag == "option" or not target or re.match(r"data:|https://arxiv.org", target):
                    continue
                path, _, _ = target.partition("#")
                assert not path or inside(PurePosixPath(name).parent, path) in files, (name, target)


def times_missing(case):
    """A suite in which times, or the baseline's numbers, are missing."""
    records = [r for r in make.suite(seeds=(0, 1)) if r.entry.label in ("dw7", "parc", "acb")]
    if case == "none":
        return records
    if case == "no times":
        return [r for r in records if r.kind == "accuracy"]
    if case == "baseline without score":
        rest = [r for r in records if r.kind == "speed" or not r.entry.baseline]
        return [*rest, make.failure(make.entry("dw7", "dwconv"), 0, status="oom", error="no")]

    def lost(record):
        """A time of a run in which the baseline failed."""
        if record.kind != "speed" or record.speed.batch == 1:
            return record
        nothing = {"baseline_samples_ms": [], "ratio_to_baseline": None}
        if not record.entry.baseline:
            nothing["verdict"] = None
            return make.changed(record, speed=record.speed.model_copy(update=nothing))
        nothing |= {"samples_ms": [], "latency_median_ms": None}
        speed = record.speed.model_copy(update=nothing)
        return make.changed(record, status="oom", error="no memory", speed=speed)

    records = [lost(record) for record in records]
    if case == "baseline failed at a batch size":
        return records
    return [record for record in records if record.status == "ok"]


@pytest.mark.parametrize(
    ("case", "axes"),
    [
        ("no times", []),
        ("baseline without score", [{"absolute"}, {"absolute"}]),
        ("baseline not timed at a batch size", [{"relative", "absolute"}, {"absolute"}]),
        ("baseline failed at a batch size", [{"relative", "absolute"}, {"absolute"}]),
    ],
)
def test_pictures_are_shown_where_they_are(case, axes):
    files = site(times_missing(case))
    assert_links_lead_somewhere(files)
    page = board_page(files)
    of_time = {}
    for _, values in page.tags:
        if values.get("class") == "plot":
            of_time.setdefault(values["data-choice"], set()).add(values["data-axes"])
    assert list(of_time.values()) == axes
    for key in of_time:
        assert any(name.endswith(f"-{key}.svg") for name in files)
    cards = next(
        v.decode() for n, v in files.items() if n.startswith("boards/") and n[-3:] == ".js"
    )
    assert cards.count("<img") + cards.count("\\u003cimg") == len(axes)
    assert ("Show this board elsewhere" in page.text) == bool(axes)


def test_what_does_not_fit_is_no_failure():
    unfit = make.failure(make.entry("odd"), 0, status="unsupported", error="no slot")
    files = site([*times_missing("no times"), unfit])
    overview = Page(files["index.html"])
    assert any("does not fit" in cell for row in overview.rows for _, cell in row.values())
    assert "no slot of the host is one that it can take" in overview.text
    history = Page(files["history.html"]).text
    assert "Does not fit its host (1)" in history
    assert "Failed (" not in history


def test_an_earlier_time_and_a_decision_are_on_the_page_of_the_arm():
    records = times_missing("none")
    who = make.entry("parc", form="fused", task="backbone")
    later = make.speed(who, 1.6, provenance=make.provenance("2026-11-24T00:00:00"))
    files = site([*records, later])
    earlier = next(r for r in records if r.kind == "speed" and r.entry.label == "parc")
    linked = {values.get("href") for _, values in entry_page(files, "parc").tags}
    assert {f"../records/{r.filename}" for r in (earlier, later)} <= linked


def test_pages_load_nothing_from_elsewhere(plain):
    _, files = plain
    for name, content in files.items():
        if name.endswith(".html"):
            for tag, attributes in Page(content).tags:
                assert tag not in ("iframe", "object", "embed")
                assert not attributes.get("src", "").startswith(("http", "//")), name
                if tag == "link":
                    assert attributes["href"].endswith(("assets/site.css", "data:,"))
    assert b"http" not in files["assets/site.css"]
    scripts = files["assets/site.js"].replace(b"http://www.w3.org/2000/svg", b"")
    assert b"http" not in scripts


def test_the_first_page_is_light(plain):
    _, files = plain
    shared = len(files["assets/site.js"]) + len(files["assets/site.css"])
    assert len(files["index.html"]) + shared < 100_000


def test_table_has_every_number_with_its_interval(plain):
    _, files = plain
    (row,) = html.cells_of(files, "parc")
    record = next(r for r in plain[0] if r.kind == "speed" and r.entry.label == "parc")
    assert float(row["time"][0]) == record.speed.latency_median_ms.value
    for key in ("score", "contrast", "time", "ratio", "rate"):
        assert re.search(r"\[\S+, \S+\]", row[key][1]), key
    assert (row["params"][1], row["macs"][1], row["seeds"][1]) == ("140 k", "10.9 M", "2")
    assert "slower" in row["ratio"][1]
    assert row["rank"][1][0].isdigit()
    assert row["tie"][1].isalpha()
    (base,) = html.cells_of(files, "dw7")
    assert base["contrast"][1] == "baseline"


def test_a_failure_is_a_row_with_dashes(plain):
    _, files = plain
    (row,) = html.cells_of(files, "huge")
    assert "RuntimeError: no memory" in row["arm"][1]
    assert "out of memory" in row["arm"][1]
    for key in ("score", "contrast", "time", "ratio", "params", "macs"):
        assert row[key] == ("", "—"), key


def test_a_failed_gate_is_told_in_the_table_and_on_the_page():
    who = make.entry("parc", form="fused", task="backbone")
    lost = make.speed(who, 1.3, status="invalid", error="relative error 0.3", speed=None)
    files = site([make.accuracy(make.entry("parc"), 0, 0.8), lost, *make.suite(seeds=(0,))[:3]])
    (row,) = html.cells_of(files, "parc")
    assert (row["time"], row["rate"]) == (("", "wrong result"), ("", "wrong result"))
    assert "relative error 0.3" in entry_page(files, "parc").text


def test_training_is_a_time_that_can_be_chosen():
    who = make.entry("parc", form="training", task="backbone")
    step = make.speed(who, 1.3, mode="training_step", batch=8)
    step = make.changed(step, speed=step.speed.model_copy(update={"scope": "training"}))
    files = site([make.accuracy(make.entry("parc"), 0, 0.8), step])
    (row,) = html.cells_of(files, "parc")
    assert float(row["rate"][0]) == step.speed.images_per_second.value
    assert "training step" in board_page(files).text
    text = entry_page(files, "parc").text
    assert "Training: training step, batch 8" in text
    assert "Form timed: training" in text


def test_the_column_of_scores_is_of_fitted_means_with_the_boards_interval(plain):
    records, files = plain
    (board,) = boards(records)
    row = next(row for row in board.rows if row.label == "parc")
    (cells,) = html.cells_of(files, "parc")
    assert float(cells["score"][0]) == row.mean
    assert f"[{row.interval.low * 100:.2f}, {row.interval.high * 100:.2f}]" in cells["score"][1]
    assert "plain" not in cells["score"][1]


def test_the_rows_stand_in_the_order_of_the_means(plain):
    _, files = plain
    scores = [float(row["score"][0]) for row in board_page(files).rows if row.get("score", [""])[0]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == len(make.ARMS)


def test_plots_have_the_arms_with_both_numbers(plain):
    _, files = plain
    page = board_page(files)
    points = [a for tag, a in page.tags if tag == "g" and "point" in a.get("class", "")]
    drawn = len({(a["data-arm"]) for a in points})
    assert drawn == len(make.ARMS)
    svgs = [a for tag, a in page.tags if tag == "svg"]
    assert len(svgs) == 2 * 2 * 2  # latency and throughput, relative and absolute, wide and narrow
    name = min((n for n in files if re.match(r"boards/.*\.svg", n)), key=len)
    alone = files[name].decode()
    assert alone.startswith("<svg xmlns=")
    assert "prefers-color-scheme: dark" in alone
    assert "href" not in alone


def test_the_data_of_a_board_are_its_numbers(plain):
    records, files = plain
    (board,) = boards(records)
    data = board_page(files).data
    assert [row["label"] for row in data["rows"]] == [row.label for row in board.rows]
    for row, shown in zip(board.rows, data["rows"], strict=True):
        assert shown["score"] == row.mean
        assert shown["seeds"] == {str(seed): value for seed, value in row.scores.items()}
        assert set(shown["times"]) == {time["key"] for time in data["times"]}


def test_pairs_are_those_of_the_block_design(plain):
    records, files = plain
    (board,) = boards(records)
    (script,) = [files[n].decode() for n in files if n.startswith("boards/") and n.endswith(".js")]
    data = json.loads(script[script.index(", {") + 2 : script.rindex(")")])["pairs"]
    parc = next(row for row in board.rows if row.label == "parc")
    pair = data["pairs"]["dw7 parc"]
    within = parc.difference.interval
    assert pair["score"] == pytest.approx(
        [-100 * v for v in (within.value, within.high, within.low)], abs=1e-4
    )
    assert len(data["pairs"]) == 8 * 7 / 2
    assert data["pairs"]["dw7 huge"]["score"] is None
    assert data["pairs"]["dw7 huge"]["times"] == {}


def test_home_has_a_card_and_the_grid(plain):
    _, files = plain
    page = Page(files["index.html"])
    assert "The first rows of 8" in page.text
    grid = next(row for row in page.rows if "Classification on scenes" in row.get("0", ["", ""])[1])
    assert len(grid) == 1 + 8
    assert re.search(r'class="s[bw]" title="\[[+−]', files["index.html"].decode())


def test_entry_page_has_verdicts_config_provenance_and_command(plain):
    _, files = plain
    page = entry_page(files, "parc")
    for wanted in (
        '"class_path": "tasks.Classification"',
        make.SCORED.provenance.git_commit[:10],
        make.SCORED.provenance.reproduce,
        make.SCORED.software["torch"],
        processor(make.MACHINE.cpu),
        *make.SCORED.accuracy.per_class,
        "Error allowed",
        "paired seeds",
        "residual of the board",
        "the time of dw7",
        "over dw7 [",
        "Rank ",
    ):
        assert wanted in page.text
    curves = sum(len(values) > 1 for values in make.SCORED.accuracy.curve.values())
    assert curves
    assert sum(tag == "svg" for tag, _ in page.tags) == curves + 2
    copied = [a["data-copy"] for tag, a in page.tags if tag == "button" and "data-copy" in a]
    assert make.SCORED.provenance.git_commit in copied
    opened = [a for tag, a in page.tags if tag == "details" and "open" in a]
    assert not opened


def test_operator_page_says_what_it_is_and_where_it_wins(plain):
    _, files = plain
    page = Page(files["operators/acb.html"])
    for wanted in ("BN(K×K ∗ x)", "arXiv 1908.03930", "operator='acb'", "surely better on"):
        assert wanted in page.text
    assert any("tap" in a.get("class", "") for tag, a in page.tags if tag == "rect")
    shift = Page(files["operators/shift.html"])
    assert "83.4 %" in shift.text
    assert "Not measured by us" in shift.text


def test_machines_and_history_are_told(plain):
    records, files = plain
    (name,) = [n for n in files if n.startswith("machines/")]
    page = Page(files[name])
    assert make.MACHINE.cpu in page.text
    assert "latency, batch 1" in page.text
    history = Page(files["history.html"]).text
    assert "New entries (7)" in history
    assert "Failed (1)" in history
    assert records[0].provenance.created[:10] in history


def test_history_compares_the_last_day_with_what_stood_before():
    old, new = make.provenance("2026-11-20T00:00:00"), make.provenance("2026-11-25T00:00:00")
    records = [
        make.accuracy(make.entry("parc"), 0, 0.8, provenance=old),
        make.accuracy(make.entry("parc"), 0, 0.85, provenance=new),
        make.accuracy(make.entry("acb"), 0, 0.8, provenance=old),
        make.accuracy(make.entry("shift"), 0, 0.7, provenance=new),
    ]
    text = Page(site(records)["history.html"]).text
    assert "Improved (1)" in text
    assert "+5.00 points to 85.00" in text
    assert "New entries (1)" in text


def test_a_seed_that_was_added_is_no_change():
    old, new = make.provenance("2026-11-20T00:00:00"), make.provenance("2026-11-25T00:00:00")
    who = make.entry("parc")
    scores = [make.accuracy(who, seed, 0.8, provenance=old) for seed in (0, 1)]
    text = Page(site([*scores, make.accuracy(who, 2, 0.9, provenance=new)])["history.html"]).text
    assert "Improved" not in text
    again = [make.accuracy(who, seed, 0.9, provenance=new) for seed in (1, 2)]
    text = Page(site([*scores, *again])["history.html"]).text
    assert "+5.00 points to 86.67" in text


def test_an_operator_counts_once_a_board():
    records = [
        make.accuracy(who, seed, value + 0.001 * seed)
        for who, value in (
            (make.entry("dw7", "dwconv"), 0.5),
            (make.entry("parc"), 0.8),
            (make.entry("parc-9", "parc", operator_options={"kernel_size": 9}), 0.3),
        )
        for seed in (0, 1, 2)
    ]
    text = Page(site(records)["operators/parc.html"]).text
    assert "surely better on 1 board and surely worse on 0" in text


@pytest.mark.parametrize("operator", ["parc", "host"])
def test_code_of_an_operators_page_builds_the_network_of_a_board(operator):
    host_options = {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 20]}
    who = make.entry("one", operator, host_options=host_options, selection={"stages": [2, 3]})
    if operator == "host":
        who = who.model_copy(update={"selection": {}})
    (code,) = re.findall(
        r"<pre[^>]*>(from bench.*?)</pre>",
        site([make.accuracy(who, 0, 0.8)])[f"operators/{operator}.html"].decode(),
        re.DOTALL,
    )
    names: dict[str, object] = {}
    exec(html_text.unescape(code), names)
    assert any(p.shape[0] == 20 for p in names["model"].parameters())
    assert any(isinstance(m, Parc) for m in names["model"].modules()) == (operator == "parc")


def test_a_site_is_made_anew_where_its_statistics_are_others(monkeypatch):
    seen = []
    monkeypatch.setattr(site_module, "hash_files", lambda root, paths: seen.extend(paths) or {})
    site_module._code.cache_clear()
    site_module._code()
    site_module._code.cache_clear()
    names = {path.as_posix().partition("bench/")[2] for path in seen}
    assert {"statistics/ranks.py", "record/record.py", "intervals.py"} <= names


def test_records_can_be_downloaded_as_they_are(plain):
    records, files = plain
    archive = zipfile.ZipFile(io.BytesIO(files["records.zip"]))
    assert len(archive.namelist()) == len(records)
    for name in archive.namelist():
        assert archive.read(name) == files[name]
        assert Record.model_validate_json(files[name]).filename == Path(name).name


def test_published_figures_stand_apart(plain):
    _, files = plain
    page = Page(files["published.html"])
    (row,) = [row for row in page.rows if row.get("0", [""])[0] == "shiftwise_t"]
    assert row["4"][1] == "83.4 %"
    assert row["5"][1] == "82.1 %"
    assert "Nothing here was measured by us" in page.text


def test_a_badge_counts_operators_and_boards(plain):
    _, files = plain
    assert "8 operators on 1 board<" in files["badge.svg"].decode()
