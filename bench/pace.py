"""The speed run of a suite: its operators race together, host by host; results are records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import overlays
from bench.cell import Cell, entry, operator_sha256
from bench.machine import machine, provenance, software
from bench.record import Record, digest
from bench.speed.protocol import PROTOCOL
from bench.track import CELL, Store

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Race:
    """The arms of one host at one input size: they are timed together.

    `cells` has one cell per arm, the baseline among them.
    """

    cells: tuple[Cell, ...]
    plan: overlays.SpeedPlan
    words: str

    @property
    def baseline(self) -> str:
        """Label of the arm to which the others are compared."""
        return next(cell.arm.label for cell in self.cells if cell.baseline)

    @property
    def title(self) -> str:
        """A name for people."""
        h, w = self.cells[0].input_size
        return f"speed · {self.cells[0].host} · {h}×{w}"

    @functools.cached_property
    def hash(self) -> str:
        """Hash of everything that the result depends on."""
        return digest(
            {
                "protocol": PROTOCOL,
                "plan": self.plan.model_dump(),
                "arms": {
                    c.arm.label: [_network(c), operator_sha256(c.arm.operator)] for c in self.cells
                },
                "machine": machine().model_dump(),
                "software": software(),
            }
        )[:12]


def _network(cell: Cell) -> dict[str, Any]:
    """Arguments that build what is timed: image to feature pyramid, whatever the task."""
    return {**cell.backbone, "features_only": True, "pretrained": False}


def races(cells: Sequence[Cell], plan: overlays.SpeedPlan) -> list[Race]:
    """Group the cells of a suite by host and input size; tasks and seeds share a race."""
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        host = {k: cell.backbone.get(k) for k in ("host", "host_options", "input_size")}
        arms = groups.setdefault(digest(host), {})
        known = arms.get(cell.arm.label)
        if known is not None and _network(known) != _network(cell):
            arms[f"{cell.arm.label} ({cell.task})"] = cell
        elif known is None or (cell.baseline and not known.baseline):
            arms[cell.arm.label] = cell
    return [
        Race(tuple(_labelled(arms)), plan, cells[0].words)
        for arms in groups.values()
        if any(cell.baseline for cell in arms.values())
    ]


def _labelled(arms: dict[str, Cell]) -> list[Cell]:
    return [
        cell.model_copy(update={"arm": cell.arm.model_copy(update={"label": label})})
        for label, cell in arms.items()
    ]


def run(race: Race, folder: Path, command: str, progress: Progress | None = None) -> list[Record]:
    """Time the arms of a race, keep the records in MLflow, and return them.

    Samples of finished processes are kept as they come, so the same call goes on where it was
    cut off.
    """
    from bench.backbones import build, fuse
    from bench.speed import Arm, measure

    store = Store(folder)
    plan = race.plan
    results = measure(
        [Arm(c.arm.label, functools.partial(build, **_network(c))) for c in race.cells],
        baseline=race.baseline,
        input_size=race.cells[0].input_size,
        folder=store.folder / "speed",
        prepare=fuse,
        batches=plan.batches,
        dtype=plan.dtype,
        layout=plan.layout,
        compiled=plan.compiled,
        device=plan.device,
        processes=plan.processes,
        rounds=plan.rounds,
        min_block_ms=plan.min_block_ms,
        warmup_cap_ms=plan.warmup_cap_ms,
        scope="backbone",
        fingerprint=race.hash,
        progress=progress,
    )
    suite = race.cells[0].suite
    tags = {"suite": suite, "host": race.cells[0].host, "task": "backbone", CELL: race.hash}
    run_id = store.begin(suite, race.title, tags, {"speed": plan.model_dump()})
    cells = {cell.arm.label: cell for cell in race.cells}
    work = store.folder / "cells" / race.hash
    records = []
    for result in results:
        record = Record(
            kind="speed",
            status=result.status,
            error=result.error,
            entry=entry(cells[result.label]).model_copy(
                update={"task": "backbone", "form": "fused"}
            ),
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
    return records
