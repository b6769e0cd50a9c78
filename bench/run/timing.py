"""A race is timed once, and kept as an MLflow run with a record per arm and batch size."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import locks
from bench.errors import Failure
from bench.machine import machine, provenance, software
from bench.record import SETTLED, Record
from bench.run.cell import WAIT_S
from bench.run.race import Race, Timed, device_of
from bench.store import CELL, Store

if TYPE_CHECKING:
    from bench.speed.crew import Crew
    from bench.speed.result import ArmResult

Progress = Callable[[int, int, str], None]
ADHOC = "speed"
"""Experiment of the races of no suite."""
_MEANT = re.compile(r"[^\w ./-]")
"""What the name of a metric may not hold."""


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

    Raises:
        Failure: another command times the race just now.
        StoreError: the store cannot be used, or the race's experiment was deleted in MLflow.
    """
    store = Store(folder, wait_s=WAIT_S)
    store.require_writable()
    experiment = f"{race.suite}-speed" if race.suite else ADHOC
    store.require_active([experiment, race.suite or ADHOC])
    try:
        with locks.lock(locks.of_cell(store.folder, race.hash)):
            return _timed_alone(race, experiment, store, command, progress, crew)
    except locks.Held:
        raise Failure(f"{race.title}: another command times it just now.") from None


def _timed_alone(
    race: Race,
    experiment: str,
    store: Store,
    command: str,
    progress: Progress | None,
    crew: Crew | None,
) -> list[Record]:
    work = store.folder / "cells" / race.hash
    timed = race.load(store, work)
    first = race.contenders[0].entry
    results = measured(race, timed, store.folder / "speed", progress, crew)
    tags = {"suite": race.suite or ADHOC, "host": first.host, "task": first.task, CELL: race.hash}
    settings = {"speed": race.plan.model_dump()}
    run_id = store.begin(experiment, race.title, tags, settings, resume=False)
    again = f"convboard speed {race.words}"
    records = [record_of(race, timed, result, command, again, run_id) for result in results]
    for result, record in zip(results, records, strict=True):
        store.keep(run_id, record.save(work), "records")
        if result.latency_median_ms is not None:
            name = _MEANT.sub("", f"{result.label}/batch_{result.batch}_ms")
            store.metrics(run_id, {name: result.latency_median_ms.value})
    if all(record.status in SETTLED for record in records):
        store.done(run_id, records[-1].filename)
    else:
        store.end(run_id, "FAILED")
    shutil.rmtree(work)
    return records


def measured(
    race: Race,
    timed: Timed,
    folder: Path,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> list[ArmResult]:
    """Time the arms of a race by its plan.

    Args:
        race: what is timed.
        timed: what it has loaded.
        folder: keeps the samples of finished processes.
        progress: see `bench.speed.measure`.
        crew: workers that go on to the next race.
    """
    from bench.backbones import fuse
    from bench.speed import measure

    plan = race.plan
    fused = race.contenders[0].entry.form != "training"
    return measure(
        timed.arms,
        baseline=race.baseline,
        input_size=race.input_size,
        in_channels=race.in_channels,
        images=timed.images,
        folder=folder,
        prepare=(timed.prepare or functools.partial(fuse, inplace=True)) if fused else None,
        batches=race.batches,
        dtype=plan.dtype,
        layout=plan.layout,
        forms=plan.forms,
        engine=plan.engine,
        device=device_of(plan),
        threads=plan.threads,
        processes=plan.processes,
        rounds=plan.rounds,
        min_block_ms=plan.min_block_ms,
        warmup_cap_ms=plan.warmup_cap_ms,
        memory=plan.memory,
        scope=race.scope,
        fingerprint=race.hash,
        imports=timed.imports,
        crew=crew,
        progress=progress,
    )


def record_of(
    race: Race,
    timed: Timed,
    result: ArmResult,
    command: str,
    reproduce: str,
    run_id: str | None = None,
) -> Record:
    """Return the record of an arm at a batch size.

    Args:
        race: what was timed.
        timed: what it had loaded.
        result: of the arm.
        command: the command line that asked for it.
        reproduce: the one that does it again.
        run_id: of the MLflow run that keeps it, if one does.
    """
    contender = next(c for c in race.contenders if c.entry.label == result.label)
    return Record.make(
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
            reproduce=reproduce,
            mlflow_run=run_id,
            suite=race.suite,
            cell=race.hash,
        ),
    )
