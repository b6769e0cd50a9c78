"""Which of several exact forms is the fastest on the machine at hand: measured once, and kept.

What is compared takes turns on the very input, as cuDNN's benchmark mode does it. The choice is
kept in a file by all that the times depend on (shape, dtype, layout, threads, device, versions, the
code of the forms), so that the next process does not measure again and computes the same, bit by
bit.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import local
from bench.hashing import canonical, digest
from bench.locks import Held, lock
from bench.whole_files import write_whole

Value = Tensor | Sequence[Tensor]
"""What a form computes: a map, or the gradients of an input and of what is learnt."""
Candidates = Mapping[str, Callable[[], Value]]

TURNS = 7
"""Turns that every form takes before one is chosen."""
TURN_MS = 0.5
"""The least time of a turn."""
HOPELESS = 3
"""A form so many times slower than another at its second call takes no turns."""
ALIKE = 0.02
"""Of forms whose times differ by less, the first that is named is taken."""
EQUAL = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""dtype → largest |a − b| / max |b| of two forms of one map."""
OF_GRADIENTS = 10
"""How many times that gradients may differ, which are sums over all pixels of a batch."""
WAIT_S = 120.0

_log = logging.getLogger(__name__)


def default_file() -> Path:
    """Return where choices are kept: forms.json in the user's cache."""
    try:
        return local.cache_folder() / "forms.json"
    except RuntimeError:  # no home: nothing is kept
        return Path(os.devnull) / "forms.json"


