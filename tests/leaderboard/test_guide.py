"""The guide's pages in the site."""

import re
import runpy
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from leaderboard import api_page
from leaderboard.guide_page import guide_pages, words

html = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_pages.py"))))


@pytest.fixture(scope="module")
def files():
    return html.site([])


def targets(files, name):
    for tag, attributes in html.Page(files[name]).tags:
        if tag == "a":
            yield attributes["href"]


def ids(content):
    return {attributes["id"] for _, attributes in html.Page(content).tags if "id" in attributes}


def test_every_link_and_every_anchor_leads_somewhere(files):
    guide = [name for name in files if name.startswith("guide/")]
    assert len(guide) == len(guide_pages()) + 2
    for name in guide:
        for target in targets(files, name):
            path, _, anchor = target.partition("#")
            there = PurePosixPath(name).parent / path if path else PurePosixPath(name)
            resolved = str(there).replace("guide/../", "")
            assert resolved in files, (name, target)
            assert not anchor or anchor in ids(files[resolved]), (name, target)


def test_every_page_is_reached_from_home(files):
    assert "guide/index.html" in set(targets(files, "index.html"))
    listed = set(targets(files, "guide/index.html"))
    assert listed >= {f"{page.name}.html" for page in guide_pages()} | {"api.html"}


def test_an_id_is_given_once(files):
    for name, content in files.items():
        if name.startswith("guide/"):
            found = [a["id"] for _, a in html.Page(content).tags if "id" in a]
            assert len(found) == len(set(found)), name


def test_tags_in_markdown_are_text():
    made = words("<script>alert(1)</script>\n\n[x](javascript:alert(1)) ![y](data:text/html,z)")
    assert not re.search("<script|<img|href", made)


def test_the_reference_has_what_the_packages_export():
    import bench.backbones
    import bench.operators
    import tasks

    made = {package.name: [item.name for item in package.items] for package in api_page.packages()}
    for module in (bench.operators, bench.backbones, tasks):
        assert made[module.__name__][: len(module.__all__)] == list(module.__all__)
    named = [name for name in made["bench.operators"] if name.startswith("create(")]
    assert {f'create("{name}", …)' for name in bench.operators.names()} >= set(named)
    assert len(named) >= 12


def test_an_item_says_how_it_is_called():
    package = api_page.packages()[0]
    create = next(item for item in package.items if item.name == "create")
    assert "    kernel_size: Size2 = 3,\n" in create.signature
    assert [name for name, _, _ in create.sections["Parameters"]][:2] == ["name", "in_channels"]
    assert create.example.startswith(">>> ")
