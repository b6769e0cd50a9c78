"""The speed runs of a suite: its operators race together; results are records.

Two scopes, by one rule for all tasks. The backbone alone, image to feature pyramid, is timed once
per host and input size, whatever the tasks, on noise and fresh weights. End to end, image to
labels, boxes or masks (head, NMS and resizing included; decoding and loading are not), is timed
per board, on images of the scored split with the weights that were trained: what a head has to
sort out hangs on both.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import files
from bench.config.plan import Cell
from bench.config.schema import SpeedConfig, SuiteScope
from bench.hashing import digest
from bench.machine import machine, provenance, software
from bench.record import Data, Entry, Record
from bench.run.cell import entry_of, recipe_of
from bench.run.code import operator_sha256
from bench.speed.protocol import PROTOCOL
from bench.store import CELL, CHECKPOINT, Kept, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.speed import Arm

Progress = Callable[[int, int, str], None]


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
                        _network(c) if self.scope == "backbone" else [c.hash, self.runs[c.hash]],
                        operator_sha256(c.backbone.get("operator")),
                    ]
                    for c in self.cells
                },
                "machine": machine().model_dump(),
                "software": software(),
            }
        )[:12]


def _network(cell: Cell) -> dict[str, Any]:
    """Arguments that build what is timed: image to feature pyramid, whatever the task."""
    return {**cell.backbone, "features_only": True, "pretrained": False}


def races(cells: Sequence[Cell], plan: SpeedConfig, kept: Mapping[str, Kept]) -> list[Race]:
    """Return the races of a suite's cells: of backbones, then end to end.

    End to end an arm takes part with its first seed that is trained; a board whose baseline is
    not trained yet has no race.
    """
    found: list[Race] = []
    if "backbone" in plan.scopes:
        found += [Race(arms, plan, cells[0].words, "backbone") for arms in _hosts(cells)]
    if "end_to_end" in plan.scopes:
        done = {cell.hash: kept[cell.hash].run_id for cell in cells if _done(cell, kept)}
        found += [
            Race(arms, plan, cells[0].words, "end_to_end", {c.hash: done[c.hash] for c in arms})
            for arms in _boards([cell for cell in cells if cell.hash in done])
        ]
    return found


def waiting(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> list[Cell]:
    """Return one cell of each arm that has no trained weights, and cannot race end to end."""
    trained = {_arm(cell) for cell in cells if _done(cell, kept)}
    return list({_arm(cell): cell for cell in cells if _arm(cell) not in trained}.values())


def _done(cell: Cell, kept: Mapping[str, Kept]) -> bool:
    return cell.hash in kept and kept[cell.hash].done


def _arm(cell: Cell) -> tuple[str, ...]:
    return cell.task, cell.host, cell.recipe, cell.operator


def _hosts(cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """Group cells by host and input size; tasks and seeds share a race."""
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        host = {k: cell.backbone.get(k) for k in ("host", "host_options", "input_size")}
        arms = groups.setdefault(digest(host), {})
        known = arms.get(cell.operator)
        if known is not None and _network(known) != _network(cell):
            arms[f"{cell.operator} ({cell.task})"] = cell
        elif known is None or (cell.baseline and not known.baseline):
            arms[cell.operator] = cell
    return _with_baseline(groups.values())


def _boards(cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """Group cells by board; of an arm's seeds the first one races."""
    groups: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in cells:
        groups.setdefault(_arm(cell)[:-1], {}).setdefault(cell.operator, cell)
    return _with_baseline(groups.values())


def _with_baseline(groups: Iterable[dict[str, Cell]]) -> list[tuple[Cell, ...]]:
    return [
        tuple(cell.model_copy(update={"operator": label}) for label, cell in arms.items())
        for arms in groups
        if any(cell.baseline for cell in arms.values())
    ]


