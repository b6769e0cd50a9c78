"""The site: complete, reproducible, escaped, and free of the network."""

import io
import json
import re
import runpy
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.hashing import canonical
from bench.record import Record, json_schema
from leaderboard import published
from leaderboard.board import boards
from leaderboard.build import build, pages, script_json

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
FIGURE = published.Figure(
    figure="SW-T",
    metric="top1",
    value=83.4,
    unit="%",
    network="shiftwise_t",
    operator="shift",
    without_operator=82.1,
    task="classification",
    data="ImageNet-1k",
    setting="300 epochs",
    source="https://arxiv.org/abs/2401.12736",
)


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, scripts, text and tables."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.rows: list[list[tuple[str, str]]] = []
        self._inside = ""
        self._cell = False
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.tags.append((tag, values))
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append((values.get("data-value", ""), ""))
            self._cell = True

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""
        if tag in ("td", "th") and self.rows:
            value, text = self.rows[-1][-1]
            self.rows[-1][-1] = (value, text.strip())
            self._cell = False

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data
            if self._cell:
                value, text = self.rows[-1][-1]
                self.rows[-1][-1] = (value, text + data)


def site(records, figures=()):
    named = {record.filename: record for record in records}
    return pages(named, title="ConvBoard", figures=list(figures))


@pytest.fixture(scope="module")
def plain():
    records = [
        *make.suite(seeds=(0, 1)),
        make.failure(make.entry("huge"), 0, status="oom", error="RuntimeError: no memory"),
    ]
    return records, site(records, [FIGURE])


@pytest.fixture(scope="module")
def hostile():
    return site([*make.suite(seeds=(0,)), *make.hostile()])


def test_every_entry_has_a_page_and_every_link_leads_somewhere(plain):
    records, files = plain
    assert sum(name.startswith("entries/") for name in files) == 8
    assert sum(name.startswith("records/") for name in files) == len(records)
    for name, content in files.items():
        if not name.endswith(".html"):
            continue
        found = Page(content)
        anchors = {attributes.get("id") for _, attributes in found.tags}
        for tag, attributes in found.tags:
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


def cells_of(files, label, columns=11):
    page = Page(files["index.html"])
    return [cells for cells in page.rows if len(cells) == columns and cells[1][0] == label]


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


def test_plot_has_the_arms_with_both_numbers_and_their_intervals(plain):
    _, files = plain
    found = Page(files["index.html"])
    (spec,) = [json.loads(script) for script in found.scripts if script.startswith("{")]
    points = [
        row
        for layer in spec["layer"]
        for row in layer.get("data", spec.get("data", {})).get("values", [])
    ]
    points += [row for values in spec.get("datasets", {}).values() for row in values]
    labels = {row["label"] for row in points if "label" in row}
    assert labels == set(make.ARMS)
    assert "Not in the plot" in found.text
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
    found = Page(files["index.html"])
    (row,) = [row for row in found.rows if row and row[0][0] == "shiftwise_t"]
    assert row[4][1] == "83.4 %"
    assert row[5][1] == "82.1 %"
    assert "Nothing here was measured by us" in found.text


