"""The verbs of a suite: plan, run, speed, and bench, which does it all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.cli.arguments import (
    Verbs,
    add_choice,
    add_records,
    add_site,
    add_workers,
    choice_of,
    runs_of,
)

if TYPE_CHECKING:
    from bench.config.plan import Cell
    from bench.record import Record
    from bench.store import Kept


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    text = "run a suite, time it, export its records, write the site"
    verb = verbs.add("bench", bench, text)
    add_choice(verb)
    add_workers(verb)
    add_records(verb)
    add_site(verb)
    add_choice(verbs.add("plan", plan, "show the cells of a suite and which are done"))
    verb = verbs.add("run", run, "run the cells of a suite that are not done")
    add_choice(verb)
    add_workers(verb)
    text = "measure the speed of a suite's operators, all arms interleaved"
    add_choice(verbs.add("speed", speed, text))


def plan(options: argparse.Namespace) -> None:
    """Show the cells of a suite and which are done."""
    from rich.table import Table

    from bench.cli.progress import console
    from bench.config.plan import plan
    from bench.run.suite import state
    from bench.store import Store

    cells = plan(options.suite, choice_of(options))
    kept = Store(runs_of(options)).kept()
    table = Table("cell", "task", "host", "operator", "recipe", "seed", "state", box=None)
    for cell in cells:
        name = cell.operator + (" (baseline)" if cell.baseline else "")
        row = (cell.hash, cell.task, cell.host, name, cell.recipe, str(cell.seed))
        table.add_row(*row, state(cell, kept))
    console.print(table)
    left = sum(state(cell, kept) not in ("done", "absent") for cell in cells)
    console.print(f"{len(cells)} cells, {left} to run.")


def run(options: argparse.Namespace) -> None:
    """Run the cells of a suite that are not done; status 1 where one failed."""
    if _run(options):
        sys.exit(1)


def bench(options: argparse.Namespace) -> None:
    """Run a suite, time it, export its records and write the site."""
    from bench.cli.publish import export, site

    failed = _run(options)
    failed += _speed(options)
    if export(options):
        site(options)
    if failed:
        sys.exit(1)


def _run(options: argparse.Namespace) -> int:
    """Run the cells that are not done; return how many failed."""
    from bench.cli.progress import Bar, console
    from bench.config.plan import plan
    from bench.config.schema import load_suite
    from bench.run import suite
    from bench.store import Store

    folder = runs_of(options)
    whole = load_suite(options.suite)
    cells = plan(options.suite, choice_of(options))
    kept = Store(folder).kept()
    states = {cell.hash: suite.state(cell, kept) for cell in cells}
    left = [cell for cell in cells if states[cell.hash] not in ("done", "absent")]
    done = sum(state == "done" for state in states.values())
    console.print(f"{whole.name}: {len(cells)} cells, {done} done before.")
    _tell_absent(cells)
    if not left:
        return 0
    suite.preflight(left)
    running: dict[str, Cell] = {}

    def under_way() -> float:
        return sum(suite.fraction(cell, folder) for cell in list(running.values()))

    failed = 0
    with Bar("cells", len(left), under_way) as bar:
        for step in suite.run_cells(
            left,
            folder,
            options.line,
            workers=options.workers or suite.default_workers(),
            timeout_minutes=whole.timeout_minutes,
        ):
            if step.record is None:
                running[step.cell.hash] = step.cell
                continue
            running.pop(step.cell.hash, None)
            failed += step.failed
            bar.print(line_of(step.cell, step.record))
            bar.step()
    kept = Store(folder).kept()
    _print_means(cells, kept)
    _print_learnt(cells, kept)
    return failed


def _tell_absent(cells: Sequence[Cell]) -> None:
    """Say which cells are left out because their data are not there, and what would help."""
    from bench.cli.progress import console

    for task, where in sorted({(cell.task, cell.absent) for cell in cells if cell.absent}):
        console.print(
            f"{task} is left out: its data are not in {where}; --data says where sets lie.",
            soft_wrap=True,
        )


def line_of(cell: Cell, record: Record) -> str:
    """Say in a line how a cell ended."""
    if record.accuracy is None:
        return f"{record.status} {cell.title}: {record.error}"
    name = record.accuracy.headline
    value = record.accuracy.metrics[name].value
    seconds = record.recipe.train_seconds if record.recipe else None
    after = f" in {seconds:.0f} s" if seconds is not None else ""
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


def _print_means(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> None:
    """Print the mean over seeds of each operator's headline, board by board."""
    from rich.table import Table

    from bench.cli.progress import console

    table = Table("task", "host", "operator", "headline", "mean over seeds", "seeds", box=None)
    groups: dict[tuple[str, str, str], list[tuple[str, float]]] = {}
    for cell in cells:
        ended = kept.get(cell.hash)
        name = ended.tags.get("headline") if ended is not None and ended.done else None
        if ended is not None and name is not None:
            values = groups.setdefault((cell.task, cell.host, cell.operator), [])
            values.append((name, ended.metrics[f"final/{name}"]))
    for (task, host, operator), values in groups.items():
        mean = sum(value for _, value in values) / len(values)
        table.add_row(task, host, operator, values[0][0], f"{mean:.4f}", str(len(values)))
    console.print(table)


