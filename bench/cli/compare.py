"""The verb compare: which operator for this network on these images, on this machine?"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import (
    ENGINE,
    Verbs,
    add_records,
    add_running,
    add_slots,
    add_start,
    add_task,
    add_trust,
    records_of,
    runs_of,
    size_of,
    split,
    where_of,
)
from bench.errors import Failure, UserError

if TYPE_CHECKING:
    from bench.config.schema import HostConfig
    from leaderboard.rows import Board, Row
    from tasks.layouts import Layout

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
    verb.add_argument("--operators", help="comma-separated; default parc,shift,acb,unireplk,icconv")
    add_slots(verb)
    add_start(verb)
    verb.add_argument("--size", metavar="HxW", help="of the images; default by the data")
    verb.add_argument("--epochs", type=int, help="of a training; default by the data")
    verb.add_argument("--budget", help="time that no round of seeds may go beyond: 30m or 2h")
    verb.add_argument("--seeds-max", type=int, help="seeds of an arm at most; default 3, or 10")
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
    from bench.cli.main import parser
    from bench.cli.progress import console
    from bench.config import plan as planning
    from bench.config.schema import load_suite
    from bench.host_code import is_code
    from tasks.layouts import recognise

    layout = recognise(options.images, options.task)
    os.environ["CONVBOARD_DATA"] = str(layout.folder.parent)
    console.print(f"{layout.folder.name}: {layout.sentence}.", soft_wrap=True)
    path = _written(options, layout)
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
    most = options.seeds_max or (decide.SEEDS if options.budget else SEEDS_MAX)
    line = ["decide", str(path), *shared, "--seeds-max", str(most)]
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


def _written(options: argparse.Namespace, layout: Layout) -> Path:
    """Write the suite; return its path."""
    import torch
    import yaml

    from bench.cli.progress import console
    from bench.config import comparison
    from bench.config.plan import Choice
    from bench.config.schema import load_host
    from bench.whole_files import write_whole
    from leaderboard.wording import counted

    host = load_host(options.host)
    host = Choice(pretrained=options.pretrained, weights=options.weights).started(host)
    gpu = torch.cuda.is_available()
    size = (
        size_of(options.size)
        if options.size
        else comparison.size_for(layout.task, layout.typical_size, gpu=gpu)
    )
    if layout.task == "classification" and size[0] != size[1]:
        raise UserError(
            f"`--size` (={options.size!r}) must be one number: classification sees squares."
        )
    if options.epochs is not None and options.epochs < 1:
        raise UserError(f"`--epochs` (={options.epochs}) must be at least 1.")
    names = split(options.operators) if options.operators else list(comparison.OPERATORS)
    maps = layout.task != "classification"
    where, arms = _arms(options, host, names, size, maps=maps)
    wish = comparison.Wish(
        host=host.model_dump(exclude_defaults=True, exclude={"description"}),
        operators=arms,
        where=where,
        size=size,
        epochs=options.epochs,
    )
    suite = comparison.suite_of(layout, wish, gpu=gpu)
    path = options.out or Path(f"{suite['name']}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"`--out` (={str(path)!r}) must end in .yaml.")
    write_whole(path, yaml.safe_dump(suite, sort_keys=False, allow_unicode=True))
    board = suite["boards"][0]["set"]
    height, width = size
    console.print(
        f"{options.host}: {_slots_in_words(where)}, images of {height}×{width}, "
        f"{counted(board['trainer']['max_epochs'], 'epoch')} in batches of "
        f"{board['data']['init_args']['batch_size']}, against the network as it is.",
        soft_wrap=True,
    )
    return path


def _arms(
    options: argparse.Namespace,
    host: HostConfig,
    names: Sequence[str],
    size: tuple[int, int],
    *,
    maps: bool,
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the slots that are meant, and the arms; those mixed that fit in no other way."""
    from bench.backbones import build, find_slots
    from bench.backbones.fits import refusals
    from bench.backbones.select import select
    from bench.cli.progress import console
    from bench.config.network import options_of
    from bench.config.schema import load_operator
    from bench.config.trust import refuse_code

    refuse_code({"host": host.host})
    model = build(host.host, host_options=host.host_options, input_size=size, features_only=maps)
    slots = find_slots(model, size)
    where = where_of(options) or _late(slot.stage for slot in slots)
    slots = select(slots, where)
    arms, fitting = [], False
    for name in dict.fromkeys(names):
        arm = load_operator(name).laid_over(None, options.mix)
        assert arm.operator is not None
        given = options_of(arm)
        refused = refusals(model, slots, arm.operator, mix=arm.mix, options=given)
        if len(refused) == len(slots) and arm.mix is None:
            refused = refusals(model, slots, arm.operator, mix="pointwise", options=given)
            if len(refused) < len(slots):
                arm = arm.laid_over(None, "pointwise")
                console.print(f"{name} is depthwise: a 1×1 convolution stands behind it (mix).")
        fitting = fitting or len(refused) < len(slots)
        arms.append(arm.model_dump(exclude_defaults=True, exclude={"description", "tune"}))
    if not fitting:
        raise UserError(
            f"`--operators` (={','.join(names)!r}): none fits the {len(slots)} slots chosen; "
            f"`convboard slots {options.host}` shows what fits where."
        )
    return where, arms


def _late(stages: Any) -> dict[str, Any] | None:
    """Return the selection of the last two stages, where a host has them: cheap to replace."""
    late = sorted({stage for stage in stages if stage in (3, 4)})
    return {"stages": late} if late else None


def _slots_in_words(where: dict[str, Any] | None) -> str:
    if where is None:
        return "every slot that an operator fits"
    said = ", ".join(f"{key} {value}" for key, value in where.items())
    return f"slots of {said} (--where changes it)"


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
