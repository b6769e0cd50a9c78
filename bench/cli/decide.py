"""The verb decide: seeds are added where they can change the answer, until it stands."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cli.arguments import (
    Verbs,
    add_choice,
    add_records,
    add_running,
    choice_of,
    records_of,
    runs_of,
)
from bench.errors import Failure, UserError, require

if TYPE_CHECKING:
    from bench.config.cell import Cell
    from bench.record import Data, Record
    from bench.run.decide import Contest
    from bench.run.executor import Executor
    from bench.statistics.blocks import Scores
    from bench.statistics.decide import Decision
    from bench.store import Kept

SEEDS = 10


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    verb = verbs.add("decide", decide, "add seeds to a suite's boards until they are decided")
    add_choice(verb)
    add_running(verb)
    add_records(verb)
    verb.add_argument("--budget", help="time that no round may go beyond, e.g. 30m or 2h")
    verb.add_argument(
        "--seeds-max",
        type=int,
        default=SEEDS,
        help=f"seeds of an arm at most; default {SEEDS}. Choose it once: the tests allow for the "
        "looks of one such plan, and each other plan adds its own risk of a wrong answer",
    )
    verb.add_argument(
        "--margin", help="difference that matters: 1pp (the default), or in the metric's unit"
    )


def decide(options: argparse.Namespace) -> None:
    """Run rounds of whole seeds over the arms still in play, until the answer stands.

    Status 1 where a cell failed. It goes on where it was.
    """
    if decided(options):
        sys.exit(1)


def decided(options: argparse.Namespace) -> int:
    """Do so; return how many cells failed."""
    from bench.cli.progress import console
    from bench.cli.suites import executor_of, run_shown, tell_absent, tell_unfit
    from bench.config.plan import each_arm, plan
    from bench.config.schema import load_suite
    from bench.run import decide as deciding
    from bench.run import suite
    from bench.run.cell import keep_unfit
    from bench.run.fits import unfit
    from bench.run.states import states
    from bench.store import Store

    until = time.monotonic() + seconds_of(options.budget) if options.budget else None
    whole = load_suite(options.suite)
    require("--seeds-max", options.seeds_max, options.seeds_max >= 2, "at least 2")
    choice = replace(choice_of(options), seeds_max=options.seeds_max)
    cells = plan(options.suite, choice)
    tell_absent(cells)
    if all(cell.absent for cell in cells):
        raise Failure(f"{whole.name}: none of its data are there, so there is nothing to run.")
    reasons = unfit(cell for cell in cells if not cell.absent)
    tell_unfit(cells, reasons)
    without = [cell for cell in cells if cell.hash in reasons]
    fitting = _contested([c for c in cells if c.hash not in reasons], without)
    boards = deciding.contests(fitting, options.margin)
    executor = executor_of(options, fitting, whole.timeout_minutes)
    store = Store(runs_of(options))
    store.require_writable()
    stale = sum(state == "stale" for state in states(cells, store).values())
    if stale and not options.stale:
        console.print(f"{stale} of the results are of older code; --stale runs them again.")
    trained = [cell for board in boards for cell in board.cells.values()]
    data = suite.preflight([*trained, *without], reasons)
    kept = store.kept()
    _require_same_data(trained, kept, data)
    for cell, *_ in each_arm(without).values():  # one row says it for all the seeds to come
        keep_unfit(cell, store.folder, options.line, reasons[cell.hash], data.get(cell.hash))
    failed: dict[str, set[str]] = {board.key: set() for board in boards}
    losses = 0
    while True:
        faster = _faster(boards, kept, options)
        now = {
            board.key: deciding.judged(
                board,
                kept,
                failed=failed[board.key],
                faster=faster.get(board.key, set()),
                again=options.stale,
            )
            for board in boards
        }
        for board in boards:
            for record in deciding.keep(board, now[board.key], store, kept, options.line):
                _tell_arm(board, record)
        left = [board.cells[key] for board in boards for key in now[board.key].wanted]
        if not left:
            break
        if until is not None and _too_long(boards, kept, _turns(executor, len(left)), until):
            console.print(f"The budget ({options.budget}) is spent.")
            break
        lost = run_shown(left, options, executor, data)
        losses += len(lost)
        for board in boards:
            mine = {cell.hash for cell in board.cells.values()}
            failed[board.key] |= {cell.operator for cell in lost if cell.hash in mine}
        kept = store.kept()
    kept = store.kept()
    for board in boards:
        deciding.keep(board, now[board.key], store, kept, options.line, over=True)
        _tell(board, now[board.key], board.scores(kept, again=options.stale))
        _tell_plans(board, deciding.plans(board, kept))
    return losses + (bool(without) and not boards)


def _contested(cells: Sequence[Cell], without: Sequence[Cell]) -> list[Cell]:
    """Return the cells of boards on which two arms or more fit; tell of the other boards."""
    from bench.cli.progress import console

    arms: dict[str, set[str]] = {}
    for cell in cells:
        arms.setdefault(cell.board, set()).add(cell.operator)
    for name in {c.board: c.board_name for c in without if len(arms.get(c.board, ())) < 2}.values():
        words = f"{name}: fewer than two arms fit, so there is nothing to decide."
        console.print(words, markup=False, soft_wrap=True)
    lacking = {cell.board for cell in without}
    return [c for c in cells if c.board not in lacking or len(arms[c.board]) > 1]


def _require_same_data(
    cells: Sequence[Cell], kept: Mapping[str, Kept], data: Mapping[str, Data]
) -> None:
    """UserError where a cell is done, and was trained on other files of the same name."""
    from bench.store import DATA

    for cell in cells:
        run, now = kept.get(cell.hash), data.get(cell.hash)
        if run is None or not run.done or now is None:
            continue
        if run.tags.get(DATA, now.files_sha256) != now.files_sha256:
            raise UserError(
                f"`{now.name}`: {cell.title} was run on other files of that name. Give the folder "
                "another name, or choose another runs folder with --runs."
            )


def seconds_of(text: str) -> float:
    """Return a time such as 30m, 2h or 90s in seconds; a number alone is minutes.

    Example:
        >>> seconds_of("30m"), seconds_of("1.5h"), seconds_of("90s"), seconds_of("2")
        (1800.0, 5400.0, 90.0, 120.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UserError(f"`--budget` (={text!r}) must be a time such as 30m, 2h or 90s.")
    return float(match[1]) * {"s": 1, "m": 60, "": 60, "h": 3600}[match[2]]


def _turns(executor: Executor, cells: int) -> int:
    """How many of so many cells run one after the other; SLURM is handed all where none is said."""
    from bench.run.on_slurm import OnSlurm

    at_a_time = (executor.most or cells) if isinstance(executor, OnSlurm) else executor.workers
    return math.ceil(cells / at_a_time)


def _too_long(
    boards: Sequence[Contest], kept: Mapping[str, Kept], turns: int, until: float
) -> bool:
    """Whether so many more cells, one after the other, would end after a moment."""
    from bench.run.decide import spent_seconds

    seconds = spent_seconds(boards, kept)
    return seconds is not None and time.monotonic() + seconds * turns > until


def _faster(
    boards: Sequence[Contest], kept: Mapping[str, Kept], options: argparse.Namespace
) -> dict[str, set[tuple[str, str]]]:
    """Return of each board the pairs of arms of which the one is surely faster, where timed."""
    from bench.record import load_all
    from bench.store import Store
    from bench.store.export import export
    from leaderboard.board import boards as boards_of
    from leaderboard.times import choices, faster, ratios

    export(Store(runs_of(options)), records_of(options))
    home = {cell.hash: (b.key, arm) for b in boards for (arm, _), cell in b.cells.items()}
    pairs: dict[str, set[tuple[str, str]]] = {}
    for board in boards_of(load_all(records_of(options))):
        names = {
            row.key: home[record.provenance.cell]
            for row in board.rows
            for record in row.records
            if record.provenance.cell in home
        }
        for choice in choices(board)[:1]:
            for one, other in faster(ratios(board, choice)):
                if one in names and other in names:
                    pairs.setdefault(names[one][0], set()).add((names[one][1], names[other][1]))
    return pairs


def _tell_arm(board: Contest, record: Record) -> None:
    """Say that an arm runs no more, as soon as it is known."""
    from bench.cli.progress import console
    from leaderboard.decided import words
    from leaderboard.show import Show

    if record.decision is not None and record.decision.outcome in ("worse", "beaten"):
        why = words(record.decision, Show(board.metric))
        console.print(f"{board.title}: {record.entry.label} stopped {why}.", soft_wrap=True)


def _tell_plans(board: Contest, plans: Collection[int]) -> None:
    """Say by how much the risk grew where a board was judged by several plans."""
    from bench.cli.progress import console
    from leaderboard.wording import listed

    if len(plans) > 1:
        console.print(
            f"{board.title}: judged with --seeds-max {listed([str(most) for most in plans])}. The "
            f"tests of each allow for its own looks alone: that a wrong arm is called the best has "
            f"a risk of up to {len(plans) * board.plan.risk:.0%}, not {board.plan.risk:.0%}.",
            markup=False,
            soft_wrap=True,
        )


def _tell(board: Contest, decision: Decision, scores: Scores) -> None:
    """Say how a board ended, and what it cost."""
    from bench.cli.progress import console
    from bench.statistics.decide import seeds_to_settle
    from leaderboard.show import Show
    from leaderboard.wording import counted, listed

    show, best = Show(board.metric), decision.best
    cells = sum(len(by_seed) for by_seed in scores.values())
    equal = len(scores) * max((len(by_seed) for by_seed in scores.values()), default=0)
    cost = f" {cells} cells; with equal seeds {equal}."
    if best is None:
        console.print(f"{board.title}: nothing is known yet.{cost}", soft_wrap=True)
        return
    if show.nothing_learnt(scores.values()):
        text = "nothing was learnt: every score is 0. Longer training may help"
        console.print(f"{board.title}: {text}.{cost}", soft_wrap=True)
        return
    after = counted(decision.rounds, "seed")
    if decision.ended == "best":
        text = f"{best} is surely the best, after {after}."
    elif decision.ended == "same":
        verb = "is" if len(decision.same) == 1 else "are"
        margin = show.amount(board.plan.margin)
        text = f"{best} leads, and {listed(decision.same)} {verb} surely within {margin} of it, "
        text += f"after {after}."
    else:
        text = f"not decided after {after}: {best} leads"
        if decision.open:
            text += f"; {listed(decision.open)} can't be told from it"
            seeds = seeds_to_settle(scores, board.plan, decision)
            about = f"about {seeds}" if seeds else "more than a thousand"
            text += f", {about} seeds would settle it"
        text += "."
    console.print(f"{board.title}: {text}{cost}", soft_wrap=True)
