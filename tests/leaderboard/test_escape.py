"""Nothing from records acts: every string of a record stays text, wherever it is shown."""

import ast
import json
import re
import runpy
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.encode import script_json

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
html = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_pages.py"))))
Page, site, FIGURE = html.Page, html.site, html.FIGURE


@pytest.fixture(scope="module")
def hostile():
    return site([*make.suite(seeds=(0,)), *make.hostile()])


def test_hostile_strings_stay_text(hostile):
    for name, content in hostile.items():
        if not name.endswith((".html", ".svg")):
            continue
        page = Page(content)
        for tag, attributes in page.tags:
            assert tag != "iframe", name
            assert tag != "img" or attributes["src"].startswith(("boards/", "../boards/")), name
            assert not [key for key in attributes if key.startswith("on")], (name, attributes)
            assert not attributes.get("href", "").lower().startswith("javascript:")
            if tag == "script":
                assert attributes.get("src", "assets/site.js").endswith("assets/site.js")
                assert set(attributes) <= {"type", "id", "src"}
        for script in page.scripts:
            assert script == "" or script.startswith("{"), name
        for marker in (b"<script>alert", b"<img src=x", b"</pre></button>"):
            assert marker not in content, (name, marker)
    index = Page(hostile["index.html"])
    assert make.HOSTILE in index.text
    assert "49" not in index.text.split(make.HOSTILE)[1][:40]


def test_what_pages_load_of_a_board_is_one_call_with_data(hostile):
    scripts = [
        hostile[n].decode() for n in hostile if n.startswith("boards/") and n.endswith(".js")
    ]
    assert scripts
    for script in scripts:
        match = re.fullmatch(r'convboard\.board\(("[a-z0-9-]+"), (\{.*\})\);\n', script)
        assert match
        assert not set("<>&") & set(script)
        for card in json.loads(match[2])["cards"].values():
            for tag, attributes in Page(card.encode()).tags:
                assert tag not in ("script", "iframe")
                assert not [key for key in attributes if key.startswith("on")]


def test_a_hostile_setting_and_headline_are_shown_as_they_are(hostile):
    pages = html.board_pages(hostile)
    assert any(f"trainer.max_epochs = \"'>{make.HOSTILE}" in page.text for page in pages)
    labels = [a.get("aria-label", "") for page in pages for _, a in page.tags]
    assert any(make.HOSTILE in label for label in labels)


def test_hostile_strings_come_back_whole_from_the_data_of_a_board(hostile):
    assert any(make.HOSTILE in json.dumps(page.data) for page in html.board_pages(hostile))


def test_code_to_copy_takes_nothing_but_names_and_values(hostile):
    (name,) = [n for n in hostile if n.startswith("operators/") and "alert" in n]
    (code,) = re.findall(r"<pre[^>]*>(from bench.*?)</pre>", hostile[name].decode(), re.DOTALL)
    tree = ast.parse(unescape(code))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [ast.unparse(call) for call in calls] == ["build", "fuse"]


def test_json_in_a_script_cannot_close_it():
    value = {"a": "</script><!--\u2028&", "b": [1, None]}
    text = str(script_json(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_source_that_is_no_https_address_is_no_link():
    bad = FIGURE.model_copy(update={"source": "javascript:alert(1)"})
    page = Page(site([], [bad])["published.html"])
    assert "javascript:alert(1)" in page.text
    assert not [a for _, a in page.tags if "javascript" in a.get("href", "")]
