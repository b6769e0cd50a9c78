"""The parts of the site: what each is made of, and how it is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import record as bench_record
from bench.hashing import canonical, digest, files_digest, hash_files
from bench.record import Record, json_schema
from leaderboard import api_page, published
from leaderboard.board import boards
from leaderboard.board_data import board_data
from leaderboard.board_files import badge, board_drawings, board_script, plot_pages
from leaderboard.board_page import BoardView, choice_key
from leaderboard.board_plot import axes_of
from leaderboard.encode import archive, linked, script_json
from leaderboard.entry_page import entry_view
from leaderboard.families import colour
from leaderboard.growth import Growth, growths
from leaderboard.guide_page import guide_pages
from leaderboard.history_page import history_view
from leaderboard.keys import code_key
from leaderboard.machine_page import machine_views
from leaderboard.names import (
    arm,
    arm_names,
    board_name,
    entry_file,
    host_words,
    machine_file,
    machine_name,
    opening,
    operator_file,
)
from leaderboard.operator_page import operator_links, operator_view, operators_of, places_of
from leaderboard.overview import grid
from leaderboard.rows import Board, status_words
from leaderboard.show import Show
from leaderboard.wording import moment

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
Files = dict[str, bytes]
Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Part:
    """Some files of the site that are made together.

    Attributes:
        name: of the part.
        key: hash of all that the files are made of: while it is the same, so are they.
        make: makes the files, path in the site → content; what it is given reads files of parts
            before it, and its own of the build before.
    """

    name: str
    key: str
    make: Callable[[Read], Files]


def pages(
    records: Mapping[str, Record],
    *,
    title: str,
    figures: Sequence[published.Figure],
    pictures: Mapping[str, bytes] | None = None,
) -> Files:
    """Return the files of the site: path in the site → content.

    Args:
        records: name of the record's file → record.
        title: name of the site.
        figures: published figures, shown apart.
        pictures: name of a picture's file → content; a missing one is shown as missing.
    """
    files: Files = {}
    for part in parts(records, title=title, figures=figures, pictures=pictures or {}):
        files |= part.make(files.__getitem__)
    return dict(sorted(files.items()))


def parts(
    records: Mapping[str, Record],
    *,
    title: str,
    figures: Sequence[published.Figure],
    pictures: Mapping[str, bytes],
    files: Mapping[str, tuple[str, Callable[[], bytes]]] | None = None,
) -> list[Part]:
    """Return the parts of the site, those first that others read; the arguments are `pages`'s.

    `files` gives for the name of each record the hash of its file and what reads it; without them
    the record is written as it is, and known by its name.
    """
    every = boards(records.values())
    operators = operators_of((row for board in every for row in board.rows), figures)
    environment = _environment(title, operators)
    code = digest([_code(), title, [f.model_dump() for f in figures]])
    names = arm_names(every)
    filenames = {id(record): name for name, record in records.items()}
    known = {n: files[n][0] if files else n for n in records}
    hashes = {id(record): [name, known[name]] for name, record in records.items()}
    views = _Views(every)
    shown = _Shown(environment, views, names, pictures, filenames)

    def part(name: str, make: Callable[[Read], Files], *of: Any) -> Part:
        return Part(name, digest([code, name, *of]), make)

    every_record = sorted(known.items())
    grown = growths(records.values())
    made = [
        *(Part(f"records/{n}", known[n], partial(_record, n, r, files[n][1] if files else None))
          for n, r in sorted(records.items())),
        *(part(f"pictures/{name}", partial(_picture, name, content), _hash(content))
          for name, content in sorted(pictures.items())),
        part("assets", lambda read: _assets()),
        *(part(f"boards/{board_name(board)}", partial(shown.board, board),
               _content(board, hashes, names, pictures))
          for board in every),
        *(part(operator_file(name), partial(shown.operator, name, figures, grown), every_record)
          for name in operators),
        part("machines", partial(shown.machines, list(records.values())), every_record),
        part("guide", shown.guide, api_page.digest_of_sources()),
        part("site", partial(shown.rest, list(records.values()), figures), every_record),
        part("records.zip", partial(_zip, known), every_record),
    ]  # fmt: skip
    return made


class _Views:
    """What pages show of boards, each made when it is first asked for."""

    def __init__(self, every: Sequence[Board]) -> None:
        self.boards = every
        self._views: dict[str, BoardView] = {}

    def of(self, board: Board) -> BoardView:
        if board.key not in self._views:
            self._views[board.key] = BoardView(board)
        return self._views[board.key]

    def all(self) -> list[BoardView]:
        return [self.of(board) for board in self.boards]


class _Shown:
    """Makes the pages from their templates."""

    def __init__(
        self,
        environment: Environment,
        views: _Views,
        names: Mapping[str, str],
        pictures: Mapping[str, bytes],
        filenames: Mapping[int, str],
    ) -> None:
        self._environment = environment
        self._views = views
        self._names = names
        self._pictures = {f"pictures/{name}" for name in pictures}
        self._filenames = filenames

    def _page(self, template: str, root: str, **values: Any) -> bytes:
        return self._environment.get_template(template).render(root=root, **values).encode()

    def board(self, board: Board, read: Read) -> Files:
        """The page of a board, its data for others, its drawings, and the pages of its arms."""
        view = self._views.of(board)
        name = board_name(board)
        cards = {
            choice_key(stand): self._card(view, choice_key(stand), root="")
            for stand in view.standings
        }
        files = {
            f"boards/{name}.html": self._page(
                "board.html",
                "../",
                view=view,
                name=name,
                plots=plot_pages(view),
                drawn=bool(axes_of(view, view.usual)),
                data=script_json(board_data(view)),
                arms={row.key: self._names[arm(row)] for row in board.rows},
            ),
            f"boards/{name}.js": board_script(view, name, self._names, cards),
            f"boards/{name}-places.json": self._places(view),
            **board_drawings(view, name),
        }
        for row in board.rows:
            files[entry_file(board, row)] = self._page(
                "entry.html",
                "../",
                name=name,
                arm=self._names[arm(row)],
                base=self._names[arm(board.baseline)] if board.baseline else None,
                **entry_view(view, row, self._pictures, self._filenames),
            )
        return files

    def _card(self, view: BoardView, key: str, root: str) -> str:
        stand = next(s for s in view.standings if choice_key(s) == key)
        template = self._environment.get_template("card.html")
        axes = next(iter(axes_of(view, stand)), None)
        name = board_name(view.board)
        return template.render(root=root, view=view, stand=stand, name=name, axes=axes)

    def _places(self, view: BoardView) -> bytes:
        """The rows of the board as they stand in the tables of operators: key → markup."""
        template = self._environment.get_template("place.html")
        rows = {line.row.key: template.render(view=view, line=line) for line in view.lines}
        return (canonical(rows) + "\n").encode()

    def operator(
        self,
        name: str,
        figures: Sequence[published.Figure],
        grown: Sequence[Growth],
        read: Read,
    ) -> Files:
        """The page of an operator."""
        values = operator_view(name, self._views.boards, figures, grown)
        places = [
            Markup(json.loads(read(f"boards/{board_name(board)}-places.json"))[row.key])
            for board, row in places_of(name, self._views.boards)
        ]
        return {operator_file(name): self._page("operator.html", "../", places=places, **values)}

    def machines(self, records: Sequence[Record], read: Read) -> Files:
        """A page per machine."""
        return {
            page: self._page("machine.html", "../", **values)
            for page, values in machine_views(records, self._filenames).items()
        }

    def guide(self, read: Read) -> Files:
        """The pages of the guide, and the reference."""
        every = guide_pages()
        files = {
            f"guide/{page.name}.html": self._page(
                "guide.html", "../", page=page, before=before, after=after
            )
            for before, page, after in zip([None, *every], every, [*every[1:], None], strict=False)
        }
        return {
            **files,
            "guide/index.html": self._page("guide_index.html", "../", pages=every),
            "guide/api.html": self._page("api.html", "../", packages=api_page.packages()),
        }

    def rest(
        self, records: Sequence[Record], figures: Sequence[published.Figure], read: Read
    ) -> Files:
        """Home, the page that compares, method, history, published figures and the schema."""
        every = self._views.all()
        first = self._views.of(opening(self._views.boards)) if every else None
        machines = sorted(
            {(machine_name(r), machine_file(r)) for r in records},
        )
        index = {
            "first": board_name(first.board) if first else "",
            "boards": [
                {
                    "name": board_name(view.board),
                    "task": view.board.title,
                    "host": host_words(view.board),
                    "times": [[choice.key, view.times[choice.key]] for choice in view.choices],
                    "arms": sorted({self._names[arm(row)] for row in view.board.rows}),
                }
                for view in every
            ]
        }  # fmt: skip
        return {
            "index.html": self._page(
                "home.html",
                "",
                card=Markup(self._card(first, choice_key(first.usual), "")) if first else None,
                index=script_json(index),
                views=every,
                grid=grid(every),
                total=len(records),
            ),
            "compare.html": self._page("compare.html", "", index=script_json(index)),
            "method.html": self._page("method.html", ""),
            "history.html": self._page("history.html", "", **history_view(every, records)),
            "machines.html": self._page("machines.html", "", machines=machines),
            "published.html": self._page("published.html", "", figures=figures),
            "badge.svg": badge(every),
            "schema-1.json": (canonical(json_schema()) + "\n").encode(),
        }


def _environment(title: str, operators: Iterable[str]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"linked": linked, "metric_name": Show.metric_name, "moment": moment}
    environment.globals.update(
        title=title,
        operators=operator_links(operators),
        board_name=board_name,
        choice_key=choice_key,
        colour=colour,
        entry_file=entry_file,
        host_words=host_words,
        machine_file=machine_file,
        operator_file=operator_file,
        status_words=status_words,
    )
    return environment


def _content(
    board: Board,
    hashes: Mapping[int, Sequence[str]],
    names: Mapping[str, str],
    pictures: Container[str],
) -> str:
    """Hash of all that a board's pages are made of."""
    of_rows = []
    for row in board.rows:
        records = (
            *(*row.records, *row.superseded, *row.speeds, *row.earlier, *row.views, *row.studies),
            *(u for u in (row.untimed, row.untimed_end_to_end, row.decision) if u),
        )
        code = sorted({row.code.get(code_key(r), "") for r in records})
        shown = [p.file in pictures for r in row.views if r.view for p in r.view.pictures]
        of_rows.append([row.key, code, names[arm(row)], [hashes[id(r)] for r in records], shown])
    return digest([board.key, board.settings, of_rows])


