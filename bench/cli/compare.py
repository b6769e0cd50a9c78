"""The verb compare: which operator for this network on these images, on this machine?"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import (
    ENGINE,
    Verbs,
    add_max_skipped,
    add_records,
    add_running,
    add_slots,
    add_start,
    add_task,
    add_trust,
    records_of,
    runs_of,
)
from bench.errors import Failure, UserError, require

if TYPE_CHECKING:
    from leaderboard.rows import Board, Row

SEEDS_MAX = 3
"""Seeds of an arm at most, where no budget is given."""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "compare operators in a network on a set of images, and write the winner"
    verb = verbs.add("compare", compare, text)
    verb.add_argument(
        "host", help="a model of timm, package.module:callable, or path/to/file.py:callable"
    )
    verb.add_argument(
        "--data", dest="images", required=True, help="folder of the images, or a set of torchvision"
    )
    add_task(verb)
    add_max_skipped(verb)
    verb.add_argument("--operators", help="comma-separated; default parc,shift,acb,unireplk,icconv")
    add_slots(verb)
    add_start(verb)
    verb.add_argument("--size", metavar="HxW", help="of the images; default by the data")
    verb.add_argument("--epochs", type=int, help="of a training; default by the data")
    verb.add_argument("--budget", help="time that no round of seeds may go beyond: 30m or 2h")
    verb.add_argument(
        "--seeds-max", type=int, help="seeds of an arm at most; default 3, or 10 with --budget"
    )
    verb.add_argument("--margin", help="difference that matters; default 1pp")
    verb.add_argument(
        "--out", type=Path, help="the suite that is written; default HOST-on-DATA.yaml"
    )
    verb.add_argument("--site", type=Path, default=Path("site"), help="default: site")
    verb.add_argument("--models", type=Path, default=Path("models"), help="default: models")
    add_running(verb)
    add_records(verb)
    add_trust(verb)


def compare(options: argparse.Namespace) -> None:
    """Recognise the images, write the suite, run it until it is decided, answer in words.

    Status 1 where something failed.
    """
    from bench.cli import decide, suites
    from bench.cli.compare_suite import written
    from bench.cli.main import parser
    from bench.cli.progress import console
    from bench.config import plan as planning
    from bench.config.files import require_suite_file
    from bench.config.schema import load_suite
    from bench.host_code import is_code
    from tasks.layouts import recognise

    require_suite_file(options.out)
    if options.budget:
        decide.seconds_of(options.budget)
    if options.seeds_max is None:
        options.seeds_max = decide.SEEDS if options.budget else SEEDS_MAX
    require("--seeds-max", options.seeds_max, options.seeds_max >= 2, "at least 2")
    layout = recognise(options.images, options.task).allowing(options.max_skipped)
    os.environ["CONVBOARD_DATA"] = str(layout.folder.parent)
    console.print(f"{layout.folder.name}: {layout.sentence}.", soft_wrap=True)
    path = written(options, layout)
    shared = ["--runs", str(runs_of(options)), "--records", str(records_of(options))]
    whole = parser()[0]
    plan = whole.parse_args(["plan", str(path), *shared[:2]])
    suites.plan(plan)
    bench_again = ["convboard", "bench", str(path), "--data", str(layout.folder.parent)]
    bench_again += ["--runs", str(options.runs)] if options.runs else []
    bench_again += ["--records", str(options.records)] if options.records else []
    bench_again += [word for file in options.plugin or [] for word in ("--plugin", str(file))]
    again = shlex.join([*bench_again, *(["--trust"] if is_code(options.host) else [])])
    console.print(f"The suite is {path}; the same run: {again}", soft_wrap=True)
    line = ["decide", str(path), *shared, "--seeds-max", str(options.seeds_max)]
    line += ["--budget", options.budget] if options.budget else []
    line += ["--margin", options.margin] if options.margin else []
    bench = whole.parse_args(["bench", str(path), *shared, "--out", str(options.site)])
    deciding = whole.parse_args(line)
    for given in (bench, deciding):
        given.line, given.stale = options.line, options.stale
        for name in ENGINE:
            setattr(given, name, getattr(options, name))
    lost = decide.decided(deciding)
    ended_well = suites.shown(bench) and not lost
    planned = {cell.hash for cell in planning.plan(str(path))}
    _answer(options, load_suite(str(path)).name, planned)
    if not ended_well:
        sys.exit(1)


def _answer(options: argparse.Namespace, suite: str, planned: Collection[str]) -> None:
    """Say of each board of the suite what came of it, and write the network that leads.

    Boards without any of the cells that are planned are those of an earlier comparison.
    """
    from bench.cli.progress import console
    from bench.record import load_all
    from leaderboard.board import boards
    from leaderboard.standing import standing

    records = [r for r in load_all(records_of(options)) if r.provenance.suite == suite]
    for board in boards(records):
        own = {r.provenance.cell for row in board.rows for r in (*row.records, *row.superseded)}
        if own.isdisjoint(planned):
            continue
        card = standing(board).card
        console.print(f"\n{board.title}: {card.text}", soft_wrap=True)
        if board.detectable_words:
            console.print(board.detectable_words, soft_wrap=True)
        lead = next((row for row in board.rows if row.key == card.lead), None)
        if lead is not None and lead.scores:
            _write_winner(options, board, lead)


def _write_winner(options: argparse.Namespace, board: Board, row: Row) -> None:
    """Write the network of an arm's best seed, and the lines that load it."""
    from importlib.util import find_spec

    from bench.cli.progress import console
    from bench.run.export_model import export_cell
    from bench.run.suite import hush
    from bench.run.winner import write_lines
    from bench.store import Store
    from leaderboard.names import slug

    hush()
    higher = board.metric is None or board.metric.higher_is_better
    best = (max if higher else min)(row.scores, key=lambda seed: row.scores[seed])
    record = next(r for r in row.records if r.recipe and r.recipe.seed == best)
    store = Store(runs_of(options))
    run = store.of_cell(str(record.provenance.cell))
    if run is None:
        console.print(f"{row.label}: its weights lie in another runs folder.", markup=False)
        return
    formats: list[Any] = ["safetensors"]
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        formats.append("onnx")
    else:
        console.print("No ONNX file: pip install 'convboard[onnx]' adds it.")
    name = f"{slug(row.label)}-{run.cell[:8]}"
    for form in formats:
        try:
            for made in export_cell(store, run, [form], options.models, name):
                console.print(made.words, soft_wrap=True)
        except (Failure, UserError) as error:  # what cannot be exported leaves the other files
            console.print(str(error), soft_wrap=True)
    console.print(
        f"How to load it: {write_lines(options.models, name, options.host)}", soft_wrap=True
    )
