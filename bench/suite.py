"""A suite: from overlays to cells, and the running of those that are not done yet."""

from __future__ import annotations

import copy
import functools
import json
import logging
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import overlays
from bench.cell import Cell, lost
from bench.cell import run as run_cell
from bench.executors import LocalProcesses
from bench.operators.registry import near
from bench.overlays import OverlayError
from bench.record import Record, Status
from bench.track import Kept

State = Literal["done", "absent", "failed", "started", "waiting"]
AXES = ("task", "host", "operator", "recipe", "seed", "cell")


@dataclass(frozen=True)
class Choice:
    """Which part of a suite is meant, and what is laid over it.

    Args:
        only: axis → values; see AXES.
        seeds: in place of the suite's own.
        hosts: in place of every board's own.
        operators: in place of every board's own; the baseline stays.
        sets: `a.b=value`, laid over every cell's configuration.
    """

    only: dict[str, list[str]] | None = None
    seeds: list[int] | None = None
    hosts: list[str] | None = None
    operators: list[str] | None = None
    sets: tuple[str, ...] = ()

    def words(self, suite: str) -> str:
        """Return the part of a command line that names the suite with what is laid over it."""
        given = [suite if not Path(suite).is_absolute() else Path(suite).name]
        if self.seeds:
            given += ["--seeds", ",".join(map(str, self.seeds))]
        if self.hosts:
            given += ["--hosts", ",".join(self.hosts)]
        if self.operators:
            given += ["--operators", ",".join(self.operators)]
        for dotted in self.sets:
            given += ["--set", dotted]
        return shlex.join(given)


