"""One fresh process of a speed run: `python -m bench.speed.worker JOB RESULT NOTE`."""

from __future__ import annotations

import ctypes
import gc
import json
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.speed import memory
from bench.speed.gate import GateError, compare, randomise, snapshot
from bench.speed.job import Job, Note, Timing
from bench.speed.protocol import (
    EventTimer,
    Settings,
    Timer,
    WallTimer,
    block_length,
    turns,
    warm_up,
)

Prepare = Callable[[nn.Module], nn.Module]


def configure(settings: Settings) -> None:
    """Set threads, denormals and precision by the protocol, before anything is computed."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def timer_for(device: str) -> Timer:
    """Return the timer of a device."""
    if device == "cuda":
        return EventTimer(partial(torch.cuda.Event, enable_timing=True))
    return WallTimer()


def inputs(settings: Settings, batch: int, images: NDArray[np.float32] | None = None) -> Tensor:
    """Return the fixed input (batch, in_channels, H, W) in float32, equal everywhere.

    That is `images`, over and over where there are fewer than a batch, or noise from N(0, 1).
    """
    if images is not None:
        return torch.from_numpy(images[np.arange(batch) % len(images)]).to(settings.device)
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (batch, settings.in_channels, *settings.input_size)
    return torch.randn(shape, generator=generator).to(settings.device)


def training_form(factory: Callable[[], nn.Module], settings: Settings) -> nn.Module:
    """Build the reference: fp32, eval mode, deterministic.

    End to end the weights are trained, and are kept; else nothing is left at its identity.
    """
    torch.manual_seed(settings.seed)
    model = factory()
    if settings.scope != "end_to_end":
        randomise(model, settings.seed)
    return model.float().eval().requires_grad_(False).to(settings.device)


def timed_form(model: nn.Module, prepare: Prepare | None, settings: Settings) -> nn.Module:
    """Turn the training form into the form that is timed, by `prepare`, dtype and layout."""
    timed = model if prepare is None else prepare(model)
    timed = timed.eval().to(dtype=getattr(torch, settings.dtype))
    if settings.layout == "channels_last":
        timed = timed.to(memory_format=torch.channels_last)
    return timed


def timed_input(x: Tensor, settings: Settings) -> Tensor:
    """Bring an input to the dtype and layout of the timed form."""
    x = x.to(getattr(torch, settings.dtype))
    channels_last = settings.layout == "channels_last"
    return x.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def compared(model: nn.Module) -> Callable[[Tensor], Any]:
    """Return what the gate compares: the output, or what `model.compared` returns, if it has that.

    Labels and boxes that are kept or dropped hang on the last bit; the maps before them do not.
    """
    return getattr(model, "compared", model)


@contextmanager
def failures_become_rows(cells: list[Timing]) -> Iterator[None]:
    """Turn an exception into the status of `cells`; all other arms go on."""
    try:
        yield
    except GateError as error:
        for cell in cells:
            cell.gate_error = error.error
            cell.fail("invalid", str(error))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:400]
        for cell in cells:
            cell.fail("oom" if out_of_memory(error) else "error", text)


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory ran out, on either device."""
    # torch's CPU allocator raises a plain RuntimeError
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def synchronise(settings: Settings) -> None:
    """Wait for the device."""
    if settings.device == "cuda":
        torch.cuda.synchronize()


