"""The memory pass: what the timed form of an arm adds to the memory of an idle process."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_CALLS = 3


def peak_on_cpu(
    build: Callable[[], nn.Module], inputs: Mapping[int, Tensor]
) -> dict[int, dict[str, int]]:
    """Peak resident set of each batch, in bytes above that of a process which ran a tiny network.

    Each arm gets a process of its own, forked from one that has imported everything and computed
    nothing. There the resident set is read after a tiny network has loaded the runtime (threads,
    code pages); then the model is built, freed memory is returned, the peak is reset, and three
    forwards are run. The difference holds weights, activations and the library's workspaces.

    Returns:
        {batch: {"peak_rss_bytes": n}}; empty where the system cannot tell (no fork, no Linux
        /proc) or the arm fails, whose reason the timing then gives.
    """
    if not (sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK)):
        return {}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        # Nothing of the parent may run in the child: no exit handlers, no half-written files.
        with suppress(BaseException):
            os.write(writer, json.dumps(_in_child(build, inputs)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    peaks: dict[str, int] = json.loads(text) if text else {}
    return {int(batch): {"peak_rss_bytes": peak} for batch, peak in peaks.items()}


def _in_child(build: Callable[[], nn.Module], inputs: Mapping[int, Tensor]) -> dict[int, int]:
    tiny = nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 8)
    )
    with torch.inference_mode():
        tiny.eval()(torch.zeros(1, 8, 16, 16))
    idle = _status("VmRSS")
    model = build()
    peaks = {}
    for batch, x in sorted(inputs.items()):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        with torch.inference_mode():
            for _ in range(_CALLS):
                model(x)
        peaks[batch] = max(0, _status("VmHWM") - idle)
    return peaks


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def peak_on_gpu(
    build: Callable[[], nn.Module], inputs: Mapping[int, Tensor]
) -> dict[int, dict[str, int]]:
    """Peak allocated and reserved bytes of the device at each batch, nothing else being there.

    Returns:
        {batch: {"peak_allocated_bytes": n, "peak_reserved_bytes": m}}; batches that fail are left
        out, the timing then gives their reason.
    """
    found: dict[int, dict[str, int]] = {}
    with suppress(Exception):
        model = build()
        for batch, x in sorted(inputs.items()):
            found[batch] = _gpu_peak(model, x)
    return found


def _gpu_peak(model: Any, x: Tensor) -> dict[str, int]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        for _ in range(_CALLS):
            model(x)
    torch.cuda.synchronize()
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
