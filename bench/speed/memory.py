"""The memory pass: what the iterations of an arm add to what was there before it was built.

The peak of an arm at a batch size holds its weights, that batch's input, activations and the
library's workspaces (in training gradients and the optimiser's state too), over calls that follow
a warm-up call: what only the first call takes (the trials by which cuDNN picks algorithms) is not
part of it, and neither is the code of what is imported on the way.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.failures import device_lost, killed_for_memory
from bench.operators import jit
from bench.speed.forms import (
    configure,
    inputs,
    iteration,
    mode,
    timed_form,
    timed_input,
    training_form,
)
from bench.speed.job import Job, Note, Timing
from bench.speed.lifetime import end_with_parent
from bench.speed.protocol import drawn
from bench.speed.stage import in_words

CALLS = 3
TRIES = 3
"""Children of a place: one that imported or compiled anything is followed by another."""
_CLEAR_REFS = Path("/proc/self/clear_refs")


def measure(job: Job, note: Note) -> list[Timing]:
    """Return a cell for each place of the job, with its peak or why there is none.

    A failure here does not make the times fail: those say themselves how the arm fares.
    """
    settings = job.settings
    cells = [Timing(label, batch) for label, batch in job.places]
    for label in drawn(job.labels, settings.seed, "memory"):
        of_arm = [cell for cell in cells if cell.label == label]
        if settings.device == "cuda":
            _on_gpu(job, of_arm, note)
        else:
            for cell in of_arm:
                note("memory", label, cell.batch)
                _on_cpu(job, cell)
    return cells


def _on_cpu(job: Job, cell: Timing) -> None:
    """Measure in a process that is forked for this place alone.

    The worker of a memory job has imported everything and computed nothing, so that no thread of
    OpenMP is lost in the fork, nothing of another arm is there, and it takes milliseconds. What a
    child had to import after all is imported here, and the place measured anew; so it is where a
    child had to compile a kernel, which the next one reads from disk.
    """
    if not (sys.platform == "linux" and os.access(_CLEAR_REFS, os.W_OK)):
        cell.memory_error = f"not measured: this system has no {_CLEAR_REFS} to write to"
        return
    batches = tuple(batch for label, batch in job.places if label == cell.label)
    for _ in range(TRIES):
        answer = _of_child(job, cell, batches)
        if isinstance(answer, str) and len(batches) > 1:  # it may be another one that is too large
            batches = (cell.batch,)
            answer = _of_child(job, cell, batches)
        if isinstance(answer, str):
            cell.memory_error = answer
            return
        peak, imported, compiled = answer
        cell.memory = {"peak_rss_bytes": peak}
        if not (imported or compiled):
            return
        for name in imported:
            with suppress(Exception):  # a part of a module, which comes with the whole
                importlib.import_module(name)
        gc.freeze()


def _of_child(job: Job, cell: Timing, batches: Sequence[int]) -> tuple[int, list[str], int] | str:
    """Return the peak of a place in bytes, what was imported and how much compiled for it.

    Or why there is none. The layout is the fastest over `batches`.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_in_child, args=(job, cell.label, cell.batch, batches, sender))
    child.start()
    sender.close()
    answer: tuple[int, list[str], int] | str
    try:
        if receiver.poll(job.limit_s):
            answer = receiver.recv()
        else:
            child.kill()
            answer = f"the process was ended after {job.limit_s:g} s"
    except EOFError:
        child.join()
        answer = f"the process ended with exit code {child.exitcode}"
        if killed_for_memory(child.exitcode):
            answer = "the process was killed, as happens when memory runs out"
    child.join()
    receiver.close()
    return answer


def _in_child(job: Job, label: str, batch: int, batches: Sequence[int], answer: Connection) -> None:
    end_with_parent()
    try:
        before, compiled = set(sys.modules), jit.compiled_here()
        peak = _peak_rss(job, label, batch, batches)
        imported = [name for name in sys.modules if name not in before]
        answer.send((peak, imported, jit.compiled_here() - compiled))
    except Exception as error:
        answer.send(in_words(error))


def _peak_rss(job: Job, label: str, batch: int, batches: Sequence[int]) -> int:
    """Peak resident set in bytes, above that of a process which ran a tiny network.

    The tiny network loads the runtime: threads, code pages. Before the calls that count, freed
    memory is returned and the system's mark of the peak is reset.
    """
    configure(job.settings)
    tiny = nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 8)
    )
    with torch.inference_mode():
        tiny.eval()(torch.zeros(1, 8, 16, 16))
    idle = _status("VmRSS")
    # In the layout that is timed, which is chosen over all batch sizes.
    examples = [timed_input(inputs(job, each), job.settings) for each in batches]
    model, x = _model(job, label, examples), examples[batches.index(batch)]
    del examples
    with mode(job.settings):
        step = iteration(model, x, job.settings)
        step()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR_REFS.write_text("5")
        for _ in range(CALLS):
            step()
    return max(0, _status("VmHWM") - idle)


def _model(job: Job, label: str, examples: Sequence[Tensor]) -> nn.Module:
    """Return the timed form of an arm; the training form is gone then."""
    model = training_form(job.factory(label), job.settings)
    return timed_form(model, job.load_prepare(), examples, job.settings)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def _on_gpu(job: Job, cells: list[Timing], note: Note) -> None:
    """Measure by the allocator's own marks; batch sizes share one model."""
    if not cells:
        return
    label = cells[0].label
    before = _allocated()
    note("memory", label)
    try:
        examples = [timed_input(inputs(job, cell.batch), job.settings) for cell in cells]
        model = _model(job, label, examples)
        del examples
    except Exception as error:
        if device_lost(error):
            raise
        for cell in cells:
            cell.memory_error = in_words(error)
        return
    for cell in cells:
        note("memory", label, cell.batch)
        try:
            cell.memory = _gpu_peak(job, model, cell.batch, before)
        except Exception as error:
            if device_lost(error):
                raise
            cell.memory_error = in_words(error)


def _allocated() -> tuple[int, int]:
    """Return the bytes that are allocated and reserved, with what nobody needs given back."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def _gpu_peak(job: Job, model: nn.Module, batch: int, before: tuple[int, int]) -> dict[str, int]:
    x = timed_input(inputs(job, batch), job.settings)
    with mode(job.settings):
        step = iteration(model, x, job.settings)
        step()
        _allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(CALLS):
            step()
        torch.cuda.synchronize()
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() - before[0],
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() - before[1],
    }
