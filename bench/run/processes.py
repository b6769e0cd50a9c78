"""Engines that run cells: processes of this machine, one job in each at a time."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from bench.errors import UserError

Job = TypeVar("Job")


@dataclass(frozen=True)
class Event(Generic[Job]):
    """What became of a job: it started, gave a value, or its process was lost."""

    kind: Literal["started", "done", "died", "timeout"]
    job: Job
    value: Any = None


def _ready(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us; checkpoints resume
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


class LocalProcesses:
    """Runs jobs in `workers` fresh processes; one that dies costs its own job only.

    Args:
        workers: processes at a time.
        timeout_s: the most seconds that one job may take.
        threads: torch's threads in each; None shares the cores out.
    """

    def __init__(self, workers: int, timeout_s: float, threads: int | None = None) -> None:
        if workers < 1:
            raise UserError(f"`workers` (={workers}) must be at least 1.")
        self.workers = workers
        self.timeout_s = timeout_s
        self.threads = threads or max(1, (os.cpu_count() or 1) // workers)

    def run(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[Event[Job]]:
        """Yield events as they come; `function` and `jobs` must pickle.

        Leaving the iteration early (an error, Ctrl-C) ends the processes.
        """
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        events: queue.Queue[Event[Job] | BaseException | None] = queue.Queue()
        slots = [
            _Slot(self, function, waiting, events) for _ in range(min(self.workers, len(jobs)))
        ]
        try:
            for slot in slots:
                slot.start()
            running = len(slots)
            while running:
                event = events.get()
                if event is None:
                    running -= 1
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield event
        finally:
            for slot in slots:
                slot.end()


class _Slot(threading.Thread, Generic[Job]):
    def __init__(
        self,
        engine: LocalProcesses,
        function: Callable[[Job], Any],
        waiting: queue.SimpleQueue[Job],
        events: queue.Queue[Event[Job] | BaseException | None],
    ) -> None:
        super().__init__(daemon=True)
        self.engine, self.function, self.waiting, self.events = engine, function, waiting, events
        self.pid: int | None = None
        self.ended = False

    def _pool(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), _ready, (self.engine.threads,)
        )
        self.pid = pool.submit(os.getpid).result()
        if self.ended:
            self.kill()
        return pool

    def run(self) -> None:
        pool = None
        try:
            while not self.ended:
                try:
                    job = self.waiting.get_nowait()
                except queue.Empty:
                    break
                pool = pool or self._pool()
                self.events.put(Event("started", job))
                future = pool.submit(self.function, job)
                try:
                    value = future.result(self.engine.timeout_s)
                except TimeoutError:
                    self.kill()
                    self.events.put(Event("timeout", job))
                    pool = None
                except BrokenProcessPool as error:
                    self.events.put(Event("died", job, str(error)))
                    pool = None
                else:
                    self.events.put(Event("done", job, value))
        except BaseException as error:
            self.events.put(error)
        finally:
            if pool is not None:
                pool.shutdown(wait=not self.ended, cancel_futures=True)
            self.events.put(None)

    def kill(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        self.ended = True
        if self.is_alive():
            self.kill()