class Choices:
    """Which form is the fastest for which problem, kept in a file.

    The file may lie on another machine's disk, be edited or be gone: an entry that names no form
    of the problem counts as none, and a file that cannot be read or written costs time alone.

    Args:
        path: the file; by default `default_file()`.

    Attributes:
        taken: problem in words → form, of all that ran; what was asked for only while something
            else was measured is not among it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from time import sleep
        >>> with TemporaryDirectory() as folder:
        ...     choices = Choices(Path(folder) / "forms.json")
        ...     one = torch.ones(1)
        ...     slow = lambda: (sleep(0.02), one)[1]
        ...     choices.best({"of": "ones"}, {"slow": slow, "quick": lambda: one})
        'quick'
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_file()
        self._entries = self._read()
        self.taken: dict[str, str] = {}
        self._recalled: dict[Hashable, str] = {}
        self._aside: dict[Hashable, str] = {}
        self._told = False
        self._measuring = 0

    def best(self, problem: Mapping[str, Any], candidates: Candidates, key: Hashable = None) -> str:
        """Return the name of the fastest candidate; measured now if the file does not know.

        Args:
            problem: what the times depend on beside the machine, as JSON.
            candidates: form → what computes the value in it, on the real input.
            key: what `recalled` knows the form by from now on, in this process.
        """
        if len(candidates) == 1:
            form = next(iter(candidates))
        else:
            form = quickest(self.times(problem, candidates))
            words = [problem["of"], "×".join(map(str, problem.get("shape", [])))]
            if "kernel" in problem:
                words.append("kernel " + "×".join(map(str, problem["kernel"])))
            said = " ".join(filter(None, words))
            if not self._measuring:
                self.taken[said] = form
            elif key is not None:
                self._aside[self._place(key)] = said
        if key is not None:
            self._recalled[self._place(key)] = form
        return form

    def times(self, problem: Mapping[str, Any], candidates: Candidates) -> dict[str, float]:
        """Return candidate → ms of a call; measured now if the file does not know."""
        key = digest({**problem, "forms": list(candidates)})[:16]
        try:
            known = self._known(key, candidates)
            if known is None:
                with self._alone():
                    self._entries |= self._read()
                    known = self._known(key, candidates)
                    if known is None:
                        known = self._measure(key, problem, candidates)
                        write_whole(self.path, canonical(self._entries) + "\n")
        except (OSError, Held) as error:
            if not self._told:
                _log.warning("Choices of forms are not kept in %r: %s.", self.path.name, error)
                self._told = True
            known = self._known(key, candidates) or self._measure(key, problem, candidates)
        return known

    def _alone(self) -> AbstractContextManager[object]:
        """Keep other processes from measuring; what is measured may choose forms inside of it."""
        if self._measuring:
            return nullcontext()
        return lock(self.path.with_suffix(".lock"), wait_s=WAIT_S)

    def recalled(self, key: Hashable) -> str | None:
        """Return the form that this process knows by a key, if it does: no problem is described."""
        place = self._place(key)
        form = self._recalled.get(place)
        if form and not self._measuring and place in self._aside:
            self.taken[self._aside.pop(place)] = form
        return form

    def _place(self, key: Hashable) -> Hashable:
        return key, torch.get_num_threads()

    def _known(self, key: str, candidates: Candidates) -> dict[str, float] | None:
        """Return the times that are kept, if they are times of these candidates."""
        times = self._entries.get(key, {}).get("ms")
        if not isinstance(times, dict) or not times or not times.keys() <= candidates.keys():
            return None
        numbers = all(isinstance(ms, float | int) and 0 < ms < math.inf for ms in times.values())
        return {name: times[name] for name in candidates if name in times} if numbers else None

    def _measure(
        self, key: str, problem: Mapping[str, Any], candidates: Candidates
    ) -> dict[str, float]:
        self._measuring += 1
        try:
            times = {name: round(ms, 5) + 1e-9 for name, ms in race(candidates).items()}
        finally:
            self._measuring -= 1
        self._entries[key] = {"problem": dict(problem), "ms": times}
        return times

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("The file of forms %r is not read: %s.", self.path.name, error)
            return {}
        if not isinstance(entries, dict):
            return {}
        return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def quickest(times: Mapping[str, float]) -> str:
    """Return the name of the least time; of those that are alike, the first.

    Example:
        >>> quickest({"direct": 1.01, "padded": 1.0, "fft": 3.0})
        'direct'
    """
    least = min(times.values())
    return next(name for name, ms in times.items() if ms <= (1 + ALIKE) * least)


def race(candidates: Candidates) -> dict[str, float]:
    """Return the median ms of a call of each candidate, which take turns.

    A candidate whose value is not the first one's, or that raises where the first does not, is
    left out with a word: no form that is wrong is ever chosen.
    """
    times: dict[str, float] = {}
    calls: dict[str, Callable[[], Value]] = {}
    reference: Value | None = None
    for name, call in candidates.items():
        try:
            value = call()
            if reference is not None and not alike(value, reference):
                _log.warning("The form %r does not compute the value of the others.", name)
                continue
            reference = value if reference is None else reference
            times[name] = _ms(call, 1)
        except Exception as error:
            if reference is None:
                raise
            _log.warning("The form %r fails: %s: %s.", name, type(error).__name__, error)
            continue
        calls[name] = call
    least = min(times.values())
    hopeful = [name for name in calls if times[name] <= HOPELESS * least]
    lengths = {name: max(1, round(TURN_MS / max(times[name], 1e-4))) for name in hopeful}
    turns: dict[str, list[float]] = {name: [] for name in hopeful}
    for turn in range(TURNS):
        for name in hopeful if turn % 2 else reversed(hopeful):
            calls[name]()  # the caches are as this form leaves them
            turns[name].append(_ms(calls[name], lengths[name]))
    return times | {name: statistics.median(ms) for name, ms in turns.items()}


def alike(value: Value, reference: Value) -> bool:
    """Whether two forms computed one value, or the same gradients, up to rounding.

    Example:
        >>> one = torch.ones(2)
        >>> alike(one, one), alike([one, one], [one, 1.01 * one])
        (True, False)
    """
    if isinstance(value, Tensor) and isinstance(reference, Tensor):
        return _alike(value, reference, EQUAL[reference.dtype])
    return len(value) == len(reference) and all(
        _alike(one, other, OF_GRADIENTS * EQUAL[other.dtype])
        for one, other in zip(value, reference, strict=True)
    )


def _alike(value: Tensor, reference: Tensor, most: float) -> bool:
    if value.shape != reference.shape or value.dtype != reference.dtype:
        return False
    wide = reference.double()
    limit = most * float(wide.abs().max()) if wide.numel() else 0.0
    return not wide.numel() or float((value.double() - wide).abs().max()) <= limit


def _ms(call: Callable[[], Value], times: int) -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    start = time.perf_counter_ns()
    for _ in range(times):
        out = call()
    if (out if isinstance(out, Tensor) else out[0]).is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / 1e6 / times


def problem(of: str, x: Tensor, by: type | None = None, **more: Any) -> dict[str, Any]:
    """Return what the time of a computation on `x` depends on, the machine included, as JSON.

    Args:
        of: what is computed, in words.
        x: the input.
        by: the class whose forms compute it; its file counts beside those of this package.
        more: what else the time depends on.
    """
    return {
        "of": of,
        "code": _code(by),
        "shape": list(x.shape),
        "layout": "channels_last" if is_channels_last(x) else "contiguous",
        "dtype": str(x.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        **_machine(x.device),
        **(_precision() if x.is_cuda else {}),
        **more,
    }


@cache
def _code(by: type | None) -> str:
    """Return the hash of this package's files, and of the one that a class is written in."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    if by is not None:
        with suppress(TypeError, OSError):  # of a class that was typed in
            files.append(Path(inspect.getfile(by)))
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]


def _precision() -> dict[str, bool]:
    """Return what else decides which of a GPU's kernels a call takes."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "trials": cudnn.benchmark,
        "tf32": cudnn.allow_tf32,
        "tf32_products": products.allow_tf32,
    }


@cache
def _machine(device: torch.device) -> dict[str, Any]:
    versions = {"torch": str(torch.__version__)}
    with suppress(importlib.metadata.PackageNotFoundError):
        versions["numba"] = importlib.metadata.version("numba")
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "versions": versions}
    level = torch.backends.cpu.get_cpu_capability()
    return {"device": f"{local.processor()}, {level}", "versions": versions}


def by_channels(kernel: Tensor) -> bool:
    """Whether a kernel lies channel by channel of a tap; torch's convolution answers likewise.

    One of a single channel a group is contiguous in either layout: its strides tell.

    Example:
        >>> kernel = torch.rand(4, 1, 3, 3)
        >>> by_channels(kernel), by_channels(kernel.to(memory_format=torch.channels_last))
        (False, True)
    """
    return kernel.dim() == 4 and kernel.stride(1) == 1 and kernel.shape[2] * kernel.shape[3] > 1


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies channel by channel of a pixel, and not also plane by plane."""
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )
