"""Pages of the site as a browser would read them, for the tests."""

from html.parser import HTMLParser

from leaderboard import published
from leaderboard.build import pages

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


def cells_of(files, label, columns=11):
    page = Page(files["index.html"])
    return [cells for cells in page.rows if len(cells) == columns and cells[1][0] == label]