def compose(
    suite: overlays.Suite,
    board: overlays.Board,
    host: overlays.Host,
    arm: overlays.Arm,
    seed: int,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """Lay the overlays of one cell over each other: task, recipe, board, command line, axes."""
    config: dict[str, Any] = {}
    for layer in (
        overlays.read(overlays.find("tasks", board.task)),
        overlays.read(overlays.find("recipes", board.recipe)),
        board.set,
    ):
        config = overlays.merge(config, layer)
    config.pop("description", None)
    for dotted in sets:
        overlays.assign(config, dotted)
    size = config.get("data", {}).get("init_args", {}).get("image_size", 224)
    build = {
        "host": host.host,
        "host_options": host.host_options or None,
        "pretrained": host.pretrained,
        "operator": arm.operator,
        "options": _options(arm),
        "where": arm.where if arm.where is not None or arm.operator is None else board.where,
        "mix": arm.mix,
        "input_size": [size, size] if isinstance(size, int) else list(size),
    }
    axes = {
        "seed_everything": seed,
        "model": {
            "init_args": {"backbone": {"class_path": "bench.backbones.build", "init_args": build}}
        },
    }
    return overlays.merge(config, axes)


def _options(arm: overlays.Arm) -> dict[str, Any] | None:
    if arm.operator is None:
        return arm.options or None
    from bench import operators

    return operators.get(arm.operator).with_files(arm.options) or None


def plan(name: str, choice: Choice | None = None) -> list[Cell]:
    """Return the cells of a suite, resolved and checked, in the order in which they run.

    On each board seeds are the outer loop, so that one that is cut off has whole comparisons.

    Raises:
        ValueError: an unknown name, or an argument that a class does not take.
    """
    choice = choice or Choice()
    cells: dict[str, Cell] = {}
    for _, cell in _planned(name, choice):
        cells.setdefault(cell.hash, cell)
    return _chosen(list(cells.values()), choice.only or {})


def board(name: str, choice: Choice, cell: Cell) -> overlays.Board:
    """Return the board on which a cell of the suite stands, with the choice's values laid over.

    Example:
        >>> cell = plan("quick")[0]
        >>> board("quick", Choice(), cell).baseline
        'dwconv'
    """
    found = next(board for board, other in _planned(name, choice) if other.hash == cell.hash)
    above = copy.deepcopy(found.set)
    for dotted in choice.sets:
        overlays.assign(above, dotted)
    return found.model_copy(update={"set": above})


def one(cells: Sequence[Cell]) -> Cell:
    """Return the first of cells that differ by their seeds alone.

    Raises:
        ValueError: they differ by more.
    """
    first = cells[0]
    same = [c for c in cells if (c.task, c.host, c.arm) == (first.task, first.host, first.arm)]
    if len(same) < len(cells):
        arms = sorted({f"{c.task} · {c.host} · {c.arm.label}" for c in cells})
        raise OverlayError(
            f"this takes one cell, and {len(arms)} are chosen; narrow it, e.g. "
            f"--only operator={first.arm.label} --only task={first.task}."
        )
    return first


def _planned(name: str, choice: Choice) -> Iterator[tuple[overlays.Board, Cell]]:
    from bench import fit

    suite = overlays.load_suite(name)
    for board in suite.boards:
        labels = {overlays.load_arm(arm).label: arm for arm in board.operators}
        if board.baseline not in labels:
            raise OverlayError(
                f"`baseline` (={board.baseline!r}) of board {board.task} must be one of its "
                f"operators; {near(board.baseline, labels)}"
            )
        arms: list[str | overlays.Arm] = list(board.operators)
        if choice.operators is not None:
            arms = list(dict.fromkeys([labels[board.baseline], *choice.operators]))
        for seed in choice.seeds or board.seeds or suite.seeds:
            for host in choice.hosts or board.hosts:
                for operator in arms:
                    arm, made = overlays.load_arm(operator), overlays.load_host(host)
                    config = compose(suite, board, made, arm, seed, choice.sets)
                    try:
                        resolved = fit.resolve(config)
                    except fit.ConfigError as error:
                        where = f"{board.task} · {made.label} · {arm.label}"
                        raise OverlayError(f"{where}: {error}") from None
                    cell = Cell(
                        suite=suite.name,
                        task=board.task,
                        host=made.label,
                        arm=arm,
                        recipe=board.recipe,
                        seed=seed,
                        baseline=arm.label == board.baseline,
                        config=resolved,
                        tuned=board.tuned,
                        learnt=board.learnt,
                        optional=board.optional,
                        words=choice.words(name),
                    )
                    yield board, cell


def _chosen(cells: list[Cell], only: dict[str, list[str]]) -> list[Cell]:
    for axis, wanted in only.items():
        if axis not in AXES:
            raise OverlayError(f"`--only` (={axis}): no such axis; {near(axis, AXES)}")
        values = {_axis(cell, axis) for cell in cells}
        for value in wanted:
            if value not in values:
                raise OverlayError(
                    f"`--only {axis}` (={value!r}): no such cell; {near(value, values)}"
                )
        cells = [cell for cell in cells if _axis(cell, axis) in wanted]
    if not cells:
        raise OverlayError("no cell is left: the choices given with --only exclude each other.")
    return cells


def _axis(cell: Cell, axis: str) -> str:
    if axis == "operator":
        return cell.arm.label
    return cell.hash if axis == "cell" else str(getattr(cell, axis))


def state(cell: Cell, kept: dict[str, Kept]) -> State:
    """Return how far a cell is, by the store; absent is one that is left out for want of data."""
    run = kept.get(cell.hash)
    if run is not None and run.done:
        return "done"
    if cell.absent:
        return "absent"
    if run is None:
        return "waiting"
    return "failed" if run.status == "FAILED" else "started"


@dataclass(frozen=True)
class Learnt:
    """Whether a baseline has learnt its task: its mean over seeds, and what is wanted."""

    task: str
    host: str
    metric: str
    mean: float
    wanted: float


def learnt(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> list[Learnt]:
    """Return what was learnt on each board that says what must be, by the cells that are done."""
    found: dict[tuple[str, str, str, float], list[float]] = {}
    for cell in cells:
        run = kept.get(cell.hash)
        if not cell.baseline or run is None or not run.done:
            continue
        for metric, wanted in cell.learnt.items():
            values = found.setdefault((cell.task, cell.host, metric, wanted), [])
            values.append(run.metrics[f"final/{metric}"])
    return [
        Learnt(task, host, metric, sum(values) / len(values), wanted)
        for (task, host, metric, wanted), values in found.items()
    ]


def preflight(cells: Sequence[Cell]) -> None:
    """Find what a user can have wrong before any training: data, classes, hosts, slots, options.

    Raises:
        ValueError: the first fault, with the cell in which it stands.
    """
    from bench import fit

    seen: set[str] = set()
    for cell in cells:
        for part in ("data", "model"):
            key = json.dumps([part, cell.config[part]], sort_keys=True)
            key = key.replace(f'"seed": {cell.seed}', "")
            if key in seen:
                continue
            seen.add(key)
            try:
                module, datamodule = fit.instantiate(cell.config)
                datamodule.prepare_data()
                if part == "data":
                    datamodule.setup("fit")
            except ValueError as error:
                raise OverlayError(f"{cell.label}: {error}") from error
            for metric in cell.learnt:
                if metric not in module.metrics_info:
                    raise OverlayError(
                        f"{cell.label}: `learnt` (={metric!r}) is no metric of its task; "
                        f"{near(metric, module.metrics_info)}"
                    )


@dataclass(frozen=True)
class Step:
    """One event of a run: a cell has started or ended; `fraction` of all work is done."""

    cell: Cell
    record: Record | None
    failed: bool = False


def run(
    cells: Sequence[Cell],
    folder: Path,
    command: str,
    *,
    workers: int,
    timeout_minutes: float,
) -> Iterator[Step]:
    """Run cells in processes of their own; yield a Step as each starts and as each ends."""
    engine = LocalProcesses(workers, timeout_minutes * 60)
    job = functools.partial(_in_process, folder=folder, command=command)
    for event in engine.run(job, cells):
        if event.kind == "started":
            yield Step(event.job, None)
        elif event.kind == "done":
            yield Step(event.job, event.value, failed=event.value.status != "ok")
        else:
            status: Status = "timeout" if event.kind == "timeout" else "error"
            why = (
                f"took more than {timeout_minutes:g} minutes"
                if event.kind == "timeout"
                else f"its process ended: {event.value}"
            )
            yield Step(event.job, lost(event.job, folder, command, status, why), failed=True)


def _in_process(cell: Cell, folder: Path, command: str) -> Record:
    hush()
    return run_cell(cell, folder, command)


def hush() -> None:
    """Keep the words of Lightning and of libraries' warnings out of a suite's progress."""
    import lightning  # noqa: F401  it sets its loggers' levels when it is imported

    warnings.simplefilter("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def fraction(cell: Cell, folder: Path) -> float:
    """Return how much of a running cell's training is done, 0…1."""
    from bench.fit import PROGRESS

    try:
        text = (folder / "cells" / cell.hash / PROGRESS).read_text(encoding="utf-8")
        return float(json.loads(text)["done"])
    except (OSError, ValueError, KeyError):
        return 0.0
