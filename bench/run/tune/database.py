"""A study in Optuna's database, which several processes share: none of its trials is lost."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from bench import locks
from bench.errors import Failure, UserError
from bench.hashing import digest
from bench.run.tune.study import DEFAULT, ENDED, Direction, Search, pruner_of
from bench.store import STUDIES, Store, StoreError

HEARTBEAT_S = 30
"""How often a trial says that it lives: one that is silent for twice as long is retried."""
RETRIES = 3
"""How often a trial is queued again whose process died."""
JOB = "job"
"""Attribute of a trial: the job that runs it, where a process of its own does."""
_LOCK_S = 600
"""A trial is begun, or taken for dead, while it is held: the store may be away meanwhile."""
Again = Callable[[optuna.Study, FrozenTrial], None]


@dataclass(frozen=True)
class Shared:
    """An open study.

    Attributes:
        study: in Optuna.
        storage: its database.
        lock: path of the file that is held by who begins a trial, or takes one for dead.
        died: called with a trial whose process died, before it is queued again.
        again: does both.
    """

    study: optuna.Study
    storage: optuna.storages.RDBStorage
    lock: Path
    died: Callable[[FrozenTrial], None]
    again: Again

    def begun(self) -> int:
        """Return how many trials have ended or are under way; those that failed are neither."""
        states = (*ENDED, TrialState.RUNNING)
        return len(self.study.get_trials(deepcopy=False, states=states))

    def alone(self) -> AbstractContextManager[None]:
        """Keep all others from the study meanwhile."""
        return locks.lock(self.lock, wait_s=_LOCK_S)

    def run(
        self,
        objective: Callable[[optuna.Trial], float | tuple[float, float]],
        most: int,
        callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = (),
        job: str | None = None,
    ) -> bool:
        """Run one trial, unless so many have begun; return whether.

        Args:
            objective: see `optuna.Study.optimize`; what it raises fails the trial.
            most: trials of the study, in all.
            callbacks: called when it has ended.
            job: name of the job that runs it.

        Raises:
            StoreError: the objective did; so it would of every trial to come.
        """
        store_errors: list[StoreError] = []
        with ExitStack() as held:
            held.enter_context(self.alone())
            if self.begun() >= most:
                return False

            def begun(trial: optuna.Trial) -> float | tuple[float, float]:
                if job is not None:
                    trial.set_user_attr(JOB, job)
                held.close()
                try:
                    return objective(trial)
                except StoreError as error:
                    store_errors.append(error)
                    raise

            self.study.optimize(begun, n_trials=1, callbacks=[*callbacks], catch=(Exception,))
        if store_errors:
            raise store_errors[0]
        return True

    def lost(self, job: str, words: str, *, retry: bool = True) -> None:
        """Take the trial of a job for dead, if it has one; queue it again, or let it have failed.

        Args:
            job: its name.
            words: how it ended.
            retry: whether it may do better; it is tried `RETRIES` times more at most.
        """
        with self.alone(), _of_experiments():
            for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
                if trial.user_attrs.get(JOB) != job:
                    continue
                history = optuna.storages.RetryHeartbeatStaleTrialCallback.retry_history(trial)
                hopeless = not retry or len(history) >= RETRIES
                if hopeless:
                    study_id = self.storage.get_study_id_from_name(self.study.study_name)
                    trial_id = self.storage.get_trial_id_from_study_id_trial_number(
                        study_id, trial.number
                    )
                    self.storage.set_trial_user_attr(trial_id, "error", words[:2000])
                self.study.tell(trial.number, state=TrialState.FAIL)
                if hopeless:
                    self.died(trial)
                else:
                    self.again(self.study, trial)

    def retry_silent(self) -> None:
        """Fail and queue again the trials of which nothing is heard any more."""
        with self.alone(), _of_experiments():
            optuna.storages.fail_stale_trials(self.study)
            self._retry_unheard()

    def _retry_unheard(self) -> None:
        """Do so with those whose process died before their first sign of life.

        Optuna fails those that are silent since; of these it has no sign, so they would run for
        ever.
        """
        query = sqlalchemy.text(
            "SELECT trials.number FROM trials "
            "JOIN studies ON studies.study_id = trials.study_id "
            "LEFT JOIN trial_heartbeats ON trial_heartbeats.trial_id = trials.trial_id "
            "WHERE studies.study_name = :study AND trials.state = 'RUNNING' "
            "AND trial_heartbeats.trial_id IS NULL"
        )
        with self.storage.engine.connect() as connection:
            rows = connection.execute(query, {"study": self.study.study_name})
            unheard = {row.number for row in rows}
        long_ago = datetime.datetime.now() - datetime.timedelta(seconds=2 * HEARTBEAT_S)
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            started = trial.datetime_start
            if trial.number in unheard and started is not None and started < long_ago:
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.again(self.study, trial)


def opened(
    store: Store,
    title: str,
    search: Search,
    directions: Sequence[Direction],
    first: dict[str, Any] | None,
    died: Callable[[FrozenTrial], None] = lambda trial: None,
) -> Shared:
    """Make or load a study.

    Args:
        store: where its database lies.
        title: of the study.
        search: how it is searched.
        directions: "maximize" or "minimize", one for each objective.
        first: parameters of the default, which is queued unless it has ended, runs or waits; None
            where that is done.
        died: called with a trial whose process died, before it is queued again.

    Raises:
        UserError: the database's driver is not installed.
        Failure: the database does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _of_experiments():
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
        again = partial(_again, died, retry)
        folder = store.folder / locks.FOLDER
        with locks.lock(folder / "studies.lock", wait_s=_LOCK_S):  # both would make its tables
            storage = _storage(store.studies(), again)
        lock = folder / f"study-{digest(title)[:12]}.lock"
        with locks.lock(lock, wait_s=_LOCK_S):  # two at once would both queue the default
            study = optuna.create_study(
                storage=storage,
                study_name=title,
                pruner=pruner_of(search.prunes),
                directions=list(directions),
                load_if_exists=True,
            )
            study.set_metric_names(list(search.objectives))
            trials = study.get_trials(deepcopy=False)
            defaults = [trial for trial in trials if trial.user_attrs.get(DEFAULT)]
            if first is not None and all(trial.state == TrialState.FAIL for trial in defaults):
                study.enqueue_trial(first, user_attrs={DEFAULT: True})
    return Shared(study, storage, lock, died, again)


@contextmanager
def _of_experiments() -> Iterator[None]:
    """Leave out the warnings of what Optuna calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _again(
    died: Callable[[FrozenTrial], None], retry: Again, study: optuna.Study, trial: FrozenTrial
) -> None:
    died(trial)
    retry(study, trial)


def _storage(address: str, again: Again) -> optuna.storages.RDBStorage:
    """Open the database of the studies."""
    try:
        return optuna.storages.RDBStorage(
            address,
            heartbeat_interval=HEARTBEAT_S,
            grace_period=2 * HEARTBEAT_S,
            heartbeat_stale_trial_callback=again,
        )
    except ImportError as error:
        raise UserError(
            f"`{STUDIES}` needs a database driver ({error}); for PostgreSQL: "
            "pip install 'convboard[server]'."
        ) from None
    except OperationalError as error:
        words = str(error.orig).strip().splitlines()[-1]
        raise Failure(f"the database of the studies does not answer: {words}") from None
