"""A study in Optuna's database: its sampler and pruner by name, its budget, its dead trials."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from bench import locks
from bench.errors import Failure, UserError, near
from bench.hashing import digest
from bench.store import STUDIES, Store

STARTUP = 5
"""Trials drawn at random before a sampler learns from those that there are."""
HEARTBEAT_S = 30
"""How often a trial says that it lives: one that is silent for twice as long is retried."""
DEFAULT = "default"
"""Attribute of the trial that runs the recipe as it is."""
Direction = Literal["maximize", "minimize"]
OBJECTIVES = ("accuracy", "time")
_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=STARTUP, constant_liar=True
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=STARTUP),
    "nsgaii": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
}
_PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    "percentile": lambda: optuna.pruners.PercentilePruner(
        25.0, n_startup_trials=4, n_warmup_steps=1
    ),
    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(),
    "none": lambda: optuna.pruners.NopPruner(),
}


@dataclass(frozen=True)
class Search:
    """How every arm is searched: the same for all that are compared.

    Attributes:
        trials: in each study, in all; those that were pruned count.
        sampler: tpe, random, gp, cmaes or nsgaii, as Optuna has them.
        pruner: median, percentile, halving, hyperband or none; None for median, or for none where
            there are two objectives, which Optuna does not prune.
        objectives: "accuracy", and "time" beside it.

    Raises:
        UserError: a value that is none of these.

    Example:
        >>> Search(sampler="tpa")
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `--sampler` (='tpa') is not known; did you mean 'tpe'?
    """

    trials: int = 20
    sampler: str = "tpe"
    pruner: str | None = None
    objectives: tuple[str, ...] = ("accuracy",)

    def __post_init__(self) -> None:
        """Check the values, before anything is started."""
        if self.trials < 1:
            raise UserError(f"`--trials` (={self.trials}) must be at least 1.")
        given = ",".join(self.objectives)
        for name in self.objectives:
            _require_known("--objectives", name, OBJECTIVES)
        if self.objectives not in (("accuracy",), OBJECTIVES):
            raise UserError(f"`--objectives` (={given!r}) must be accuracy, or accuracy,time.")
        _require_known("--sampler", self.sampler, _SAMPLERS)
        if self.pruner is not None:
            _require_known("--pruner", self.pruner, _PRUNERS)
        if len(self.objectives) > 1:
            if self.pruner not in (None, "none"):
                raise UserError(
                    f"`--pruner` (={self.pruner!r}) must be none with `--objectives {given}`: "
                    "Optuna prunes by one objective."
                )
            if self.sampler == "cmaes":
                raise UserError(
                    f"`--sampler` (='cmaes') must be another with `--objectives {given}`: CMA-ES "
                    "has one objective."
                )
        if self.sampler == "cmaes" and find_spec("cmaes") is None:
            raise UserError("`--sampler` (='cmaes') needs a package: pip install cmaes.")

    @property
    def prunes(self) -> str:
        """Name of the pruner."""
        return self.pruner or ("median" if len(self.objectives) == 1 else "none")


def _require_known(flag: str, value: str, known: Any) -> None:
    if value not in known:
        raise UserError(f"`{flag}` (={value!r}) is not known; {near(value, known)}")


def sampler_of(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _SAMPLERS[name](seed)


def opened(
    store: Store,
    title: str,
    search: Search,
    directions: Sequence[Direction],
    first: dict[str, Any],
    died: Callable[[FrozenTrial], None] = lambda trial: None,
) -> tuple[optuna.Study, Callable[[], None]]:
    """Make or load a study; processes share it, and the trials of those that died are retried.

    Returns:
        The study, and what retries the trials that Optuna leaves: see `requeue_unheard`.

    Args:
        store: where its database lies.
        title: of the study.
        search: how it is searched.
        directions: "maximize" or "minimize", one for each objective.
        first: parameters of the first trial, which is the default.
        died: called with a trial whose process died, before it is queued again.

    Raises:
        UserError: the database's driver is not installed.
        Failure: the database does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def again(study: optuna.Study, trial: FrozenTrial) -> None:
        died(trial)
        retry(study, trial)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
        folder = store.folder / locks.FOLDER
        with locks.lock(folder / "studies.lock", wait_s=60):  # both would make its tables
            storage = _storage(store.studies(), again)
        lock = folder / f"study-{digest(title)[:12]}.lock"
        with locks.lock(lock, wait_s=60):  # two that start at once would both queue the default
            study = optuna.create_study(
                storage=storage,
                study_name=title,
                pruner=_PRUNERS[search.prunes](),
                directions=list(directions),
                load_if_exists=True,
            )
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(first, user_attrs={DEFAULT: True})

    def retry_unheard() -> None:
        with locks.lock(lock, wait_s=60):
            requeue_unheard(study, storage, again)

    return study, retry_unheard


def _storage(
    address: str, again: Callable[[optuna.Study, FrozenTrial], None]
) -> optuna.storages.RDBStorage:
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


def requeue_unheard(
    study: optuna.Study,
    storage: optuna.storages.RDBStorage,
    again: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    """Fail and queue again the trials whose process died before their first sign of life.

    Optuna fails those that are silent since; of these it has no sign, so they would run for ever.
    """
    query = sqlalchemy.text(
        "SELECT trials.number FROM trials "
        "JOIN studies ON studies.study_id = trials.study_id "
        "LEFT JOIN trial_heartbeats ON trial_heartbeats.trial_id = trials.trial_id "
        "WHERE studies.study_name = :study AND trials.state = 'RUNNING' "
        "AND trial_heartbeats.trial_id IS NULL"
    )
    with storage.engine.connect() as connection:
        unheard = {row.number for row in connection.execute(query, {"study": study.study_name})}
    long_ago = datetime.datetime.now() - datetime.timedelta(seconds=2 * HEARTBEAT_S)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        started = trial.datetime_start
        if trial.number in unheard and started is not None and started < long_ago:
            study.tell(trial.number, state=TrialState.FAIL)
            again(study, trial)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: those that are complete, and those that were pruned."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=states)


def failed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that failed; those that were cut off did not."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in trials if "error" in trial.user_attrs]


def best(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best trial, or those that none beats in both objectives, of equals one.

    Of equals it is the default, and else the first.
    """
    trials = sorted(study.best_trials, key=lambda t: (not t.user_attrs.get(DEFAULT), t.number))
    if len(study.directions) == 1:
        return trials[:1]
    unlike: dict[tuple[float, ...], FrozenTrial] = {}
    for trial in trials:
        unlike.setdefault(tuple(trial.values), trial)
    return list(unlike.values())
