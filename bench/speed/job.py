"""What a worker process is handed, and what it hands back."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bench.speed.protocol import Settings


@dataclass(frozen=True)
class Job:
    """One worker's work; factories are pickled one by one, so that one that fails is one row.

    `images` (N, C, H, W) are timed on in place of noise; `skip` holds the (label, batch) that
    failed before; `memory` asks for the memory pass, before the times on a CPU, in place of them
    on a GPU.
    """

    settings: Settings
    arms: list[tuple[str, bytes]]
    prepare: bytes
    process: int
    images: NDArray[np.float32] | None = None
    skip: frozenset[tuple[str, int]] = frozenset()
    memory: bool = False

    def factory(self, label: str) -> Callable[[], nn.Module]:
        """Return the factory of an arm."""
        factory: Callable[[], nn.Module] = pickle.loads(dict(self.arms)[label])
        return factory

    def load_prepare(self) -> Callable[[nn.Module], nn.Module] | None:
        """Return what makes the timed form of the training form, if anything."""
        prepare: Callable[[nn.Module], nn.Module] | None = pickle.loads(self.prepare)
        return prepare


@dataclass
class Timing:
    """One arm at one batch size in one process."""

    label: str
    batch: int
    status: str = "ok"
    error: str | None = None
    gate_error: float | None = None
    first_call_ms: float | None = None
    warmup_iterations: int | None = None
    steady: bool | None = None
    block_iterations: int | None = None
    samples_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    host_bound_blocks: int = 0
    memory: dict[str, int] | None = None

    @property
    def alive(self) -> bool:
        """Whether nothing has failed so far."""
        return self.status == "ok"

    def fail(self, status: str, why: str) -> None:
        """Make this a row of a failure; the first reason stays."""
        if self.alive:
            self.status, self.error = status, why

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


class Note:
    """A file that says at what a worker is, read when the worker has died.

    It is written in place, with one system call, outside of the timed blocks.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def __call__(self, stage: str, label: str | None = None, batch: int | None = None) -> None:
        """Say that `stage` of an arm begins; None means of no arm, or at all batches."""
        text = json.dumps({"stage": stage, "label": label, "batch": batch}).encode()
        os.pwrite(self._handle, text + b"\n", 0)

    @staticmethod
    def read(path: Path) -> dict[str, Any] | None:
        """Return the last note, or None where the worker never wrote one."""
        text = path.read_bytes().split(b"\n")[0] if path.exists() else b""
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found
