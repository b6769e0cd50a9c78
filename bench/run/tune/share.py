"""Processes that share a study: each runs trials, until all together have run so many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState

from bench.config.schema import SpeedConfig
from bench.errors import Failure
from bench.run import gpus
from bench.run.cell import WAIT_S
from bench.run.executor import Executor
from bench.run.suite import hush
from bench.run.tune.kept import run_of
from bench.run.tune.ratio import time_ratio
from bench.run.tune.spaces import default_params
from bench.run.tune.study import Direction, Search, ended, failed, opened, sampler_of
from bench.run.tune.trial import Trials, closed, words_of
from bench.store import Store
from tasks.seeds import derive

if TYPE_CHECKING:
    from bench.run.tune.arm import Arm

MOST_FAILURES = 5
Told = Callable[[int, str], object]


@dataclass(frozen=True)
class Share:
    """A process's share of a study.

    Attributes:
        arm: what is tuned.
        search: how.
        title: of the study.
        plan: how its suite is timed, for the objective `time`.
        folder: the runs folder.
    """

    arm: Arm
    search: Search
    title: str
    plan: SpeedConfig
    folder: Path

    def __call__(self, number: int) -> None:
        """Work on the study in a process of its own; the processes' numbers differ."""
        hush()
        store = Store(self.folder, wait_s=WAIT_S)
        with gpus.one_of(gpus.visible()):
            self.work(store, number=number)

    def opened(self, store: Store) -> tuple[optuna.Study, Callable[[], None]]:
        """Return the study, and what retries the trials that Optuna leaves; see `opened`."""
        better: Direction = "maximize" if self.arm.higher_is_better else "minimize"
        directions: list[Direction] = [better, "minimize"]
        return opened(
            store,
            self.title,
            self.search,
            directions[: len(self.search.objectives)],
            default_params(self.arm.cell, self.arm.spaces),
            partial(closed, store),
        )

    def work(self, store: Store, told: Told = lambda done, words: None, *, number: int = 0) -> None:
        """Run trials until there are enough, or too many have failed."""
        arm, cell = self.arm, self.arm.cell
        study, retry_unheard = self.opened(store)
        retry_unheard()
        # drawn anew at every start: a study that goes on must not repeat its first draws
        seed = derive(cell.seed, len(study.trials) + number) % 2**32
        study.sampler = sampler_of(self.search.sampler, seed)
        ratio = partial(time_ratio, cell, plan=self.plan, store=store)
        timed = ratio if "time" in self.search.objectives else None
        parent = run_of(study, store, arm)
        trial_of = Trials(study, cell, arm.held_out.config, arm.spaces, store, parent, timed)

        def report(study: optuna.Study, trial: FrozenTrial) -> None:
            retry_unheard()
            told(len(ended(study)), f"trial {trial.number}{words_of(trial, arm.spaces)}")
            if len(failed(study)) >= MOST_FAILURES:
                study.stop()

        states = (TrialState.COMPLETE, TrialState.PRUNED)
        enough = MaxTrialsCallback(self.search.trials, states=states)
        study.optimize(trial_of, callbacks=[report, enough], catch=(Exception,))


def share_out(share: Share, study: optuna.Study, executor: Executor, told: Told) -> None:
    """Have several processes work on a study until it has its trials; tell of each that ends.

    Raises:
        Failure: a process ended before its time, and no trial had ended since.
    """
    known = {trial.number for trial in study.trials if trial.state.is_finished()}

    def tell() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in known:
                known.add(trial.number)
                words = f"trial {trial.number}{words_of(trial, share.arm.spaces)}"
                told(len(ended(study)), words)

    while len(ended(study)) < share.search.trials and len(failed(study)) < MOST_FAILURES:
        ended_before = len(ended(study))
        shares = list(range(min(executor.workers, share.search.trials - ended_before)))
        lost = ""
        with _repeating(tell):
            for event in executor.run(share, shares):
                if event.kind not in ("started", "done"):
                    lost = str(event.value)
        tell()
        if lost and len(ended(study)) == ended_before:
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
