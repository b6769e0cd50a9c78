"""Which executor runs jobs: the processes of this machine, Ray, or SLURM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.config.cell import Cell
from bench.errors import UserError, near
from bench.run.executor import EXECUTORS, Executor, Needs
from bench.run.processes import LocalProcesses, default_workers
from bench.run.ranks import needs_of


@dataclass(frozen=True)
class Engine:
    """An executor as the command line names it.

    Attributes:
        name: one of `EXECUTORS`.
        workers: jobs at a time; None for what the executor takes to be right.
        address: of a Ray cluster; of SLURM, `local` for this machine in its place.
        cpus: cores for each device of a job, on Ray and SLURM.
        gpus: GPUs for each device of a job; None is 1 on Ray, where there are any, and 0 on SLURM.
        slurm: NAME=VALUE of sbatch.
    """

    name: str = "processes"
    workers: int | None = None
    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    slurm: Sequence[str] = ()

    def executor(self, folder: Path, timeout_minutes: float) -> Executor:
        """Return the executor, connected.

        Args:
            folder: the runs folder.
            timeout_minutes: of one job.

        Raises:
            UserError: an argument is wrong, or an optional package is not there.
            Failure: a cluster does not answer.
        """
        self.require_sound()
        seconds = timeout_minutes * 60
        cpus = self.cpus or 1
        if self.name == "ray":
            from bench.run.on_ray import OnRay

            return OnRay(seconds, self.address, cpus, self.gpus, self.workers)
        if self.name == "slurm":
            from bench.run.on_slurm import OnSlurm

            gpus = int(self.gpus or 0)
            parameters = dict(text.split("=", 1) for text in self.slurm)
            return OnSlurm(seconds, folder, self.address, cpus, gpus, self.workers, parameters)
        return LocalProcesses(self.workers or default_workers(), seconds)

    def require_sound(self) -> None:
        """UserError where an argument is wrong, or is another executor's."""
        if self.name not in EXECUTORS:
            raise UserError(f"`--executor` (={self.name!r}) is none; {near(self.name, EXECUTORS)}")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"`--workers` (={self.workers}) must be at least 1.")
        if self.cpus is not None and self.cpus < 1:
            raise UserError(f"`--cpus` (={self.cpus}) must be at least 1.")
        if self.gpus is not None and self.gpus < 0:
            raise UserError(f"`--gpus` (={self.gpus:g}) must be at least 0.")
        if self.name == "slurm" and self.gpus is not None and self.gpus % 1:
            raise UserError(f"`--gpus` (={self.gpus:g}) must be a whole number for slurm.")
        of_others = {"--address": self.address, "--cpus": self.cpus, "--gpus": self.gpus}
        for flag, value in of_others.items():
            if value is not None and self.name == "processes":
                raise UserError(f"`{flag}` (={value!r}) is for --executor ray or slurm.")
        if self.slurm and self.name != "slurm":
            raise UserError(f"`--slurm` (={self.slurm[0]!r}) is for --executor slurm.")
        for text in self.slurm:
            if not text.partition("=")[2]:
                raise UserError(f"`--slurm` (={text!r}) must read NAME=VALUE: partition=gpu.")


def most_needs(cells: Iterable[Cell]) -> Needs:
    """Return the needs of the cell that takes most devices, with the tasks of all."""
    needs = [needs_of(cell) for cell in cells]
    most = max(needs, key=lambda of_one: of_one.devices, default=Needs())
    return replace(most, tasks=frozenset().union(*(of_one.tasks for of_one in needs)))
