"""Jobs in processes of this machine: a fresh one for each, with a time limit of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, Generic

from pebble import ProcessExpired, ProcessFuture
from pebble.concurrent import process

from bench.errors import UserError
from bench.failures import killed_for_memory
from bench.machine import usable_cores, usable_threads
from bench.run import gpus, same_code
from bench.run.executor import Event, Job, Needs, one_device
from bench.speed import lifetime

NAME = "convboard-worker"
TASKS = "CONVBOARD_TASKS"
"""Environment variable in which the server of the processes reads what tasks it is to import."""


class LocalProcesses:
    """Runs jobs in fresh processes, so many at a time; what happens to one is its own.

    Args:
        workers: processes at a time; see `default_workers`.
        timeout_s: the most seconds that one job may take, with the start of its process.
        threads: torch's threads in each; None shares the cores out.
    """

    def __init__(self, workers: int, timeout_s: float, threads: int | None = None) -> None:
        if workers < 1:
            raise UserError(f"`workers` (={workers}) must be at least 1.")
        self.workers = workers
        self.timeout_s = timeout_s
        self.threads = threads or max(1, usable_threads() // workers)

    def require_ready(self, folder: Path, needs: Needs) -> None:
        """UserError where a job takes more devices than this machine has.

        The server of the processes begins its imports, which take seconds, in the meantime.
        """
        require_devices(needs, len(gpus.visible()), usable_cores(), "this machine")
        if _context().get_start_method() == "forkserver":
            os.environ[TASKS] = ",".join(sorted(needs.tasks))
            try:
                forkserver.ensure_running()
            finally:
                del os.environ[TASKS]

    def run(
        self,
        function: Callable[[Job], Any],
        jobs: Sequence[Job],
        needs: Callable[[Job], Needs] = one_device,
    ) -> Iterator[Event[Job]]:
        """Yield events as they come; `function` and `jobs` must pickle.

        Leaving the iteration early (an error, Ctrl-C) ends the processes. Jobs of several devices
        run at the same time as far as the machine has them; which GPUs a job takes is its own to
        choose, see `bench.run.gpus`.

        Raises:
            CodeChanged: our code was changed since the processes' server imported it.
        """
        context = _context()
        # not a daemon: a job's data loaders and ranks are processes too
        # (called as a decorator: as a plain call pebble forgets the context, and forks)
        prepare = process(**_options(self, context))
        start = prepare(_Prepared(function, dict(os.environ), self.threads))  # type: ignore[no-untyped-call]
        waiting = deque(jobs)
        running: dict[ProcessFuture[Any], Job] = {}
        try:
            while waiting or running:
                while waiting and self._has_room(needs(waiting[0]), map(needs, running.values())):
                    job = waiting.popleft()
                    running[start(job)] = job
                    yield Event("started", job)
                wait(running, return_when=FIRST_COMPLETED)
                for future in [future for future in running if future.done()]:
                    event = _event(future, running.pop(future), self.timeout_s)
                    if isinstance(event.value, same_code.CodeChanged):
                        raise event.value  # so would every job to come: it is none's failure
                    yield event
        finally:
            for future in running:
                future.cancel()  # type: ignore[no-untyped-call]
            _all_ended()

    def _has_room(self, needs: Needs, others: Iterable[Needs]) -> bool:
        """Whether a job may start beside others that run."""
        running = list(others)
        if not running or len(running) >= self.workers:
            return not running
        devices = [one.devices for one in (needs, *running)]
        most, _ = _most(needs, len(gpus.visible()), usable_cores())
        return max(devices) == 1 or sum(devices) <= most


def default_workers() -> int:
    """One process a core on a CPU, up to four; on a machine with GPUs one for each."""
    return len(gpus.visible()) or min(4, usable_cores())


def require_devices(needs: Needs, graphics: int, cores: int, where: str) -> None:
    """UserError where a job takes more devices than a machine has: GPUs, or cores without any.

    Example:
        >>> require_devices(Needs(devices=4), 2, 16, "this machine")
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `devices` (=4) must be at most 2, the GPUs of this machine.
    """
    most, unit = _most(needs, graphics, cores)
    if needs.devices > most:
        rule = f"at most {most}, the {unit} of {where}"
        raise UserError(f"`devices` (={needs.devices}) must be {rule}.")


def _most(needs: Needs, graphics: int, cores: int) -> tuple[int, str]:
    """Return how many devices of the kind that a job takes a machine has, and what they are."""
    return (graphics, "GPUs") if graphics and not needs.cpu else (cores, "cores")


def _context() -> Any:
    """Return how processes are started: forked off a server that has imported what they need.

    The server has computed nothing, so no thread and no CUDA context is forked with it; a process
    is there at once, and as fresh as one that has just imported.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.run.preload"])
    return context


def _options(engine: LocalProcesses, context: Any) -> dict[str, Any]:
    return {
        "name": NAME,
        "daemon": False,
        "timeout": engine.timeout_s,
        "context": context,
    }


def _event(future: ProcessFuture[Any], job: Job, timeout_s: float) -> Event[Job]:
    error = future.exception()
    if error is None:
        return Event("done", job, future.result())
    if isinstance(error, TimeoutError):
        return Event("timeout", job, f"took more than {timeout_s / 60:g} minutes")
    if isinstance(error, ProcessExpired):
        return Event("died", job, f"its process ended: {_how(error.exitcode)}")
    return Event("failed", job, error)


def _how(exitcode: int | None) -> str:
    """Say how a process ended.

    Example:
        >>> _how(3), _how(-9)
        ('exit code 3', 'SIGKILL, as happens when memory runs out')
    """
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    more = ", as happens when memory runs out" if killed_for_memory(exitcode) else ""
    return f"{signal.Signals(-exitcode).name}{more}"


def _all_ended() -> None:
    """Wait until the processes of cancelled jobs are gone: pebble ends them."""
    for child in multiprocessing.active_children():
        if child.name == NAME:
            child.join(30)
            if child.is_alive():
                child.kill()
                child.join()


@dataclass(frozen=True)
class _Prepared(Generic[Job]):
    """A function of a job, in a process that is made ready for it."""

    function: Callable[[Job], Any]
    environment: Mapping[str, str]
    threads: int

    def __call__(self, job: Job) -> Any:
        end_with_parent()
        # the server's are as they were at its start; Ray gives each job GPUs of its own
        os.environ.pop(gpus.VISIBLE, None)
        os.environ.update(self.environment, OMP_NUM_THREADS=str(self.threads))
        import torch

        torch.set_num_threads(self.threads)
        same_code.require_same_code()
        return self.function(job)


def end_with_parent() -> None:
    """Have this process end when its parent does, however that happens.

    The parent of a process that was forked off a server is who asked for it: the pipe that it
    holds says when it is gone. Elsewhere the system is asked, where it can.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()
    elif sys.platform == "linux":
        before = os.getppid()
        lifetime.end_with_parent()
        if os.getppid() != before:
            os._exit(1)


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
