"""README's board is that of the published records."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from leaderboard import readme

README = Path(__file__).parents[2] / "README.md"
HINT = "`nox -s readme` makes README's board anew"


@pytest.fixture(scope="module")
def view():
    return readme.board()


def test_the_picture_is_that_of_the_records(view):
    assert readme.PICTURE.read_text(encoding="utf-8") == readme.picture(view), HINT
    tree = ElementTree.fromstring(readme.picture(view))
    assert tree.tag.endswith("svg")


def test_the_table_is_that_of_the_records(view):
    text = README.read_text(encoding="utf-8")
    assert readme.PLACE.search(text)
    assert readme.refreshed(text, view) == text, HINT
    rows = [line for line in readme.table(view).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + readme.LINES
    for line, row in zip(view.lines, rows[2:], strict=False):
        assert row.startswith(f"| {line.row.label} |")
        assert view.show.score(line.row.mean) in row
