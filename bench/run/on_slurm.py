"""submitit, in one place: it hands jobs to SLURM, or runs them as SLURM would on this machine."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Generic

from bench.errors import Failure, UserError
from bench.run.executor import Event, Job, Needs, one_device
from bench.run.node import OnNode, Sealed, answers, surroundings
from bench.run.processes import default_workers
from bench.store import server

LOCAL = "local"
FOLDER = "slurm"
"""In the runs folder: what submitit passes jobs through, and what they printed."""
_POLL_S = 1.0
_CANCEL_S = 60
_MORE_S = 120
"""What SLURM grants a job beyond its own time limit, which is told in better words."""


class OnSlurm:
    """Runs jobs as SLURM's, each on one node, or by submitit's stand-in for it on this machine.

    The runs folder must lie where all machines see it: submitit passes jobs through it. One that
    SLURM preempts is queued again, and goes on from its last checkpoint. Jobs of a command that was
    killed go on; those of one that was stopped by Ctrl-C are cancelled.

    Args:
        timeout_s: see `LocalProcesses`.
        folder: the runs folder.
        cluster: None for SLURM, `LOCAL` for this machine.
        cpus: cores for each device of a job.
        gpus: GPUs for each device of a job.
        workers: jobs that are handed over at a time; None for all of them.
        parameters: of sbatch: name → value, such as partition and account.

    Raises:
        UserError: submitit is not installed, or there is no SLURM.
    """

    def __init__(
        self,
        timeout_s: float,
        folder: Path,
        cluster: str | None = None,
        cpus: int = 1,
        gpus: int = 0,
        workers: int | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UserError(
                "`--executor` (='slurm') needs submitit: pip install 'convboard[slurm]'."
            ) from None
        if cluster not in (None, LOCAL):
            raise UserError(f"`--address` (={cluster!r}) must be left out for slurm, or be local.")
        if cluster is None and shutil.which("sbatch") is None:
            raise UserError(
                "`--executor` (='slurm') needs SLURM: no sbatch is on the PATH; with --address "
                "local the same is tried on this machine."
            )
        self.timeout_s, self.cpus, self.gpus = timeout_s, cpus, gpus
        self.most = workers or (default_workers() if cluster == LOCAL else None)
        self.parameters = dict(parameters or {})
        self.folder, self.cluster = folder / FOLDER, cluster or "slurm"
        self.submitit: Any = submitit

    @property
    def workers(self) -> int:
        """Jobs at a time, as far as was asked for: how many SLURM starts it alone knows."""
        return self.most or 1

    def require_ready(self, folder: Path, needs: Needs) -> None:
        """Say that a server does not answer; which nodes there are, SLURM knows and says."""
        address = server()
        if address is not None and not answers(address):
            raise Failure("the server that MLFLOW_TRACKING_URI names does not answer.")

    def run(
        self,
        function: Callable[[Job], Any],
        jobs: Sequence[Job],
        needs: Callable[[Job], Needs] = one_device,
    ) -> Iterator[Event[Job]]:
        """Yield events as they come; see `Executor`."""
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        started: set[Any] = set()
        try:
            while waiting or running:
                while waiting and (self.most is None or len(running) < self.most):
                    job = waiting.popleft()
                    running[self._submit(function, job, needs(job))] = job
                for task, job in list(running.items()):
                    over = task.done()
                    if task not in started and (over or task.state == "RUNNING"):
                        started.add(task)
                        yield Event("started", job)
                    if over:
                        del running[task]
                        yield self._event(task, job)
                time.sleep(_POLL_S)
        finally:
            _cancel(list(running))

    def _submit(self, function: Callable[[Job], Any], job: Job, needs: Needs) -> Any:
        """Hand over a job; return submitit's."""
        executor = self.submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
        cpus = needs.devices * self.cpus
        parameters: dict[str, Any] = {
            "timeout_min": ceil((self.timeout_s + _MORE_S) / 60),
            "nodes": 1,
            "tasks_per_node": 1,
            "cpus_per_task": cpus,
            "gpus_per_node": 0 if needs.cpu else needs.devices * self.gpus,
            "slurm_job_name": "convboard",
            "slurm_additional_parameters": self.parameters,
        }
        executor.update_parameters(**parameters)
        work = OnNode(Sealed.of(function), self.timeout_s, cpus, surroundings())
        return executor.submit(_Requeued(work), job)

    def _event(self, task: Any, job: Job) -> Event[Job]:
        """Return what has come of a job that is over."""
        error = task.exception()
        if error is None:
            event: Event[Job] = task.result()
            return replace(event, job=job)
        lines = [line.strip() for line in str(error).splitlines() if line.strip("- \t")]
        words = lines[-1][:300] if lines else type(error).__name__
        return Event("died", job, f"its SLURM job {task.job_id} ended as {task.state}: {words}")


@dataclass(frozen=True)
class _Requeued(Generic[Job]):
    """A job that SLURM may stop for another's sake: submitit queues it again."""

    work: OnNode[Job]

    def __call__(self, job: Job) -> Event[Job]:
        """Run the job to its end; return the last of its events."""
        *_, last = self.work(job)
        return last

    def checkpoint(self, job: Job) -> Any:
        """Return what is queued in place of this; submitit calls it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _cancel(tasks: list[Any]) -> None:
    """Cancel jobs, and wait until they are over."""
    for task in tasks:
        task.cancel(check=False)
    until = time.monotonic() + _CANCEL_S
    while not all(task.done() for task in tasks) and time.monotonic() < until:
        time.sleep(_POLL_S)
