"""The verbs of a suite: plan, run, and bench, which also times it and shows the results."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.cli.arguments import (
    Verbs,
    add_choice,
    add_records,
    add_running,
    add_site,
    choice_of,
    engine_of,
    runs_of,
)
from bench.errors import Failure, UserError, require

if TYPE_CHECKING:
    from bench.config.cell import Cell
    from bench.record import Data, Record
    from bench.run.executor import Executor
    from bench.run.suite import Step
    from bench.store import Kept


IMAGES_SEEN = 8
"""Images over which `bench` takes a receptive field; `erf` takes 16."""
UNFIT = "does not fit"
"""What is said of a cell whose operator has no slot in its host."""


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    text = "run a suite, time it, export its records, write the site"
    verb = verbs.add("bench", bench, text)
    add_choice(verb)
    add_running(verb)
    add_records(verb)
    add_site(verb)
    verb = verbs.add("plan", plan, "show the cells of a suite, which are done, and what is left")
    add_choice(verb)
    verb.add_argument("--machines", type=int, default=1, help="estimate for so many machines")
    verb.add_argument("--workers", type=int, default=None, help="with so many cells on each")
    text = "what a GPU reaches in training, in 10¹² operations a second, for the GPU hours"
    verb.add_argument("--tflops", type=float, default=None, help=text)
    verb = verbs.add("run", run, "run the cells of a suite that are not done")
    add_choice(verb)
    add_running(verb)


def plan(options: argparse.Namespace) -> None:
    """Show the cells of a suite and which are done."""
    from rich.table import Table

    from bench.cli.hours import tell_gpu_hours
    from bench.cli.progress import console
    from bench.config.plan import plan
    from bench.run.fits import unfit
    from bench.run.states import TO_RUN, states
    from bench.store.glance import look

    for flag in ("machines", "workers"):
        value = getattr(options, flag)
        require(f"--{flag}", value, value is None or value > 0, "at least 1")
    require("--tflops", options.tflops, options.tflops is None or options.tflops > 0, "> 0")
    cells = plan(options.suite, choice_of(options))
    reasons = unfit(cell for cell in cells if not cell.absent)
    store = look(runs_of(options), wait_s=15)
    state = states(cells, store, reasons)
    reasons = {key: why for key, why in reasons.items() if state[key] == "unfit"}
    table = Table("cell", "task", "host", "operator", "recipe", "seed", "state", box=None)
    for cell in cells:
        name = cell.operator + (" (baseline)" if cell.baseline else "")
        row = (cell.hash, cell.task, cell.host, name, cell.recipe, str(cell.seed))
        table.add_row(*row, UNFIT if state[cell.hash] == "unfit" else state[cell.hash])
    console.print(table)
    tell_unfit(cells, reasons)
    kept = store.kept()
    for cell in cells:
        if state[cell.hash] == "failed":
            why = kept[cell.hash].tags.get("error", "").partition("\n")[0]
            console.print(f"failed before: {cell.title}: {why}", soft_wrap=True)
    waiting = [cell for cell in cells if state[cell.hash] in TO_RUN]
    left = len(waiting)
    stale = sum(state[cell.hash] == "stale" for cell in cells)
    more = f" {stale} are of older code; `run --stale` runs them again." if stale else ""
    console.print(f"{len(cells)} cells, {left} to run.{more}")
    tell_gpu_hours(cells, options.tflops)
    tell_estimate(waiting, cells, kept, options)


def tell_estimate(
    waiting: Sequence[Cell],
    cells: Sequence[Cell],
    kept: Mapping[str, Kept],
    options: argparse.Namespace,
) -> None:
    """Say what the cells that are to run will take, by earlier runs; nothing where none is like."""
    from bench.cli.progress import console, duration
    from bench.run.estimate import estimates, makespan
    from bench.run.processes import default_workers

    found = estimates(waiting, cells, kept)
    if not found:
        return
    workers = options.workers or default_workers()
    seconds = [estimate.seconds for estimate in found.values()]
    whole = makespan(seconds, options.machines * workers)
    where = f"{options.machines} machines" if options.machines > 1 else "this machine"
    words = f"By earlier runs, {len(found)} of them train for {duration(sum(seconds))} in all: "
    words += f"{duration(whole)} on {where} with {workers} at a time"
    memory = [e.memory_bytes for e in found.values() if e.memory_bytes is not None]
    gpu = [e.gpu_memory_bytes for e in found.values() if e.gpu_memory_bytes is not None]
    words += f"; each holds up to {max(memory) / 2**30:.1f} GiB" if memory else ""
    words += f" and {max(gpu) / 2**30:.1f} GiB of a GPU's" if gpu else ""
    console.print(f"{words}.", soft_wrap=True)


def run(options: argparse.Namespace) -> None:
    """Run the cells of a suite that are not done; status 1 where one failed."""
    if _run(options):
        sys.exit(1)


def bench(options: argparse.Namespace) -> None:
    """Run a suite, time it, export its records and write the site; each although one before fails.

    Status 1 where something failed.
    """
    failed = _run(options) > 0
    if not shown(options) or failed:
        sys.exit(1)


def shown(options: argparse.Namespace) -> bool:
    """Time a suite, draw what it sees, export its records and write the site.

    Return whether all went well; pictures that cannot be drawn are told of, and fail nothing.
    """
    from bench.cli.publish import export_records, site
    from bench.cli.speed import time_target

    failed = False
    try:
        failed = time_target(options) > 0
    except Exception as error:
        words = str(error)
        if not isinstance(error, (UserError, Failure)):
            traceback.print_exc()
            words = f"{type(error).__name__}: {words}"
        print(f"speed: {words}; the records are exported all the same.")
        failed = True
    _draw(options)
    exported = export_records(options)
    if exported.records:
        site(options)
    return not failed and not exported.faults


def _draw(options: argparse.Namespace) -> None:
    """Draw what one seed of each arm sees and predicts, where it was not drawn before."""
    from bench.analysis import views
    from bench.cli.progress import Bar
    from bench.config.plan import plan
    from bench.run.suite import hush
    from bench.store import Store

    store = Store(runs_of(options))
    left = views.unseen(plan(options.suite, choice_of(options)), store)
    if not left:
        return
    hush()
    with Bar("pictures", len(left)) as bar:
        for cell, run in left:
            try:
                views.see(store, cell, run, options.line, images=IMAGES_SEEN)
            except Exception as error:
                bar.print(f"no picture of {cell.title}: {type(error).__name__}: {error}")
            bar.step()


def _run(options: argparse.Namespace) -> int:
    """Run the cells that are not done; return how many failed."""
    from bench.cli.progress import console
    from bench.config.plan import plan
    from bench.config.schema import load_suite
    from bench.run.fits import unfit
    from bench.run.states import TO_RUN, states
    from bench.store.glance import look

    whole = load_suite(options.suite)
    cells = plan(options.suite, choice_of(options))
    folder = runs_of(options)
    no_slot = unfit(cell for cell in cells if not cell.absent)
    state = states(cells, look(folder, wait_s=60), no_slot)
    reasons = {key: why for key, why in no_slot.items() if state[key] == "unfit"}
    wanted = (*TO_RUN, "stale") if options.stale else TO_RUN
    chosen = [cell for cell in cells if state[cell.hash] in wanted]
    left = [cell for cell in chosen if cell.hash not in no_slot]
    # what was done before by code that fitted is not run again by code that does not
    outgrown = {cell.hash: no_slot[cell.hash] for cell in chosen if cell.hash in no_slot}
    done = sum(state[cell.hash] in ("done", "stale") for cell in cells)
    stale = sum(state[cell.hash] == "stale" for cell in cells)
    more = f", {stale} of them by older code" if stale else ""
    console.print(f"{whole.name}: {len(cells)} cells, {done} done before{more}.")
    tell_absent(cells)
    if all(state[cell.hash] == "absent" for cell in cells):
        raise Failure(f"{whole.name}: none of its data are there, so there is nothing to run.")
    tell_unfit(cells, reasons | outgrown)
    without = [cell for cell in cells if cell.hash in reasons]
    if not left and not without:
        return 0
    from bench.run import suite
    from bench.run.cell import keep_unfit
    from bench.store import Store

    executor = executor_of(options, left, whole.timeout_minutes)
    store = Store(folder)
    store.require_writable()
    data = suite.preflight([*left, *without], reasons)
    for cell in without:
        keep_unfit(cell, folder, options.line, reasons[cell.hash], data.get(cell.hash))
    failed = run_shown(left, options, executor, data) if left else []
    kept = store.kept()
    _print_means(cells, kept, reasons)
    _print_learnt(cells, kept)
    return len(failed) + (len(without) == len(cells))


def executor_of(
    options: argparse.Namespace, cells: Sequence[Cell], timeout_minutes: float
) -> Executor:
    """Return what will run cells, when it has said that it can."""
    from bench.run.engines import most_needs

    folder = runs_of(options)
    executor = engine_of(options).executor(folder, timeout_minutes)
    executor.require_ready(folder, most_needs(cells))
    return executor


def run_shown(
    left: Sequence[Cell],
    options: argparse.Namespace,
    executor: Executor,
    data: Mapping[str, Data],
) -> list[Cell]:
    """Run cells and show what becomes of them; return those that failed."""
    from bench.cli.progress import Bar
    from bench.run import suite
    from bench.run.curve import fraction

    folder = runs_of(options)
    running: dict[str, Cell] = {}

    def under_way() -> float:
        return sum(fraction(folder / "cells" / cell) for cell in list(running))

    failed = []
    with Bar("cells", len(left), under_way) as bar:
        for step in suite.run_cells(
            left,
            folder,
            options.line,
            executor=executor,
            data=data,
            again=options.stale,
        ):
            if step.kind == "started":
                running[step.cell.hash] = step.cell
                continue
            running.pop(step.cell.hash, None)
            bar.print(_line(step))
            if step.kind == "ended":
                if step.failed:
                    failed.append(step.cell)
                bar.step()
    return failed


def _line(step: Step) -> str:
    """Say in a line what became of a cell."""
    if step.record is not None:
        return line_of(step.cell, step.record) + (f" ({step.words})" if step.words else "")
    return f"{'error' if step.failed else 'ok'} {step.cell.title}: {step.words}"


def tell_absent(cells: Sequence[Cell]) -> None:
    """Say which cells are left out because their data are not there, and what would help."""
    from bench.cli.progress import console

    for task, where in sorted({(cell.task, cell.absent) for cell in cells if cell.absent}):
        console.print(
            f"{task} is left out: its data are not in {where}; --data says where sets lie.",
            soft_wrap=True,
        )


def tell_unfit(cells: Sequence[Cell], reasons: Mapping[str, str]) -> None:
    """Say which arms have no slot in their host, why, and what would help; once for all seeds."""
    from bench.cli.progress import console

    told = dict.fromkeys((c.host, c.operator, reasons[c.hash]) for c in cells if c.hash in reasons)
    for host, operator, why in told:
        console.print(f"{UNFIT}: {host} · {operator}: {why}", soft_wrap=True)
    for host in dict.fromkeys(host for host, _, _ in told):
        console.print(f"`convboard slots {host}` shows what fits where.", soft_wrap=True)


def line_of(cell: Cell, record: Record) -> str:
    """Say in a line how a cell ended."""
    if record.accuracy is None:
        return f"{record.status} {cell.title}: {record.error}"
    name = record.accuracy.headline
    value = record.accuracy.metrics[name].value
    seconds = record.recipe.train_seconds if record.recipe else None
    after = f" in {seconds:.0f} s" if seconds is not None else ""
    if (carried := record.entry.slots_carried) is not None:
        after += f", {carried} of {record.entry.slots_swapped} slots with the host's weights"
    return f"{record.status} {cell.title}: {name} {value:.4f}{after}"


def _print_learnt(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> None:
    """Say of each board whether its baseline has learnt the task; else the board says little."""
    from bench.cli.progress import console
    from bench.run.suite import learnt

    for board in learnt(cells, kept):
        word = "learnt" if board.mean >= board.wanted else "not learnt"
        console.print(
            f"{word}: {board.task} · {board.host},",
            f"{board.metric} of the baseline {board.mean:.4f}, at least {board.wanted:g} wanted",
        )


def _print_means(
    cells: Sequence[Cell], kept: Mapping[str, Kept], unfit: Mapping[str, str] | None = None
) -> None:
    """Print the mean over seeds of each operator's headline, board by board."""
    from rich.table import Table

    from bench.cli.progress import console

    table = Table("task", "host", "operator", "headline", "mean over seeds", "seeds", box=None)
    scores: dict[tuple[str, str], list[float]] = {}
    arms: dict[tuple[str, str], tuple[Cell, str]] = {}
    for cell in cells:
        ended = kept.get(cell.hash)
        name = ended.tags.get("headline") if ended is not None and ended.done else None
        value = ended.metrics.get(f"final/{name}") if ended is not None else None
        if name is not None and value is not None:
            arm = (cell.board, cell.operator)
            arms.setdefault(arm, (cell, name))
            scores.setdefault(arm, []).append(value)
    for arm, values in scores.items():
        cell, name = arms[arm]
        mean = sum(values) / len(values)
        table.add_row(cell.task, cell.host, cell.operator, name, f"{mean:.4f}", str(len(values)))
    arms_without = dict.fromkeys(
        (cell.task, cell.host, cell.operator) for cell in cells if cell.hash in (unfit or {})
    )
    for arm_without in arms_without:
        table.add_row(*arm_without, "", UNFIT, "")
    console.print(table)