def test_the_same_records_give_the_same_bytes(tmp_path):
    records = make.suite(seeds=(0, 1))[:12]
    for record in records:
        record.save(tmp_path / "one")
    for record in reversed(records):
        record.save(tmp_path / "two" / "below")
    for name in ("one", "two"):
        build(tmp_path / name, tmp_path / f"{name}-site")
    build(tmp_path / "one", tmp_path / "one-site")

    def content(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    assert content(tmp_path / "one-site") == content(tmp_path / "two-site")


def test_a_rebuild_removes_old_pages_and_nothing_else(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make.accuracy(make.entry("parc"), 0, 0.8).save(first)
    make.accuracy(make.entry("shift"), 0, 0.8).save(second)
    build(first, tmp_path / "site")
    (tmp_path / "site" / "CNAME").write_text("example.org")
    build(second, tmp_path / "site")
    assert [path.name[:5] for path in (tmp_path / "site" / "entries").iterdir()] == ["shift"]
    assert (tmp_path / "site" / "CNAME").read_text() == "example.org"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity", "../../../../../evil"),
        ("identity", "a" * 63 + "/"),
        ("created", "2026-11-22T01:00:00/../../evil"),
        ("created", "<script>"),
    ],
)
def test_a_record_cannot_name_a_file_elsewhere(tmp_path, field, value):
    (tmp_path / "records").mkdir()
    record = make.SCORED.model_dump(mode="json")
    (record if field == "identity" else record["provenance"])[field] = value
    (tmp_path / "records" / "a.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"a\.json .*{field}"):
        build(tmp_path / "records", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"`site` .* must be a new or empty folder"):
        build(tmp_path / "records", tmp_path / "thesis")
    with pytest.raises(ValueError, match=r"`records` .* must be a folder"):
        build(tmp_path / "nowhere", tmp_path / "site")


def test_a_manifest_cannot_remove_files_outside_the_site(tmp_path):
    (tmp_path / "records").mkdir()
    build(tmp_path / "records", tmp_path / "site")
    precious = tmp_path / "precious"
    precious.write_text("x")
    names = ["../precious", str(precious)]
    (tmp_path / "site" / "convboard-site.json").write_text(json.dumps({"files": names}))
    build(tmp_path / "records", tmp_path / "site")
    assert precious.exists()


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "broken.json").write_text('{"kind": "accuracy"}')
    with pytest.raises(ValueError, match=r"broken\.json .* `entry`"):
        build(tmp_path, tmp_path / "site")


def test_hostile_strings_stay_text(hostile):
    allowed = {"class", "href", "id", "type", "role", "lang", "name", "content", "charset", "rel"}
    for name, content in hostile.items():
        if not name.endswith(".html"):
            continue
        found = Page(content)
        for tag, attributes in found.tags:
            assert tag not in ("img", "iframe"), name
            assert not [key for key in attributes if key.startswith("on")], (name, attributes)
            assert not attributes.get("href", "").lower().startswith("javascript:")
            if tag == "script":
                assert set(attributes) <= allowed
        for script in found.scripts:
            assert "alert(" not in script or script.lstrip().startswith("{"), name
        page = content.decode()
        for marker in ("<script>alert", "<img src=x", "</pre></button>"):
            assert marker not in page, (name, marker)
    index = Page(hostile["index.html"])
    assert make.HOSTILE in index.text
    assert "49" not in index.text.split(make.HOSTILE)[1][:40]


def test_hostile_strings_come_back_whole_from_the_plots_data(hostile):
    scripts = Page(hostile["index.html"]).scripts
    specs = [json.loads(script) for script in scripts if script.startswith("{")]
    assert any(make.HOSTILE in json.dumps(spec) for spec in specs)


def test_json_in_a_script_cannot_close_it():
    value = {"a": "</script><!--\u2028&", "b": [1, None]}
    text = str(script_json(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_source_that_is_no_https_address_is_no_link():
    bad = FIGURE.model_copy(update={"source": "javascript:alert(1)"})
    found = Page(site([], [bad])["index.html"])
    assert "javascript:alert(1)" in found.text
    assert not [a for _, a in found.tags if "javascript" in a.get("href", "")]


def test_committed_schema_is_current():
    path = Path(published.__file__).with_name("schema-1.json")
    assert path.read_text(encoding="utf-8") == canonical(json_schema()) + "\n"


def test_published_figures_are_read_and_checked(tmp_path):
    (tmp_path / "a.yaml").write_text(canonical([FIGURE.model_dump()]))
    assert published.load(tmp_path) == [FIGURE]
    (tmp_path / "b.yaml").write_text("- {figure: x, value: high}")
    with pytest.raises(ValueError, match=r"figure 1 of b\.yaml .*`metric`.*`value`"):
        published.load(tmp_path)
    (tmp_path / "b.yaml").write_text("figure: x")
    with pytest.raises(ValueError, match=r"b\.yaml must be a list"):
        published.load(tmp_path)


def test_published_figures_of_the_package_are_valid():
    for figure in published.load():
        assert figure.source
        assert figure.setting
