"""The site: static pages from records, the same bytes for the same records, no network needed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import UserError
from bench.hashing import canonical, digest
from bench.record import Record, json_schema
from leaderboard import plots, published
from leaderboard.board import boards
from leaderboard.entry_page import entry_view
from leaderboard.rows import Board, Row, status_words
from leaderboard.show import Show

TEMPLATES = Path(__file__).parent / "templates"
PNG = b"\x89PNG\r\n\x1a\n"
MANIFEST = "convboard-site.json"
"""File of the site that lists the others, by which an older build is known and cleared."""


def build(
    records: Path, site: Path, *, title: str = "ConvBoard", figures: Path = published.FOLDER
) -> None:
    """Write the site of all records below `records` into the folder `site`.

    Pages of an earlier build that are no longer made are removed; files that a build did not
    write are left alone.

    Args:
        records: folder of record files (`*.json`), searched in depth.
        site: folder to write; new, empty, or one that was built before.
        title: name of the site.
        figures: folder of published figures (`*.yaml`), shown apart from what was measured.

    Raises:
        ValueError: `records` is no folder, a record or a figure is not by its schema, or `site`
            holds files and none of them says that it was built before.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "records").mkdir()
        ...     build(Path(folder, "records"), Path(folder, "site"))
        ...     sorted(path.name for path in Path(folder, "site").glob("*.html"))
        ['index.html', 'method.html']
    """
    if not records.is_dir():
        raise UserError(f"`records` (={str(records)!r}) must be a folder of record files.")
    if site.is_dir() and any(site.iterdir()) and not (site / MANIFEST).is_file():
        raise UserError(
            f"`site` (={str(site)!r}) must be a new or empty folder, or one built before; "
            "this one holds other files."
        )
    by_path = _read(records)
    files = pages(
        {record.filename: record for record in by_path.values()},
        title=title,
        figures=published.load(figures),
        pictures=_pictures(by_path),
    )
    _clear(site)
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pages(
    records: Mapping[str, Record],
    *,
    title: str,
    figures: Sequence[published.Figure],
    pictures: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """Return the files of the site: path in the site → content.

    Args:
        records: name of the record's file → record.
        title: name of the site.
        figures: published figures, shown apart.
        pictures: name of a picture's file → content; a missing one is shown as missing.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        status_words=status_words,
        title=title,
        total=len(records),
        css=_asset("style.css"),
        page_js=_asset("page.js"),
        plots_js=_asset("plots.js"),
    )
    every = boards(records.values())
    drawn = {f"pictures/{name}": content for name, content in (pictures or {}).items()}
    raw = {
        f"records/{name}": (canonical(record.model_dump(mode="json")) + "\n").encode()
        for name, record in records.items()
    }
    views = [_board_view(board) for board in every]
    texts = {
        "index.html": environment.get_template("index.html").render(
            root="",
            boards=views,
            published=figures,
            vega=Markup(plots.script()) if any(view["spec"] for view in views) else None,
        ),
        "method.html": environment.get_template("method.html").render(root=""),
        "schema-1.json": canonical(json_schema()) + "\n",
    }
    entry = environment.get_template("entry.html")
    for board in every:
        for row in board.rows:
            texts[_page(board, row)] = entry.render(root="../", **entry_view(board, row, drawn))
    files = {name: text.encode() for name, text in texts.items()} | raw | drawn
    files["records.zip"] = _zip(raw)
    files[MANIFEST] = (canonical({"files": sorted(files)}) + "\n").encode()
    return dict(sorted(files.items()))


def _read(folder: Path) -> dict[Path, Record]:
    return {path: Record.load(path) for path in sorted(folder.rglob("*.json"))}


def _pictures(records: Mapping[Path, Record]) -> dict[str, bytes]:
    """Read the pictures beside the records; one that is not what its record says stops the build.

    A picture comes from whoever made the record, and is published: its hash and its signature are
    checked, and its name cannot lead out of the folder (see `bench.record.Picture`).
    """
    contents: dict[str, bytes] = {}
    for path, record in records.items():
        for picture in record.view.pictures if record.view else ():
            file = path.with_name(picture.file)
            if not file.is_file():
                continue
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != picture.sha256:
                raise UserError(f"{picture.file} is not the picture of {path.name}: other hash.")
            if not content.startswith(PNG):
                raise UserError(f"{picture.file} of {path.name} is no PNG file.")
            if contents.setdefault(picture.file, content) != content:
                raise UserError(f"{picture.file} of {path.name}: another picture has this name.")
    return contents


def _clear(site: Path) -> None:
    """Remove what an earlier build wrote, and nothing else."""
    manifest = site / MANIFEST
    if not manifest.is_file():
        return
    for name in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
        inside = PurePosixPath(name)
        if not inside.is_absolute() and ".." not in inside.parts:
            (site / inside).unlink(missing_ok=True)


def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _zip(files: Mapping[str, bytes]) -> bytes:
    """Pack the files without the time of packing, which would differ from build to build."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def script_json(value: Any) -> Markup:
    r"""JSON that can stand in a script element: no `<`, `>`, `&` and no line separators.

    Example:
        >>> print(script_json({"a": "</script>"}))
        {"a": "\u003c/script\u003e"}
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False)  # ASCII: U+2028 is escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _page(board: Board, row: Row) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")[:40] or "arm"
    return f"entries/{slug}-{digest([board.key, row.key])[:10]}.html"


def _board_view(board: Board) -> dict[str, Any]:
    show = Show(board.metric)
    spec = plots.board_plot(board, show)
    lines: list[dict[str, Any]] = []
    letters = ""
    for row in board.rows:
        now = row.rank.letters if row.rank else ""
        error = None if row.scores or not row.failures else row.failures[0].error
        lines.append(
            {
                "row": row,
                "page": _page(board, row),
                "opens_group": bool(lines) and not set(now) & set(letters),
                "operator": _first_line(_operator(row), 60),
                "failed": sorted(Counter(map(status_words, row.failures)).items()),
                "error": _first_line(error) if error else None,
            }
        )
        letters = now
    timed = [row for row in board.rows if plots.plotted(row)]
    return {
        "board": board,
        "show": show,
        "spec": script_json(spec) if spec else None,
        "plotted": timed,
        "left_out": [row.label for row in board.rows if row not in timed],
        "lines": lines,
        "latency_batch": _batch(row.latency for row in board.rows),
        "throughput_batch": _batch(row.throughput for row in board.rows),
        "whole_batch": _batch(row.end_to_end for row in board.rows),
        "training_batch": _batch(row.training for row in board.rows),
        "training_timed": any(row.training for row in board.rows),
        "whole_timed": any(row.end_to_end or row.untimed_end_to_end for row in board.rows),
    }


def _batch(records: Iterable[Record | None]) -> int | None:
    return next((r.speed.batch for r in records if r and r.speed), None)


def _operator(row: Row) -> str:
    entry = row.first.entry
    return " ".join(
        [entry.operator, *(f"{k}={v}" for k, v in sorted(entry.operator_options.items()))]
    )


def _first_line(text: str, length: int = 100) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= length else f"{line[: length - 1]}…"
