"""The verb that runs a record's cell once more: reproduce."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import Verbs, add_data, runs_of
from bench.errors import Failure, UserError, require

if TYPE_CHECKING:
    from bench.run.reproduce import Difference, Reproduced


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "run a record's cell once more, and say whether its score comes out again"
    verb = verbs.add("reproduce", reproduce, text)
    verb.add_argument("record", type=Path, metavar="RECORD", help="file of an accuracy record")
    add_data(verb)
    verb.add_argument(
        "--workers",
        type=int,
        default=None,
        help="that the first run had: they shared the cores out, and sums hang on threads",
    )


def reproduce(options: argparse.Namespace) -> None:
    """Run the cell and tell; status 1 where the score is neither equal nor within the interval."""
    from bench.cli.progress import console
    from bench.record import Record
    from bench.run import reproduce, suite
    from bench.run.processes import default_workers

    require(
        "--workers", options.workers, options.workers is None or options.workers >= 1, "at least 1"
    )
    if not options.record.is_file():
        raise UserError(f"`record` (={str(options.record)!r}) must be the file of a record.")
    record = Record.load(options.record)
    cell = reproduce.cell_of(record)
    data = suite.preflight([cell]).get(cell.hash)
    known = reproduce.known_before(record, cell, data)
    console.print(f"{cell.title}, of {record.provenance.created[:16]}", soft_wrap=True)
    for difference in known:
        console.print(_line(difference), soft_wrap=True)
    workers = options.workers or default_workers()
    new = reproduce.reproduce(cell, runs_of(options), options.line, workers, data)
    result = reproduce.compare(record, new, known)
    for difference in result.differences[len(known) :]:
        console.print(_line(difference), soft_wrap=True)
    words = _verdict(result)
    if not (result.equal or result.within):
        raise Failure(words)
    console.print(words, soft_wrap=True)


def _line(difference: Difference) -> str:
    return f"  differs: {difference.what}: {difference.before} → {difference.now}"


def _verdict(result: Reproduced) -> str:
    """Return in words whether the score came out again."""
    words = f"{result.metric}: {result.before:.6g} in the record, {result.now:.6g} now: "
    interval = result.interval
    count = len(result.differences)
    given = f"; {count} things differ" if count > 1 else "; one thing differs" if count else ""
    if result.equal:
        return f"{words}equal{given}."
    if interval is None:
        return f"{words}not equal, and the record has no interval to judge by{given}."
    where = "within" if result.within else "outside"
    bounds = f"[{interval.low:.6g}, {interval.high:.6g}]"
    return f"{words}{where} its {interval.level:.0%} interval {bounds} ({interval.method}){given}."
