"""The speed runs of a suite: which of its operators race together.

Two scopes, by one rule for all tasks. The backbone alone, image to feature pyramid, is timed once
per host and input size, whatever the tasks, on noise and fresh weights. End to end, image to
labels, boxes or masks (head, NMS and resizing included; decoding and loading are not), is timed
per board, on images of the scored split with the weights that were trained: what a head has to
sort out hangs on both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import board_key
from bench.config import files
from bench.config.cell import Cell
from bench.config.schema import SpeedConfig, SuiteScope
from bench.hashing import digest
from bench.machine import machine, software
from bench.run.code import operator_sha256
from bench.speed.protocol import PROTOCOL
from bench.store import Kept


@dataclass(frozen=True)
class Race:
    """The arms of one host at one input size: they are timed together.

    Attributes:
        cells: one per arm, the baseline among them.
        plan: how they are timed.
        words: the suite as the command line names it.
        scope: what of them is timed.
        runs: end to end, the run of each cell (by hash) whose weights are timed.
    """

    cells: tuple[Cell, ...]
    plan: SpeedConfig
    words: str
    scope: SuiteScope
    runs: Mapping[str, str] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """Label of the arm to which the others are compared."""
        return next(cell.operator for cell in self.cells if cell.baseline)

    @property
    def batches(self) -> list[int]:
        """The batch sizes that are timed."""
        return self.plan.scopes[self.scope]

    @property
    def title(self) -> str:
        """A name for people."""
        first = self.cells[0]
        h, w = first.input_size
        what = "backbone" if self.scope == "backbone" else f"end to end · {first.task}"
        return f"speed · {what} · {first.host} · {h}×{w}"

    @functools.cached_property
    def hash(self) -> str:
        """Hash of everything that the result depends on."""
        return digest(
            {
                "protocol": PROTOCOL,
                "plan": self.plan.model_dump(exclude={"scopes"}),
                "scope": [self.scope, self.batches],
                "arms": {
                    c.operator: [
                        network(c) if self.scope == "backbone" else [c.hash, self.runs[c.hash]],
                        operator_sha256(c.backbone.get("operator")),
                    ]
                    for c in self.cells
                },
                "machine": machine().model_dump(),
                "software": software(),
            }
        )[:12]


def network(cell: Cell) -> dict[str, Any]:
    """Arguments that build what is timed: image to feature pyramid, whatever the task."""
    return {**cell.backbone, "features_only": True, "pretrained": False}


def races(cells: Sequence[Cell], plan: SpeedConfig, kept: Mapping[str, Kept]) -> list[Race]:
    """Return the races of a suite's cells: of backbones, then end to end.

    Only what could stand on one board races together. End to end an arm takes part with its first
    seed that is trained; a board whose baseline is not trained yet has no race. A supernet is
    trained on the way to a network, and is none itself: it never races.
    """
    cells = [cell for cell in cells if _is_network(cell)]
    planned: list[Race] = []
    if "backbone" in plan.scopes:
        hosts = _grouped(cells, _host, _arm)
        planned += [Race(arms, plan, cells[0].words, "backbone") for arms in hosts]
    if "end_to_end" in plan.scopes:
        run_of = {cell.hash: kept[cell.hash].run_id for cell in cells if _done(cell, kept)}
        trained = [cell for cell in cells if cell.hash in run_of]
        planned += [
            Race(arms, plan, cells[0].words, "end_to_end", {c.hash: run_of[c.hash] for c in arms})
            for arms in _grouped(trained, _board, _trained_arm)
        ]
    return planned


def waiting(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> list[Cell]:
    """Return one cell of each arm that has no trained weights, and cannot race end to end."""
    first: dict[tuple[str, str], Cell] = {}
    trained = set()
    for cell in filter(_is_network, cells):
        arm = _board(cell), _trained_arm(cell)
        first.setdefault(arm, cell)
        if _done(cell, kept):
            trained.add(arm)
    return [cell for arm, cell in first.items() if arm not in trained]


def _done(cell: Cell, kept: Mapping[str, Kept]) -> bool:
    return cell.hash in kept and kept[cell.hash].done


def _is_network(cell: Cell) -> bool:
    return cell.ranked and cell.backbone.get("operator") != "edo"


def _arm(cell: Cell) -> str:
    """Key of what differs between the networks of a race."""
    return digest([cell.backbone.get(name) for name in board_key.ARM])


def _trained_arm(cell: Cell) -> str:
    """Key of what differs between the arms of a board: weights that were tuned are others."""
    tuned = {name: files.value_at(cell.config, name) for name in cell.untuned}
    return digest([_arm(cell), tuned])


def _host(cell: Cell) -> str:
    """Key of what backbones share; tasks and seeds are no part of it."""
    return digest({k: v for k, v in network(cell).items() if k not in board_key.ARM})


def _board(cell: Cell) -> str:
    """Key of what arms share end to end; the seed is no part of it."""
    return cell.board


def _grouped(
    cells: Sequence[Cell], race: Callable[[Cell], str], arm: Callable[[Cell], str]
) -> list[tuple[Cell, ...]]:
    """Return the arms that race together, each as one cell, under labels that tell them apart.

    Of the cells of an arm the first stands for it, or the first that is a baseline.

    Args:
        cells: of a suite.
        race: key of what the arms of a race share.
        arm: key of what they differ by.
    """
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        arms = groups.setdefault(race(cell), {})
        known = arms.get(arm(cell))
        if known is None or (cell.baseline and not known.baseline):
            arms[arm(cell)] = cell
    return [
        _relabelled(list(arms.values()))
        for arms in groups.values()
        if any(cell.baseline for cell in arms.values())
    ]


def _relabelled(arms: list[Cell]) -> tuple[Cell, ...]:
    """Tell arms of one label apart: by the task, else by a number."""
    labels: list[str] = []
    for cell in arms:
        names = [cell.operator, f"{cell.operator} ({cell.task})"]
        names += [f"{cell.operator} ({number})" for number in range(2, len(arms) + 1)]
        labels.append(next(name for name in names if name not in labels))
    return tuple(
        cell.model_copy(update={"operator": label})
        for cell, label in zip(arms, labels, strict=True)
    )
