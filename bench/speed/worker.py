"""A worker process of speed runs: `python -m bench.speed.worker CONNECTION NOTE`."""

from __future__ import annotations

import gc
import importlib
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.operators import jit
from bench.speed import exported, memory
from bench.speed.forms import conditions, configure
from bench.speed.job import IMPORTED, READY, Job, Note
from bench.speed.lifetime import end_with_parent
from bench.speed.protocol import EXPORTED
from bench.speed.stage import Stage


def weighed(job: Job, note: Note) -> dict[str, Any]:
    """Measure the memory of the arms and return the cells as JSON objects."""
    if job.settings.device == "cuda":
        configure(job.settings)
    return {"cells": [cell.to_json() for cell in memory.measure(job, note)]}


def staged(job: Job, note: Note) -> Stage:
    """Return where the arms of a job are timed; on a CPU they are built.

    By one thread, since a worker a core builds: with threads of their own each they would wait for
    each other's, and take half as long again.
    """
    configure(job.settings)
    stage = Stage(job, note)
    if job.settings.device == "cpu":  # the memory of a GPU is one measuring worker's alone
        torch.set_num_threads(1)
        stage.prepare()
        torch.set_num_threads(job.settings.threads)
    return stage


def timed(stage: Stage) -> dict[str, Any]:
    """Time the arms and return the cells, and under what conditions, as JSON objects."""
    stage.run()
    return {
        "cells": [cell.to_json() for cell in stage.cells],
        "conditions": conditions(stage.settings),
    }


def import_all(job: Job) -> None:
    """Import what a job needs; what cannot be imported becomes a row when it is built."""
    for label in job.labels:
        with suppress(Exception):
            job.factory(label)
    with suppress(Exception):
        job.load_prepare()
    for name in job.imports:
        with suppress(Exception):
            importlib.import_module(name)
    if job.settings.engine in EXPORTED:
        with suppress(Exception):
            exported.preload(job.settings.engine)
    if job.settings.device == "cpu":
        with suppress(Exception):  # one that is installed and does not work: its forms are left out
            jit.preload()


def serve(connection: Connection, note: Note) -> None:
    """Take jobs, one after the other, until the other end is closed.

    A job is followed by two words: IMPORTED, once everything that it needs is, and READY, once
    it is built. It is done when what to skip of it has arrived, and answered by its result.
    """
    job: Job | None = None
    stage: Stage | None = None
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        if isinstance(message, Job):
            job = message
            note("import")
            import_all(job)
            connection.send(IMPORTED)
            # What is there stays: a collection need not look at it again.
            gc.collect()
            gc.freeze()
            stage = None if job.memory else staged(job, note)
            note("ready")
            connection.send(READY)
        else:
            assert job is not None
            note("start")
            if stage is None:
                result = weighed(replace(job, skip=job.skip | message), note)
            else:
                stage.leave_out(message)
                result = timed(stage)
                stage = None
            gc.collect()
            note("end")
            connection.send(result | {"seconds": note.taken()})


def main(descriptor: str, note_path: str) -> None:
    """Serve the parent at the other end of a connection."""
    end_with_parent()
    try:
        with Connection(int(descriptor)) as connection:
            serve(connection, Note(Path(note_path)))
    finally:
        gc.unfreeze()  # libraries that are never collected complain as the process ends


if __name__ == "__main__":
    main(*sys.argv[1:])
