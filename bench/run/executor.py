"""What runs jobs: the interface that the processes of this machine, Ray and SLURM share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

Job = TypeVar("Job")
EXECUTORS = ("processes", "ray", "slurm")


@dataclass(frozen=True)
class Event(Generic[Job]):
    """What became of a job.

    `done` has the value that its function returned; `failed` has what it raised; `died` and
    `timeout` say in words how its process ended.
    """

    kind: Literal["started", "done", "failed", "died", "timeout"]
    job: Job
    value: Any = None


@dataclass(frozen=True)
class Needs:
    """What a job takes of a machine.

    Attributes:
        devices: GPUs, or processes on the CPU; all on one machine.
        cpu: whether it computes on the CPU although there may be GPUs.
        tasks: class paths of modules of `tasks`, whose packages may be imported ahead.
    """

    devices: int = 1
    cpu: bool = False
    tasks: frozenset[str] = frozenset()


def one_device(job: object) -> Needs:
    """Return the needs of a job that asks for nothing."""
    return Needs()


class Executor(Protocol):
    """Runs jobs in processes of their own, here or elsewhere."""

    @property
    def workers(self) -> int:
        """Jobs that run at a time, as far as is known."""

    def require_ready(self, folder: Path, needs: Needs) -> None:
        """Say before any work that it could not be done.

        Args:
            folder: the runs folder.
            needs: the most that a job takes, of each kind.

        Raises:
            UserError: what was asked for is not there.
            Failure: it does not answer.
        """

    def run(
        self,
        function: Callable[[Job], Any],
        jobs: Sequence[Job],
        needs: Callable[[Job], Needs] = one_device,
    ) -> Iterator[Event[Job]]:
        """Yield events as they come; `function` and `jobs` must pickle.

        Leaving the iteration early (an error, Ctrl-C) cancels what runs, and ends its processes.
        """
