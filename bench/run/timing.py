"""A race is timed once, and kept as an MLflow run with a record per arm and batch size."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.schema import SpeedConfig
from bench.machine import machine, provenance, software
from bench.record import SETTLED, Record
from bench.run.cell import WAIT_S
from bench.run.race import Race
from bench.speed.protocol import EXPORTED
from bench.store import CELL, Store

if TYPE_CHECKING:
    from bench.speed.crew import Crew

Progress = Callable[[int, int, str], None]
ADHOC = "speed"
"""Experiment of the races of no suite."""


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
    measures it anew. An arm that is not supported is no failure.

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
    store.require_active([race.suite or ADHOC])
    plan = race.plan
    work = store.folder / "cells" / race.hash
    timed = race.load(store, work)
    first = race.contenders[0].entry
    results = measure(
        timed.arms,
        baseline=race.baseline,
        input_size=race.input_size,
        in_channels=race.in_channels,
        images=timed.images,
        folder=store.folder / "speed",
        prepare=fuse if first.form == "fused" else None,
        batches=race.batches,
        dtype=plan.dtype,
        layout=plan.layout,
        forms=plan.forms,
        engine=plan.engine,
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
    experiment = race.suite or ADHOC
    tags = {"suite": experiment, "host": first.host, "task": first.task, CELL: race.hash}
    run_id = store.begin(experiment, race.title, tags, {"speed": plan.model_dump()}, resume=False)
    contenders = {contender.entry.label: contender for contender in race.contenders}
    records = []
    for result in results:
        contender = contenders[result.label]
        record = Record.make(
            kind="speed",
            status=result.status,
            error=result.error,
            entry=contender.entry,
            data=timed.data,
            recipe=contender.recipe,
            speed=result.speed(),
            memory=result.memory,
            machine=machine(),
            software=software(),
            provenance=provenance(
                command=command,
                reproduce=f"convboard speed {race.words}",
                mlflow_run=run_id,
                suite=race.suite,
                cell=race.hash,
            ),
        )
        store.keep(run_id, record.save(work), "records")
        if result.latency_median_ms is not None:
            name = f"{result.label}/batch_{result.batch}_ms".replace("(", "").replace(")", "")
            store.metrics(run_id, {name: result.latency_median_ms.value})
        records.append(record)
    if all(record.status in SETTLED for record in records):
        store.done(run_id, records[-1].filename)
    else:
        store.end(run_id, "FAILED")
    shutil.rmtree(work)
    return records


def _device(plan: SpeedConfig) -> str:
    import torch

    if plan.device != "auto":
        return plan.device
    if plan.engine in EXPORTED:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"
