"""Pages of the site as a browser would read them, for the tests."""

import json
from html.parser import HTMLParser

from leaderboard import published
from leaderboard.site import pages

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
        self.rows: list[dict[str, tuple[str, str]]] = []
        """Column (its key, or its number) → what a cell sorts by, and what it says."""
        self._inside = ""
        self._cell = ""
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
            self.rows.append({})
        if tag in ("td", "th") and self.rows:
            self._cell = values.get("data-column", str(len(self.rows[-1])))
            self.rows[-1][self._cell] = (values.get("data-value", ""), "")

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""
        if tag in ("td", "th") and self._cell:
            value, text = self.rows[-1][self._cell]
            self.rows[-1][self._cell] = (value, " ".join(text.split()))
            self._cell = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data
            if self._cell:
                value, text = self.rows[-1][self._cell]
                self.rows[-1][self._cell] = (value, text + " " + data)

    @property
    def data(self):
        """The data of a board's page."""
        return json.loads(next(script for script in self.scripts if script.startswith('{"')))


def site(records, figures=()):
    named = {record.filename: record for record in records}
    return pages(named, title="ConvBoard", figures=list(figures))


def board_pages(files):
    return [Page(files[n]) for n in files if n.startswith("boards/") and n.endswith(".html")]


def cells_of(files, label):
    """The rows of an arm on all boards; columns of times without the key of the time."""
    return [
        {key.split("-")[0]: cell for key, cell in reversed(row.items())}
        for page in board_pages(files)
        for row in page.rows
        if "score" in row and row["arm"][0] == label
    ]
