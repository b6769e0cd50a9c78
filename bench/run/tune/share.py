"""The trials of a study: one after the other in this process, or each in a job of its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import optuna
from optuna.trial import FrozenTrial

from bench.config.speed import SpeedConfig
from bench.errors import Failure
from bench.run import gpus
from bench.run.cell import WAIT_S
from bench.run.executor import Executor
from bench.run.suite import hush
from bench.run.tune.database import Shared, opened
from bench.run.tune.kept import run_of
from bench.run.tune.ratio import time_ratio
from bench.run.tune.spaces import default_params
from bench.run.tune.study import Direction, Search, ended, failed, sampler_of
from bench.run.tune.trial import Trials, closed, words_of
from bench.store import Store, StoreError
from tasks.seeds import derive

if TYPE_CHECKING:
    from bench.run.tune.arm import Arm

MOST_FAILURES = 5
_WAIT_S = 2
Told = Callable[[int, str], object]


@dataclass(frozen=True)
class Share:
    """What runs the trials of a study.

    Attributes:
        arm: what is tuned.
        search: how.
        title: of the study.
        plan: how its suite is timed, for the objective `time`.
        folder: the runs folder.
        earlier: numbers of the trials that had failed when the command began: what made them fail
            may be mended.
    """

    arm: Arm
    search: Search
    title: str
    plan: SpeedConfig
    folder: Path
    earlier: frozenset[int] = frozenset()

    def __call__(self, job: str) -> None:
        """Run a trial in a process of its own, if there is room for one more."""
        hush()
        store = Store(self.folder, wait_s=WAIT_S)
        shared = self.opened(store, joins=True)
        shared.lost(job, "its machine was lost")  # the job is placed anew
        if len(self.failures(shared.study)) >= MOST_FAILURES:
            return
        # drawn anew in every job: it knows nothing of the others' draws
        trial_of = self.trials_of(shared.study, store, derive(self.arm.cell.seed, job))
        with gpus.taken(gpus.visible()):
            shared.run(trial_of, self.search.trials, job=job)

    def opened(self, store: Store, *, joins: bool = False) -> Shared:
        """Open the study; see to its default, unless it joins a command that has."""
        better: Direction = "maximize" if self.arm.higher_is_better else "minimize"
        directions: list[Direction] = [better, "minimize"]
        return opened(
            store,
            self.title,
            self.search,
            directions[: len(self.search.objectives)],
            None if joins else default_params(self.arm.cell, self.arm.spaces),
            partial(closed, store),
        )

    def trials_of(self, study: optuna.Study, store: Store, seed: int) -> Trials:
        """Return what a trial is, and have the study draw by a seed."""
        arm, cell = self.arm, self.arm.cell
        study.sampler = sampler_of(self.search.sampler, seed % 2**32)
        ratio = partial(time_ratio, cell, plan=self.plan, store=store)
        timed = ratio if "time" in self.search.objectives else None
        parent = run_of(study, store, arm)
        return Trials(study, cell, arm.held_out.config, arm.spaces, store, parent, timed)

    def unfinished(self, study: optuna.Study) -> bool:
        """Whether trials are wanted, and not too many have failed."""
        wanted = len(ended(study)) < self.search.trials
        return wanted and len(self.failures(study)) < MOST_FAILURES

    def failures(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return the trials that have failed since the command began."""
        return [trial for trial in failed(study) if trial.number not in self.earlier]


def work(share: Share, shared: Shared, store: Store, told: Told) -> None:
    """Run the trials of a study in this process, one after the other; tell of each that ends."""
    study = shared.study
    # drawn anew at every start: a study that goes on must not repeat its first draws
    trial_of = share.trials_of(study, store, derive(share.arm.cell.seed, len(study.trials)))

    def report(study: optuna.Study, trial: FrozenTrial) -> None:
        told(len(ended(study)), f"trial {trial.number}{words_of(trial, share.arm.spaces)}")

    shared.retry_silent()
    while share.unfinished(study):
        if not shared.run(trial_of, share.search.trials, [report]):
            time.sleep(_WAIT_S)  # another process runs the last, or died there
        shared.retry_silent()


def share_out(share: Share, shared: Shared, executor: Executor, told: Told) -> None:
    """Have every trial of a study run by a job of its own; tell of each that ends.

    A job that dies is known at once, and its trial is queued again.

    Raises:
        StoreError: the store cannot be used.
        Failure: jobs ended before their time, and no trial had ended since.
    """
    study = shared.study
    known = {trial.number for trial in study.trials if trial.state.is_finished()}
    names = map(f"{uuid4().hex[:8]}-{{}}".format, itertools.count())

    def tell() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in known:
                known.add(trial.number)
                words = f"trial {trial.number}{words_of(trial, share.arm.spaces)}"
                told(len(ended(study)), words)

    shared.retry_silent()
    while share.unfinished(study):
        jobs = list(itertools.islice(names, max(0, share.search.trials - shared.begun())))
        known_before, lost = len(known), ""
        with _repeating(tell):
            for event in executor.run(share, jobs):
                if isinstance(event.value, StoreError):
                    raise event.value  # so would every job to come
                if event.kind not in ("started", "done"):
                    lost = str(event.value)
                    shared.lost(event.job, lost, retry=event.kind != "timeout")
        if not jobs:
            time.sleep(_WAIT_S)  # another command runs the last, or died there
        shared.retry_silent()
        tell()
        if lost and len(known) == known_before:
            raise Failure(f"the study's processes ended before their time, the last by: {lost}")


@contextmanager
def _repeating(act: Callable[[], object]) -> Iterator[None]:
    """Do something every two seconds meanwhile."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(2):
            with suppress(Exception):  # a database that is away for a while
                act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
