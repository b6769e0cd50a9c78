"""Worker processes: how they are started, spoken to, and how they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

from bench.failures import killed_for_memory
from bench.speed.job import IMPORTED, MEASURING, READY, Job, Note, Place

Result = dict[str, Any]
START_S = 600.0
"""The least time that a worker is given to start and to import what its job needs: on a busy
machine that takes minutes, and says nothing about what is measured."""


@dataclass(frozen=True)
class Death:
    """How and where a worker ended before it had a result; `batch` None means all."""

    status: Literal["oom", "error", "timeout"]
    why: str
    label: str | None
    batch: int | None


class Worker:
    """One process, that does one job after the other.

    It imports what a job needs and builds its arms, then waits, idle, to be told to go: that
    takes as long as measuring does in a short run, so several workers do it at the same time, while
    nothing is measured; while one measures, the others are blocked and nothing else runs.

    Args:
        folder: for its log and its note.
        name: of those files.
        threads: of its libraries.
    """

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        self.threads = threads
        self.ready = False
        self.limit_s = START_S  # of what it does now
        self.note, self.log = folder / f"{name}.note", folder / f"{name}.log"
        self.note.unlink(missing_ok=True)
        self.connection, other = Pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_DYNAMIC": "FALSE",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, "-m", "bench.speed.worker", str(other.fileno()), str(self.note)]
        with self.log.open("wb") as log:
            # A session of its own: an interrupt reaches the parent alone, which ends its workers.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[other.fileno()],
                start_new_session=True,
            )
        other.close()

    def load(self, job: Job) -> None:
        """Hand it a job, whose imports and networks it begins with."""
        self.ready = False
        with suppress(BrokenPipeError):  # `go` finds it dead
            self.connection.send(job)

    def wait_ready(self, limit_s: float) -> None:
        """Return when the worker has made everything ready, has died, or the time is up."""
        with suppress(EOFError, ConnectionError):
            if self._answers(max(limit_s, START_S)) and self.connection.recv() == IMPORTED:
                self.ready = self._answers(limit_s) and self.connection.recv() == READY

    def go(self, skip: frozenset[Place], limit_s: float) -> Result | Death:
        """Let it measure everything but `skip`; return its result or how it died."""
        result: Result | None = None
        timeout = False
        try:
            self.connection.send(skip)
            timeout = not (self.ready and self._answers(limit_s))
            if not timeout:
                result = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.wait()
        finally:
            if result is None:
                self.end()
        return self._death(self.limit_s if timeout else None) if result is None else result

    def _answers(self, limit_s: float) -> bool:
        """Whether it says something within a time, or has ended."""
        self.limit_s = limit_s
        return self.connection.poll(limit_s)

    def end(self) -> None:
        """End it where it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()

    def _death(self, timeout: float | None) -> Death:
        note = Note.read(self.note) or {"stage": "start", "label": None, "batch": None}
        lines = self.log.read_text(errors="replace").strip().splitlines()
        said = f"; it said: {lines[-1][:300]}" if lines else ""
        at, code = f"at stage {note['stage']!r}", self.process.returncode
        status: Literal["oom", "error", "timeout"] = "error"
        if timeout is not None:
            status, why = "timeout", f"the process was ended after {timeout:g} s {at}"
        elif killed_for_memory(code):
            status, why = (
                "oom",
                f"the process was killed {at}, twice, as happens when memory runs out",
            )
        elif code < 0:
            why = f"the process died of {signal.Signals(-code).name} {at}, twice{said}"
        else:
            why = f"the process ended with exit code {code} {at}, twice{said}"
        return Death(status, why, note["label"], note["batch"])


class Crew:
    """The workers of one run, or of several runs that follow each other.

    A run's process k is done by worker k. A worker stays for the next run, so that imports are
    paid for once; on a GPU it does not, since an idle process holds memory of the device.

    Args:
        ahead: how many workers make ready at the same time.

    Attributes:
        measured_s: what the workers have spent on measuring alone: memory, warm-ups and turns.
    """

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.measured_s = 0.0
        self._workers: dict[str, Worker] = {}
        self._loaded: set[str] = set()
        self._folder = TemporaryDirectory(prefix="convboard-speed-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._workers):
            self.dismiss(name)
        self._folder.cleanup()

    def load(self, jobs: Iterable[tuple[str, Job]], limit_s: float) -> None:
        """Hand the next few jobs to their workers, and wait until all are ready."""
        names = []
        for name, job in list(jobs)[: self.ahead]:
            worker = self._workers.get(name)
            if worker is not None and worker.threads != job.settings.threads:
                self.dismiss(name)
                worker = None
            if worker is None:
                worker = Worker(Path(self._folder.name), name, job.settings.threads)
                self._workers[name] = worker
            worker.load(job)
            names.append(name)
        for name in names:
            self._workers[name].wait_ready(limit_s)
        self._loaded.update(names)

    def is_loaded(self, name: str) -> bool:
        """Whether the worker has its next job."""
        return name in self._loaded

    def go(self, name: str, job: Job, skip: frozenset[Place], limit_s: float) -> Result | Death:
        """Let the worker do its job; one that died is dismissed."""
        if not self.is_loaded(name):
            self.load([(name, job)], limit_s)
        self._loaded.discard(name)
        answer = self._workers[name].go(skip, limit_s)
        if isinstance(answer, Death) or job.settings.device == "cuda":
            self.dismiss(name)
        if not isinstance(answer, Death):
            self.measured_s += sum(answer["seconds"].get(stage, 0.0) for stage in MEASURING)
        return answer

    def unload(self) -> None:
        """Forget what jobs the workers have: the next run hands out its own."""
        self._loaded.clear()

    def dismiss(self, name: str) -> None:
        """End a worker."""
        self._loaded.discard(name)
        self._workers.pop(name).end()
