"""A race is timed once, and kept as an MLflow run with a record per arm and batch size."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import files
from bench.config.cell import Cell
from bench.config.schema import SpeedConfig, SuiteScope
from bench.machine import machine, provenance, software
from bench.record import Data, Entry, Record
from bench.run.cell import WAIT_S
from bench.run.describe import entry_of, recipe_of
from bench.run.races import Race, network
from bench.store import CELL, CHECKPOINT, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.speed import Arm
    from bench.speed.crew import Crew

Progress = Callable[[int, int, str], None]


def time_race(
    race: Race,
    folder: Path,
    command: str,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> list[Record]:
    """Time the arms of a race, keep the records in MLflow, and return them.

    Samples of finished processes are kept as they come, so the same call goes on where it was
    cut off. A race in which an arm failed ends as failed: it is not done, and the next call
    measures it anew.

    Args:
        race: what is timed.
        folder: the runs folder.
        command: the command line that asked for it, for the records.
        progress: see `bench.speed.measure`.
        crew: workers that go on to the next race.
    """
    from bench.backbones import fuse
    from bench.speed import measure

    store = Store(folder, wait_s=WAIT_S)
    store.require_writable()
    store.require_active([race.cells[0].suite])
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
        threads=plan.threads,
        processes=plan.processes,
        rounds=plan.rounds,
        min_block_ms=plan.min_block_ms,
        warmup_cap_ms=plan.warmup_cap_ms,
        scope=race.scope,
        fingerprint=race.hash,
        crew=crew,
        progress=progress,
    )
    suite = race.cells[0].suite
    task = "backbone" if race.scope == "backbone" else race.cells[0].task
    tags = {"suite": suite, "host": race.cells[0].host, "task": task, CELL: race.hash}
    run_id = store.begin(suite, race.title, tags, {"speed": plan.model_dump()}, resume=False)
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
    if all(record.status == "ok" for record in records):
        store.done(run_id, records[-1].filename)
    else:
        store.end(run_id, "FAILED")
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

    return _Timed([Arm(c.operator, functools.partial(build, **network(c))) for c in race.cells])


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