def time_race(
    race: Race, folder: Path, command: str, progress: Progress | None = None
) -> list[Record]:
    """Time the arms of a race, keep the records in MLflow, and return them.

    Samples of finished processes are kept as they come, so the same call goes on where it was
    cut off.
    """
    from bench.backbones import fuse
    from bench.speed import measure

    store = Store(folder)
    plan = race.plan
    work = store.folder / "cells" / race.hash
    what = _backbones(race) if race.scope == "backbone" else _end_to_end(race, store, work)
    results = measure(
        what.arms,
        baseline=race.baseline,
        input_size=race.cells[0].input_size,
        images=what.images,
        folder=store.folder / "speed",
        prepare=fuse,
        batches=race.batches,
        dtype=plan.dtype,
        layout=plan.layout,
        compiled=plan.compiled,
        device=_device(plan),
        processes=plan.processes,
        rounds=plan.rounds,
        min_block_ms=plan.min_block_ms,
        warmup_cap_ms=plan.warmup_cap_ms,
        scope=race.scope,
        fingerprint=race.hash,
        progress=progress,
    )
    suite = race.cells[0].suite
    task = "backbone" if race.scope == "backbone" else race.cells[0].task
    tags = {"suite": suite, "host": race.cells[0].host, "task": task, CELL: race.hash}
    run_id = store.begin(suite, race.title, tags, {"speed": plan.model_dump()})
    cells = {cell.operator: cell for cell in race.cells}
    records = []
    for result in results:
        cell = cells[result.label]
        record = Record.make(
            kind="speed",
            status=result.status,
            error=result.error,
            entry=_entry(cell, race.scope),
            data=what.data,
            recipe=recipe_of(cell, None) if race.scope == "end_to_end" else None,
            speed=result.speed(),
            memory=result.memory,
            machine=machine(),
            software=software(),
            provenance=provenance(
                command=command,
                reproduce=f"convboard speed {race.words}",
                mlflow_run=run_id,
                suite=suite,
                cell=race.hash,
            ),
        )
        store.keep(run_id, record.save(work), "records")
        if result.latency_median_ms is not None:
            name = f"{result.label}/batch_{result.batch}_ms".replace("(", "").replace(")", "")
            store.metrics(run_id, {name: result.latency_median_ms.value})
        records.append(record)
    store.end(run_id)
    shutil.rmtree(work)
    return records


def _device(plan: SpeedConfig) -> str:
    import torch

    if plan.device != "auto":
        return plan.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _entry(cell: Cell, scope: SuiteScope) -> Entry:
    entry = entry_of(cell).model_copy(update={"form": "fused"})
    return entry.model_copy(update={"task": "backbone"}) if scope == "backbone" else entry


@dataclass(frozen=True)
class _Timed:
    """What is handed to the protocol."""

    arms: list[Arm]
    images: NDArray[np.float32] | None = None
    data: Data | None = None


def _backbones(race: Race) -> _Timed:
    from bench.backbones import build
    from bench.speed import Arm

    return _Timed([Arm(c.operator, functools.partial(build, **_network(c))) for c in race.cells])


def _end_to_end(race: Race, store: Store, work: Path) -> _Timed:
    from bench.config import lightning
    from bench.run import fit
    from bench.speed import Arm

    data = lightning.build(next(cell.config for cell in race.cells if cell.baseline)).data
    images = data.scored_images(max(race.batches), race.cells[0].input_size)
    arms = []
    for cell in race.cells:
        into = work / "weights" / cell.hash
        into.mkdir(parents=True, exist_ok=True)
        with store.artifact(race.runs[cell.hash], CHECKPOINT, into) as checkpoint:
            weights = checkpoint
        model = files.merge(cell.config["model"], _FRESH)
        factory = functools.partial(fit.inference_module, model, data.num_classes, weights)
        arms.append(Arm(cell.operator, factory))
    return _Timed(arms, images.numpy(), Data.model_validate(data.describe()))


_FRESH = {"init_args": {"backbone": {"init_args": {"pretrained": False}}}}
