"""The site in a real browser, from a folder: what is chosen, filtered, linked and downloaded.

Chromium is Debian's (`apt-get install chromium`, see .ci/run) or any that is found; screenshots go
to build/screenshots.
"""

import csv
import json
import os
import re
import runpy
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from leaderboard.build import build

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CONVBOARD_BROWSER" not in os.environ,
        reason=f"none of {', '.join(NAMES)} is here",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two boards of two hosts, a failure, and one board of records that try to act."""
    folder = tmp_path_factory.mktemp("browser")
    records = [
        *make.suite(seeds=(0, 1)),
        *make.suite(seeds=(0, 1, 2), host="resnet18"),
        make.failure(make.entry("huge"), 0, status="oom", error="RuntimeError: no memory"),
        *make.hostile(),
    ]
    for record in records:
        record.save(folder / "records")
    build(folder / "records", folder / "a b" / "site")
    return folder / "a b" / "site"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, site):
    """Open a page of the site; whatever a page complains about fails the test."""
    faults, contexts = [], []

    def open_page(path, *, width=1280, scheme="light", view="", page=None):
        if page is not None:
            page.goto((site / path).as_uri() + view)
            return page
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: m.type == "error" and faults.append(m.text))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: r.url.startswith("http") and faults.append(r.url))
        page.goto((site / path).as_uri() + view)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def board_path(site, host):
    pages = sorted(site.glob(f"boards/classification-scenes-{host}-*.html"))
    path = max(pages, key=lambda page: page.stat().st_size)  # of two the one of all arms
    return path.relative_to(site).as_posix()


def shown(page):
    """Labels of the rows in their order."""
    return page.locator("#board tbody tr[data-key]:visible th a").all_inner_texts()


def test_three_choices_lead_to_a_card(visit):
    page = visit("index.html")
    answer = page.locator("#card .answer")
    hosts = page.locator("#choose-host option").all_inner_texts()
    assert "resnet18" in hosts[0] + hosts[-1]
    page.select_option("#choose-task", label="Classification on scenes")
    other = next(host for host in hosts if host.startswith("resnet18"))
    page.select_option("#choose-host", label=other)
    expect(page.locator("#card h2")).to_contain_text("resnet18")
    expect(answer).not_to_be_empty()
    times = page.locator("#choose-time option").all()
    assert len(times) == 2
    page.select_option("#choose-time", value=times[1].get_attribute("value"))
    expect(page.locator("#card h2")).to_contain_text("batch 8")
    again = visit("index.html", view=page.url[page.url.index("#") :])
    expect(again.locator("#card h2")).to_contain_text("batch 8")
    assert again.locator("#choose-host option:checked").inner_text() == other
    assert page.evaluate("document.querySelector('#card img').naturalWidth") > 0


def test_headings_sort_and_filters_filter(visit, site):
    page = visit(board_path(site, "resnet18"))
    ranked = shown(page)
    assert len(ranked) == 7
    page.locator("th[data-column^='ratio'] button:visible").click()
    times = page.locator("td[data-column^='ratio']:visible").evaluate_all(
        "cells => cells.map((cell) => Number(cell.dataset.value))"
    )
    assert times == sorted(times)
    assert shown(page) != ranked
    page.fill("#search", "unirep")
    assert shown(page) == ["unireplk"]
    assert page.locator(".plot:visible svg:visible g.point:visible").count() == 1
    page.fill("#search", "")
    page.select_option("#family", "conv")
    assert shown(page) == ["conv3"]
    page.select_option("#family", "")
    page.select_option("#noise", "noisy")
    assert shown(page) == ["shift"]
    page.click("#reset")
    assert shown(page) == ranked


def test_the_view_is_in_the_address(visit, site):
    path = board_path(site, "resnet18")
    page = visit(path)
    page.locator("th[data-column='score'] button").click()
    page.locator("th[data-column='score'] button").click()
    page.fill("#search", "c")
    page.click("[data-set-axes='absolute']")
    page.locator("#columns summary").click()
    page.check("[data-kind='params']")
    page.locator("tr[data-arm='acb'] .expand").click()
    page.select_option("#time", index=1)
    view = page.url[page.url.index("#") :]
    assert len(view) < 120
    again = visit(path, view=view)
    assert shown(again) == shown(page)
    assert shown(again)[0] != "acb"
    for one in (page, again):
        assert one.locator("td[data-column='params']").first.is_visible()
        assert one.locator("tr.detail").inner_text().startswith("Scores by seed")
        assert one.locator(".plot:visible").get_attribute("data-axes") == "absolute"
    again.evaluate("location.hash = ''")  # as by hand, or by going back
    expect(again.locator("#time option").first).to_have_js_property("selected", True)
    assert again.locator(".plot:visible").get_attribute("data-axes") == "relative"
    again.click("#reset")
    assert "#" not in again.url


def test_what_is_shown_is_downloaded(visit, site, tmp_path):
    page = visit(board_path(site, "resnet18"))
    page.fill("#search", "acb")

    def saved(button):
        with page.expect_download() as download:
            page.click(button)
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    data = json.loads(page.locator("#data").text_content())
    (fact,) = [row for row in data["rows"] if row["label"] == "acb"]
    (line,) = csv.DictReader(saved("#csv").read_text().splitlines())
    assert (line["label"], float(line["score"])) == ("acb", fact["score"])
    assert json.loads(line["operator_options"]) == fact["operator_options"]
    assert float(line["ratio"]) == fact["times"][data["times"][0]["key"]]["ratio"]
    assert json.loads(saved("#json").read_text())["rows"] == [fact]
    svg = saved("#plot-svg").read_text()
    assert svg.startswith("<svg")
    assert ">acb<" in svg
    assert ">parc<" not in svg
    png = saved("#plot-png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (1440, 800)


def test_two_operators_are_compared_on_every_board_that_has_both(visit):
    page = visit("compare.html", view="#a=acb&b=dw7")
    rows = page.locator("#compare tbody tr")
    expect(rows).to_have_count(2)
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("of 2 boards")
    difference = rows.first.locator("td").nth(2).inner_text()
    page.click("#turn")
    expect(page.locator("#verdict")).to_contain_text("dw7 is surely")
    turned = rows.first.locator("td").nth(2).inner_text()
    number = re.compile(r"[+−][\d.]+")
    assert number.match(turned)[0][1:] == number.match(difference)[0][1:]
    assert turned[0] != difference[0]
    page.select_option("#arm-b", "parc")
    assert page.url.endswith("#a=dw7&b=parc")


def test_records_that_try_to_act_are_text(visit, site):
    wanted = [
        site / "compare.html",
        *site.glob("boards/*.html"),
        *site.glob("operators/*alert*.html"),
        *site.glob("entries/*alert*.html"),
    ]
    page = None
    for path in wanted:
        page = visit(path.relative_to(site).as_posix(), page=page)
        for button in page.locator(".expand").all():
            button.click()
        assert page.locator("script:not([src]):not([type])").count() == 0
    page = visit("index.html")
    tasks = page.locator("#choose-task option").all_inner_texts()
    assert any(make.HOSTILE in task for task in tasks)
    for task in tasks:
        page.select_option("#choose-task", label=task)
        expect(page.locator("#card h2")).to_contain_text(task[:20])


def pages_of(site):
    entry = next(site.glob("entries/unireplk-*.html")).relative_to(site).as_posix()
    machine = next(site.glob("machines/*.html")).relative_to(site).as_posix()
    named = {
        "home": "index.html",
        "board": board_path(site, "resnet18"),
        "entry": entry,
        "operator": "operators/acb.html",
        "compare": "compare.html",
        "machine": machine,
        "history": "history.html",
        "published": "published.html",
        "method": "method.html",
    }
    return named


def test_pages_are_accessible_in_light_and_dark(visit, site):
    SHOTS.mkdir(parents=True, exist_ok=True)
    grave = []
    every = pages_of(site)
    for scheme, names in (("light", every), ("dark", ("home", "board"))):
        page = None
        for name in names:
            page = visit(every[name], scheme=scheme, page=page)
            page.screenshot(path=SHOTS / f"{name}-{scheme}.png", full_page=True)
            found = Axe().run(page, options={"preload": False}).response["violations"]
            grave += [
                (name, scheme, v["id"], v["nodes"][0]["html"][:120])
                for v in found
                if v["impact"] in ("moderate", "serious", "critical")
            ]
    assert not grave


def test_nothing_is_wider_than_a_telephone(visit, site):
    page = None
    for name, path in pages_of(site).items():
        page = visit(path, width=375, page=page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
        page.screenshot(path=SHOTS / f"{name}-375.png", full_page=True)
    page = visit(board_path(site, "resnet18"), width=375)
    box = page.locator(".plot:visible svg:visible").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375
    for label in page.locator(".plot:visible svg:visible text.label").all():
        inside = label.bounding_box()
        assert inside["x"] >= box["x"]
        assert inside["x"] + inside["width"] <= box["x"] + box["width"]


def test_on_a_telephone_a_row_is_a_card(visit, site):
    page = visit(board_path(site, "resnet18"), width=375)
    cells = page.locator("#board tbody tr[data-arm='acb'] > :visible").all()
    assert len(cells) > 5
    for cell in cells:
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
    gain = page.locator("#board tr[data-arm='acb'] td[data-column='contrast']")
    assert gain.get_attribute("data-label") == "Gain (points over dw7)"
    page.locator("#board th[data-column='score'] button").click()
    assert page.locator("#board th[data-column='score']").get_attribute("aria-sort") == "descending"
    page.locator("tr[data-arm='acb'] .expand").click()
    assert page.locator("tr.detail").inner_text().startswith("Scores by seed")
    page = visit("compare.html", width=375, view="#a=acb&b=dw7")
    expect(page.locator("#compare tbody td").first).to_have_attribute("data-label", "acb")


def test_labels_of_plots_do_not_collide(visit, site):
    for host in ("resnet18", "test-convnext"):
        page = visit(board_path(site, host))
        boxes = [
            label.bounding_box()
            for label in page.locator(".plot:visible svg:visible text.label").all()
        ]
        assert len(boxes) >= 6
        for index, a in enumerate(boxes):
            for b in boxes[index + 1 :]:
                across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
                down = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
                assert min(across, down) <= 1, (a, b)


def test_a_time_without_the_baselines_is_drawn_absolutely(visit, tmp_path):
    records = [
        record
        for record in make.suite(seeds=(0, 1))
        if record.kind == "accuracy" or record.speed.batch == 1 or not record.entry.baseline
    ]
    for record in records:
        record.save(tmp_path / "records")
    build(tmp_path / "records", tmp_path / "site")
    (path,) = (tmp_path / "site" / "boards").glob("*.html")
    page = visit(path)
    pressed = page.locator("[data-set-axes][aria-pressed='true']")
    assert pressed.get_attribute("data-set-axes") == "relative"
    page.select_option("#time", index=1)
    assert page.locator(".plot:visible").get_attribute("data-axes") == "absolute"
    assert pressed.get_attribute("data-set-axes") == "absolute"
    expect(page.locator("[data-set-axes='relative']")).to_be_hidden()
    with page.expect_download():
        page.locator("#plot-svg").click()


def test_keyboard_reaches_what_the_mouse_does(visit, site):
    page = visit(board_path(site, "resnet18"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    point = page.locator(".plot:visible svg:visible a").first
    point.focus()
    expect(page.locator("#tip")).to_be_visible()
    page.locator("tr[data-arm='acb'] .expand").focus()
    for count in (1, 0):
        page.keyboard.press("Enter")
        assert page.locator("tr.detail").count() == count
        assert page.evaluate("document.activeElement.ariaLabel") == "More of acb"
