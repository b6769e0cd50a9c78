"""Nothing from records acts: every string of a record stays text, wherever it is shown."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaderboard.build import script_json

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))
html = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_pages.py"))))
Page, site, FIGURE = html.Page, html.site, html.FIGURE


@pytest.fixture(scope="module")
def hostile():
    return site([*make.suite(seeds=(0,)), *make.hostile()])


def test_hostile_strings_stay_text(hostile):
    allowed = {"class", "href", "id", "type", "role", "lang", "name", "content", "charset", "rel"}
    for name, content in hostile.items():
        if not name.endswith(".html"):
            continue
        page = Page(content)
        for tag, attributes in page.tags:
            assert tag not in ("img", "iframe"), name
            assert not [key for key in attributes if key.startswith("on")], (name, attributes)
            assert not attributes.get("href", "").lower().startswith("javascript:")
            if tag == "script":
                assert set(attributes) <= allowed
        for script in page.scripts:
            assert "alert(" not in script or script.lstrip().startswith("{"), name
        page = content.decode()
        for marker in ("<script>alert", "<img src=x", "</pre></button>"):
            assert marker not in page, (name, marker)
    index = Page(hostile["index.html"])
    assert make.HOSTILE in index.text
    assert "49" not in index.text.split(make.HOSTILE)[1][:40]


def test_a_hostile_setting_and_headline_are_shown_as_they_are(hostile):
    page = Page(hostile["index.html"])
    assert f"trainer.max_epochs = \"'>{make.HOSTILE}" in page.text
    assert any(make.HOSTILE in attributes.get("aria-label", "") for _, attributes in page.tags)


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
    page = Page(site([], [bad])["index.html"])
    assert "javascript:alert(1)" in page.text
    assert not [a for _, a in page.tags if "javascript" in a.get("href", "")]