class Stage:
    """All arms of one process: built, gated, warmed up and timed."""

    def __init__(self, job: Job, note: Note) -> None:
        self.job, self.note, self.settings = job, note, job.settings
        self.cells = [
            Timing(label, batch)
            for label, _ in job.arms
            for batch in job.settings.batches
            if (label, batch) not in job.skip
        ]
        self.inputs = {
            batch: inputs(job.settings, batch, job.images) for batch in job.settings.batches
        }
        self.steps: dict[tuple[str, int], Callable[[], Any]] = {}

    def of(self, label: str) -> list[Timing]:
        """Return the cells of an arm that nothing has failed in."""
        return [cell for cell in self.cells if cell.label == label and cell.alive]

    def build(self, label: str) -> None:
        """Build one arm and pass it through the gate at every batch size."""
        self.note("build", label)
        with failures_become_rows(self.of(label)):
            model = training_form(self.job.factory(label), self.settings)
            reference = {}
            for cell in self.of(label):
                self.note("reference", label, cell.batch)
                with failures_become_rows([cell]), torch.inference_mode():
                    reference[cell.batch] = snapshot(compared(model)(self.inputs[cell.batch]))
            self.note("build", label)
            timed = timed_form(model, self.job.load_prepare(), self.settings)
            if self.settings.compiled:
                timed.compile(dynamic=False)
            for cell in self.of(label):
                self.note("gate", label, cell.batch)
                with failures_become_rows([cell]), torch.inference_mode():
                    self.gate(cell, timed, reference[cell.batch])

    def gate(self, cell: Timing, timed: nn.Module, reference: dict[str, Tensor]) -> None:
        """Call the timed form for the first time and compare what it returns."""
        x = timed_input(self.inputs[cell.batch], self.settings)
        step = partial(timed, x)
        synchronise(self.settings)
        start = time.perf_counter_ns()
        output = step()
        synchronise(self.settings)
        cell.first_call_ms = (time.perf_counter_ns() - start) / 1e6
        whole = compared(timed) is timed
        found = snapshot(output if whole else compared(timed)(x))
        cell.gate_error = compare(found, reference, self.settings.dtype)
        self.steps[cell.label, cell.batch] = step

    def time_batch(self, batch: int) -> None:
        """Warm up every arm at a batch size, then let them take turns."""
        s, timer = self.settings, timer_for(self.settings.device)
        cells = {c.label: c for c in self.cells if c.batch == batch and c.alive}
        for cell in cells.values():
            self.note("warm-up", cell.label, batch)
            with failures_become_rows([cell]):
                warm = warm_up(
                    partial(_block_ms, timer, self.steps[cell.label, batch]),
                    min_ms=s.warmup_min_ms,
                    cap_ms=s.warmup_cap_ms,
                )
                cell.warmup_iterations, cell.steady = warm.iterations, warm.steady
                cell.block_iterations = block_length(warm.iteration_ms, s.min_block_ms)
        labels = [label for label, cell in cells.items() if cell.alive]
        for label in turns(labels, s.rounds, s.seed, self.job.process, batch):
            cell = cells[label]
            if cell.alive:
                self.note("rounds", label, batch)
                with failures_become_rows([cell]):
                    self.turn(cell, timer)

    def turn(self, cell: Timing, timer: Timer) -> None:
        """Take one sample: one untimed iteration, then one block."""
        assert cell.block_iterations is not None
        step = self.steps[cell.label, cell.batch]
        step()
        synchronise(self.settings)
        block = timer(step, cell.block_iterations)
        cell.samples_ms.append(block.ms)
        if self.settings.device == "cuda":
            cell.wall_ms.append(block.wall_ms)
            cell.host_bound_blocks += block.host_bound


def _block_ms(timer: Timer, step: Callable[[], object], iterations: int) -> float:
    return timer(step, iterations).ms


def measure_memory(stage: Stage) -> None:
    """Take the memory pass, arm by arm; an arm that fails in it fails in the times, with why."""
    job, s = stage.job, stage.settings
    for label, _ in job.arms:
        cells = stage.of(label)
        stage.note("memory", label)

        def build(label: str = label) -> nn.Module:
            model = training_form(job.factory(label), s)
            return timed_form(model, job.load_prepare(), s)

        batches = {cell.batch: timed_input(stage.inputs[cell.batch], s) for cell in cells}
        measure = memory.peak_on_gpu if s.device == "cuda" else memory.peak_on_cpu
        found = measure(build, batches) if cells else {}
        for cell in cells:
            cell.memory = found.get(cell.batch)


def carry_out(job: Job, note: Note) -> list[dict[str, Any]]:
    """Do a job and return its cells as JSON objects."""
    configure(job.settings)
    stage = Stage(job, note)
    if job.memory:
        measure_memory(stage)
    if not (job.memory and job.settings.device == "cuda"):
        for label, _ in job.arms:
            stage.build(label)
        batches = list(job.settings.batches)
        random.Random(f"{job.settings.seed}/{job.process}").shuffle(batches)
        gc.collect()
        gc.disable()
        with torch.inference_mode():
            for batch in batches:
                stage.time_batch(batch)
    return [cell.to_json() for cell in stage.cells]


def end_with_parent() -> None:
    """On Linux, have the system end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1


def main(job_path: str, result_path: str, note_path: str) -> None:
    """Read a job and import what it needs, wait for the word (what to skip), do it, write it."""
    end_with_parent()
    job: Job = pickle.loads(Path(job_path).read_bytes())
    for label, _ in job.arms:
        # What cannot be imported becomes a row when it is built.
        with suppress(Exception):
            job.factory(label)
    note = Note(Path(note_path))
    note("ready")
    word = sys.stdin.read()
    if not word:
        return
    skip = frozenset((label, batch) for label, batch in json.loads(word))
    cells = carry_out(replace(job, skip=skip), note)
    partial_path = Path(f"{result_path}.partial")
    partial_path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    partial_path.replace(result_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
