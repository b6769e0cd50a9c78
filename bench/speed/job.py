"""What a worker process is handed, and what it hands back."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bench.speed.protocol import Settings

IMPORTED, READY = "imported", "ready"
"""What a worker says when it has imported all that a job needs, and when it has built it."""
MEASURING = ("memory", "warm-up", "rounds", "energy")
"""Stages of a worker in which it measures; in the others it builds and checks what is measured."""
Place = tuple[str, int]
"""(label, batch): what one row is about."""


@dataclass(frozen=True)
class Job:
    """One worker's work; factories are pickled one by one, so that one that fails is one row.

    Attributes:
        settings: of the run.
        arms: (label, pickled factory).
        prepare: pickled; what makes the timed form of the training form.
        process: number of the process, from 0; its orders are drawn by it.
        images: a .npy file of (N, C, H, W) float32 that is timed on in place of noise; workers
            map it into memory, so that it is there once.
        imports: modules that are imported as arms are built, unless that was done before.
        skip: places that failed before.
        memory: take the memory pass, in place of the times.
        limit_s: the time after which one place of the memory pass is given up.
    """

    settings: Settings
    arms: list[tuple[str, bytes]]
    prepare: bytes
    process: int
    images: Path | None = None
    imports: tuple[str, ...] = ()
    skip: frozenset[Place] = frozenset()
    memory: bool = False
    limit_s: float = 3600.0

    @property
    def labels(self) -> list[str]:
        """The arms' labels."""
        return [label for label, _ in self.arms]

    @property
    def places(self) -> list[Place]:
        """What is measured."""
        places = [(label, batch) for label in self.labels for batch in self.settings.batches]
        return [place for place in places if place not in self.skip]

    def factory(self, label: str) -> Callable[[], nn.Module]:
        """Return the factory of an arm."""
        factory: Callable[[], nn.Module] = pickle.loads(dict(self.arms)[label])
        return factory

    def load_prepare(self) -> Callable[[nn.Module], nn.Module] | None:
        """Return what makes the timed form of the training form, if anything."""
        prepare: Callable[[nn.Module], nn.Module] | None = pickle.loads(self.prepare)
        return prepare

    def images_of(self, batch: int) -> NDArray[np.float32] | None:
        """Return a copy of the first images, over and over where there are fewer than a batch."""
        if self.images is None:
            return None
        images: NDArray[np.float32] = np.load(self.images, mmap_mode="r")
        return np.asarray(images[np.arange(batch) % len(images)])


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
    gpu: list[dict[str, Any]] = field(default_factory=list)
    energy_per_image_joules: float | None = None
    forms: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int] | None = None
    memory_error: str | None = None

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
        self._seconds: dict[str, float] = {}
        self._at: str | None = None
        self._since = 0.0

    def __call__(self, stage: str, label: str | None = None, batch: int | None = None) -> None:
        """Say that `stage` of an arm begins; None means of no arm, or at all batches."""
        now = time.monotonic()
        if self._at is not None:
            self._seconds[self._at] = self._seconds.get(self._at, 0.0) + now - self._since
        self._at, self._since = stage, now
        text = json.dumps({"stage": stage, "label": label, "batch": batch}).encode()
        os.pwrite(self._handle, text + b"\n", 0)

    def taken(self) -> dict[str, float]:
        """Return stage → seconds that it has taken since this was last asked."""
        seconds, self._seconds = self._seconds, {}
        return seconds

    @staticmethod
    def read(path: Path) -> dict[str, Any] | None:
        """Return the last note, or None where the worker never wrote one."""
        text = path.read_bytes().split(b"\n")[0] if path.exists() else b""
        note: dict[str, Any] | None = json.loads(text) if text else None
        return note
