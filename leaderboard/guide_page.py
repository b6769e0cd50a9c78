"""The guide: Markdown files beside the code, shown as pages of the site.

A page is a file of the folder `guide`, NUMBER-NAME.md: the numbers give the order, the names the
addresses. It opens with a title and one paragraph that says what the reader can do afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent / "guide"
_FILE = re.compile(r"(?:\d+-)?([a-z-]+)\.md")


@dataclass(frozen=True)
class GuidePage:
    """A page of the guide.

    Attributes:
        name: of its file in the site, without folder and ending.
        title: its heading, plain text.
        lead: its first paragraph.
        body: all that follows.
    """

    name: str
    title: str
    lead: Markup
    body: Markup


def guide_pages(folder: Path = FOLDER) -> list[GuidePage]:
    """Return the pages in their order.

    Example:
        >>> [page.name for page in guide_pages()][:2]
        ['first-board', 'own-data']
    """
    return [_page(path) for path in sorted(folder.glob("*.md"))]


def words(text: str) -> Markup:
    """Return Markdown as HTML; tags in it are text.

    Example:
        >>> print(words("`a` < *b* <b>"), end="")
        <p><code>a</code> &lt; <em>b</em> &lt;b&gt;</p>
    """
    return Markup(_markdown().render(text))


def _page(path: Path) -> GuidePage:
    markdown = _markdown()
    tokens = markdown.parse(path.read_text(encoding="utf-8"))
    opening = [token.type for token in tokens[:4:3]]
    if opening != ["heading_open", "paragraph_open"]:
        raise ValueError(f"{path.name} must open with a title and a paragraph.")

    def html(some: Sequence[Token]) -> Markup:
        return Markup(markdown.renderer.render(some, markdown.options, {}))

    return GuidePage(
        name=_name(path.name),
        title=tokens[1].content,
        lead=html([tokens[4]]),
        body=html(tokens[6:]),
    )


def _name(file: str) -> str:
    """Return the name of a page in the site.

    Example:
        >>> _name("20-own-data.md")
        'own-data'
    """
    matched = _FILE.fullmatch(file)
    if matched is None:
        raise ValueError(f"{file} must be called NUMBER-NAME.md.")
    return matched[1]


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a console block; a line that ends in a backslash goes on.

    Example:
        >>> list(commands("$ convboard plan quick"))
        ['convboard plan quick']
    """
    lines = iter(block.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
            while command.endswith("\\"):
                command = command.removesuffix("\\").rstrip() + " " + next(lines).strip()
            yield command


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    for rule in (_fence, _heading_open, _link_open, _table_open, _table_close):
        markdown.add_render_rule(rule.__name__.removeprefix("_"), rule)
    return markdown


_Env = MutableMapping[str, Any]


def _fence(
    self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: _Env
) -> str:
    """Code, with a button that copies it: of a console the commands, without what they print."""
    text = tokens[i].content.rstrip("\n")
    code = "\n".join(commands(text)) if tokens[i].info == "console" else text
    button = Markup('<button type="button" class="copy" data-copy="{}">Copy</button>').format(code)
    return str(
        Markup('<div class="command"><pre tabindex="0">{}</pre>{}</div>\n').format(
            text, button if code else ""
        )
    )


def _heading_open(
    self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: _Env
) -> str:
    """A heading that can be linked to, by its words."""
    anchor = re.sub(r"[^a-z0-9]+", "-", tokens[i + 1].content.lower()).strip("-")
    return f'<{tokens[i].tag} id="{anchor}">'


def _link_open(
    self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: _Env
) -> str:
    """A link; one to a file of the guide leads to its page."""
    path, sharp, anchor = str(tokens[i].attrs["href"]).partition("#")
    page = f"{_name(path)}.html" if path.endswith(".md") else path
    return f'<a href="{escape(page + sharp + anchor)}">'


def _table_open(
    self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: _Env
) -> str:
    return '<div class="scroll" tabindex="0"><table>'


def _table_close(
    self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: _Env
) -> str:
    return "</table></div>"