def speed(options: argparse.Namespace) -> None:
    """Measure the speed of a suite's operators; status 1 where an arm failed."""
    if _speed(options):
        sys.exit(1)


def _speed(options: argparse.Namespace) -> int:
    """Time the races that are not done on this machine; return how many failed."""
    from bench.cli.progress import Bar, console
    from bench.config.plan import plan
    from bench.config.schema import load_suite
    from bench.machine import usable_cores
    from bench.run import races
    from bench.run.timing import time_race
    from bench.speed.crew import Crew
    from bench.store import Store

    folder = runs_of(options)
    whole = load_suite(options.suite)
    if whole.speed is None:
        console.print(f"{whole.name}: no speed run is asked for.")
        return 0
    kept = Store(folder).kept()
    present = [cell for cell in plan(options.suite, choice_of(options)) if not cell.absent]
    if "end_to_end" in whole.speed.scopes and (untrained := races.waiting(present, kept)):
        console.print(
            f"{len(untrained)} arms are not trained yet and not timed end to end; "
            "`convboard run` trains them."
        )
    failed = 0
    with Crew(usable_cores()) as crew:
        for race in races.races(present, whole.speed, kept):
            if race.hash in kept and kept[race.hash].done:
                console.print(f"{race.title}: done before.")
                continue
            with Bar(race.title, race.plan.processes) as bar:
                records = time_race(
                    race, folder, options.line, lambda done, total, _: bar.step(done, total), crew
                )
            _print_speed(records)
            failed += any(record.status != "ok" for record in records)
    return failed


def _print_speed(records: Sequence[Record]) -> None:
    from rich.table import Table

    from bench.cli.progress import console

    table = Table("operator", "batch", "median ms", "time / baseline", "verdict", "noise", box=None)
    for record in records:
        speed = record.speed
        if speed is None or record.status != "ok":
            table.add_row(record.entry.label, "", record.status, str(record.error))
            continue
        ms, ratio = speed.latency_median_ms, speed.ratio_to_baseline
        table.add_row(
            record.entry.label,
            str(speed.batch),
            f"{ms.value:.3f} [{ms.low:.3f}, {ms.high:.3f}]" if ms else "",
            f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "",
            speed.verdict or "",
            speed.noise or "",
        )
    console.print(table)
    for record in records:
        if record.speed is not None and record.speed.memory_error is not None:
            console.print(
                f"{record.entry.label}, batch {record.speed.batch}: no peak memory:",
                record.speed.memory_error,
                markup=False,
                soft_wrap=True,
            )