@cache
def _code() -> str:
    """Hash of the code that makes the site, its statistics and what a record is among it."""
    kinds = (".py", ".html", ".js", ".css", ".md")
    paths = [path for path in HERE.rglob("*") if path.suffix in kinds]
    paths += (HERE / "operators").glob("*.yaml")
    bench = Path(bench_record.__file__).parents[1]
    for folder in ("", "record", "statistics"):
        paths += (bench / folder).glob("*.py")
    return files_digest(hash_files(HERE.parent, paths))


def _hash(content: bytes) -> str:
    return digest(content.hex())


def _record(name: str, record: Record, content: Callable[[], bytes] | None, read: Read) -> Files:
    if content is not None:
        return {f"records/{name}": content()}
    return {f"records/{name}": (canonical(record.model_dump(mode="json")) + "\n").encode()}


def _picture(name: str, content: bytes, read: Read) -> Files:
    return {f"pictures/{name}": content}


def _zip(known: Mapping[str, str], read: Read) -> Files:
    try:
        old = read("records.zip")  # of the build before
    except (KeyError, FileNotFoundError):
        old = b""
    named = {f"records/{name}": content for name, content in known.items()}
    return {"records.zip": archive(named, read, old)}


def _assets() -> Files:
    """The style sheet and the script that all pages share."""

    def joined(folder: str, names: Iterable[str]) -> bytes:
        return b"".join((TEMPLATES / folder / name).read_bytes() for name in names)

    scripts = sorted(path.name for path in (TEMPLATES / "js").glob("*.js"))
    return {
        "assets/site.css": joined("css", ("tokens.css", "chart.css", "site.css")),
        "assets/site.js": joined("js", scripts),
    }
