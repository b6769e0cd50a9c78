"""All arms of one process: built, passed through the gate, warmed up, and timed in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbones.fuse import chosen
from bench.errors import UserError
from bench.failures import device_lost, out_of_memory
from bench.operators.forms import plainly
from bench.speed import gpu_state
from bench.speed.forms import (
    compared,
    inputs,
    iteration,
    laid_out,
    mode,
    synchronise,
    timed_form,
    timed_input,
    training_form,
)
from bench.speed.gate import GateError, compare, snapshot
from bench.speed.job import Job, Note, Place, Timing
from bench.speed.protocol import (
    EventTimer,
    Timer,
    WallTimer,
    block_length,
    drawn,
    turns,
    warm_up,
)


def timer_for(device: str) -> Timer:
    """Return the timer of a device."""
    if device == "cuda":
        return EventTimer(partial(torch.cuda.Event, enable_timing=True))
    return WallTimer()


@contextmanager
def failures_become_rows(cells: list[Timing]) -> Iterator[None]:
    """Turn an exception into the status of `cells`; all other arms go on.

    A UserError says what cannot be, such as an operator in a host without a slot for it: that is
    `unsupported`, not a failure.

    Not so an error after which the device answers no one any more: the process ends with it, and
    what the others are owed is done in a new one.
    """
    try:
        yield
    except GateError as error:
        for cell in cells:
            cell.gate_error = error.error
            cell.fail("invalid", str(error))
    except UserError as error:
        for cell in cells:
            cell.fail("unsupported", str(error))
    except Exception as error:
        if device_lost(error):
            raise
        for cell in cells:
            cell.fail("oom" if out_of_memory(error) else "error", in_words(error))


def in_words(error: BaseException) -> str:
    """Return an exception as the `error` of a row."""
    return f"{type(error).__name__}: {error}"[:400]


class Stage:
    """All arms of one process.

    What was built first has other places in memory than what was built last, and that is worth up
    to some per cent. The order is therefore drawn anew in every process, of building as of
    turns: an advantage of place becomes a part of the spread between processes.
    """

    def __init__(self, job: Job, note: Note) -> None:
        self.job, self.note, self.settings = job, note, job.settings
        self.cells = [Timing(label, batch) for label, batch in job.places]
        self.steps: dict[Place, Callable[[], Any]] = {}
        self.models: dict[str, nn.Module] = {}
        self.timer = timer_for(self.settings.device)
        on_gpu = self.settings.device == "cuda"
        self.gpu = gpu_state.reader() if on_gpu else None
        self.energy = gpu_state.energy_counter() if on_gpu else None

    def prepare(self) -> None:
        """Build the training forms of all arms that are not there yet.

        That is half of what a short run does beside measuring, and other workers may do it at the
        same time; nothing is measured meanwhile.
        """
        for label in self.labels():
            if self.of(label) and label not in self.models:
                self.note("build", label)
                with failures_become_rows(self.of(label)):
                    self.models[label] = training_form(self.job.factory(label), self.settings)

    def labels(self) -> list[str]:
        """Return the arms in the order in which they are built."""
        return drawn(self.job.labels, self.settings.seed, self.job.process, "build")

    def leave_out(self, places: Collection[Place]) -> None:
        """Measure nothing of these places."""
        self.cells = [cell for cell in self.cells if (cell.label, cell.batch) not in places]

    def run(self) -> None:
        """Build all arms and time them, batch size by batch size."""
        s, process = self.settings, self.job.process
        batch_sizes = list(s.batches)
        arrays = {batch: inputs(self.job, batch) for batch in drawn(batch_sizes, s.seed, process)}
        self.prepare()
        for label in self.labels():
            self.build(label, arrays)
        del arrays
        gc.collect()
        gc.disable()
        try:
            with mode(s):
                for batch in drawn(batch_sizes, s.seed, process, "batches"):
                    self.time_batch(batch)
        finally:
            gc.enable()

    def of(self, label: str) -> list[Timing]:
        """Return the cells of an arm that nothing has failed in."""
        return [cell for cell in self.cells if cell.label == label and cell.alive]

    def build(self, label: str, arrays: dict[int, Tensor]) -> None:
        """Make the timed form of an arm and pass it through the gate at every batch size."""
        model = self.models.pop(label, None)
        if model is None or not self.of(label):
            return
        with failures_become_rows(self.of(label)):
            reference = {}
            for cell in self.of(label):
                self.note("reference", label, cell.batch)
                # The reference takes no form of ours: what is measured is held to torch's calls.
                with failures_become_rows([cell]), mode(self.settings), plainly():
                    values = compared(model, self.settings)(arrays[cell.batch])
                    reference[cell.batch] = snapshot(values)
            self.note("forms", label)
            examples = [timed_input(arrays[cell.batch], self.settings) for cell in self.of(label)]
            timed = timed_form(model, self.job.load_prepare(), examples, self.settings)
            for cell in self.of(label):
                cell.forms = laid_out(self.settings) | chosen(timed, cell.batch)
                self.note("gate", label, cell.batch)
                with failures_become_rows([cell]), mode(self.settings) as choices:
                    self.gate(cell, timed, arrays[cell.batch], reference[cell.batch])
                    cell.forms |= choices.taken if choices else {}

    def gate(self, cell: Timing, timed: nn.Module, x: Tensor, reference: dict[str, Tensor]) -> None:
        """Call the timed form for the first time and compare what it returns."""
        x = timed_input(x, self.settings)
        synchronise(self.settings)
        start = time.perf_counter_ns()
        step = iteration(timed, x, self.settings)
        output = step()
        synchronise(self.settings)
        cell.first_call_ms = (time.perf_counter_ns() - start) / 1e6
        looked_at = compared(timed, self.settings)
        values = snapshot(output if looked_at is timed else looked_at(x))
        s = self.settings
        cell.gate_error = compare(values, reference, s.dtype, gradients=s.training)
        self.steps[cell.label, cell.batch] = step

    def time_batch(self, batch: int) -> None:
        """Warm up every arm at a batch size, then let them take turns."""
        s, process = self.settings, self.job.process
        cells = {c.label: c for c in self.cells if c.batch == batch and c.alive}
        for label in drawn(list(cells), s.seed, process, batch, "warm-up"):
            cell = cells[label]
            self.note("warm-up", label, batch)
            with failures_become_rows([cell]):
                warm = warm_up(
                    partial(_block_ms, self.timer, self.steps[label, batch]),
                    block_ms=s.min_block_ms,
                    min_ms=s.warmup_min_ms,
                    cap_ms=s.warmup_cap_ms,
                )
                cell.warmup_iterations, cell.steady = warm.iterations, warm.steady
                cell.block_iterations = block_length(warm.iteration_ms, s.min_block_ms)
        labels = [label for label, cell in cells.items() if cell.alive]
        for label in turns(labels, s.rounds, s.seed, process, batch):
            cell = cells[label]
            if cell.alive:
                self.note("rounds", label, batch)
                with failures_become_rows([cell]):
                    self.turn(cell)

        for label in drawn(labels, s.seed, process, batch, "energy"):
            if cells[label].alive:
                self.note("energy", label, batch)
                with failures_become_rows([cells[label]]):
                    self.count_energy(cells[label])

    def count_energy(self, cell: Timing) -> None:
        """Measure the energy of an arm, where the GPU tells it; its times are taken by then."""
        if self.energy is None:
            return
        assert cell.block_iterations is not None
        iterations = cell.block_iterations
        block = partial(self.timer, self.steps[cell.label, cell.batch], iterations)
        joules = gpu_state.energy_joules(block, self.energy)
        if joules is not None:
            cell.energy_per_image_joules = joules / iterations / cell.batch

    def turn(self, cell: Timing) -> None:
        """Take one sample: one untimed iteration, then one block."""
        assert cell.block_iterations is not None
        step = self.steps[cell.label, cell.batch]
        step()
        synchronise(self.settings)
        block = self.timer(step, cell.block_iterations)
        cell.samples_ms.append(block.ms)
        if self.settings.device == "cuda":
            cell.wall_ms.append(block.wall_ms)
            cell.host_bound_blocks += block.host_bound
            if self.gpu is not None:
                cell.gpu.append(self.gpu())


def _block_ms(timer: Timer, step: Callable[[], object], iterations: int) -> float:
    return timer(step, iterations).ms
