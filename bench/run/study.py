"""Optuna, in one place: a study, its trials, and the processes that share them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from bench.config import files
from bench.config.cell import Cell
from bench.config.schema import SearchSpace
from bench.errors import Failure, UserError
from bench.run import fit, gpus
from bench.run.executor import Executor
from bench.run.spaces import drawn, put
from bench.run.suite import hush
from bench.store import STUDIES, Store
from tasks.base import TaskModule
from tasks.seeds import derive

MOST_FAILURES = 5
HEARTBEAT_S = 30
"""How often a trial says that it lives: one that is silent for twice as long is retried."""
WAIT_S = 600
"""How long a store that is locked or away is waited for."""


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        run_id: of its MLflow run.
        params: of its best trial.
        best: that trial's score.
        complete: trials that ran to their end.
        trials: those and the pruned ones.
    """

    run_id: str
    params: dict[str, Any]
    best: float
    complete: int
    trials: int


def carry_out(
    share: Share,
    store: Store,
    executor: Executor | None,
    before: Callable[[int], object],
    ended: Callable[[int, str], object],
) -> Outcome:
    """Run a study until it has its trials; here, or in the processes of an executor.

    Args:
        share: what a process does of it.
        store: where its runs are.
        executor: runs the processes; None runs the trials here, one after the other.
        before: called with how many trials had ended before.
        ended: called after each trial with how many have ended, and what became of it.

    Raises:
        Failure: trials or processes failed, or none ended well.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(store, share.title)
    run_id = _run_of(study, store, share)
    before(len(ended_trials(study)))
    if len(ended_trials(study)) < share.trials:
        if executor is None:
            share.work(store, study, ended)
        else:
            _shared_out(share, study, executor, ended)
    failed = failed_trials(study)
    if len(failed) >= MOST_FAILURES:
        last = failed[-1].user_attrs["error"]
        raise Failure(f"{MOST_FAILURES} trials failed, the last with: {last}")
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise Failure("no trial ended well; see their errors in the MLflow UI.")
    store.metrics(run_id, {"best": study.best_value})
    return Outcome(
        run_id, study.best_params, study.best_value, len(complete), len(ended_trials(study))
    )


def open_study(store: Store, title: str) -> optuna.Study:
    """Make or load a study; processes share it, and the trials of those that died are retried.

    Raises:
        UserError: the database's driver is not installed.
        Failure: the database does not answer.
    """
    try:
        storage = optuna.storages.RDBStorage(
            store.studies(),
            heartbeat_interval=HEARTBEAT_S,
            grace_period=2 * HEARTBEAT_S,
            heartbeat_stale_trial_callback=_again(store),
        )
    except ImportError as error:
        raise UserError(
            f"`{STUDIES}` needs a database driver ({error}); for PostgreSQL: "
            "pip install 'convboard[server]'."
        ) from None
    except OperationalError as error:
        words = str(error.orig).strip().splitlines()[-1]
        raise Failure(f"the database of the studies does not answer: {words}") from None
    return optuna.create_study(
        storage=storage,
        study_name=title,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        direction="maximize",
        load_if_exists=True,
    )


def _run_of(study: optuna.Study, store: Store, share: Share) -> str:
    """Return the MLflow run of a study, in which its trials are."""
    run_id: str | None = study.user_attrs.get("mlflow_run")
    if run_id is None:
        tags = {**share.cell.tags(), "study": share.title}
        run_id = store.begin(share.experiment, share.title, tags, share.held_out)
        study.set_user_attr("mlflow_run", run_id)
    return run_id


def _again(store: Store) -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    """Return what becomes of a trial whose process died: it is queued again, its run is closed."""
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback()

    def queue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        run_id = trial.user_attrs.get("mlflow_run")
        if run_id is not None:  # else it died before it had a run
            store.end(run_id, "KILLED")
            shutil.rmtree(_work(store, run_id), ignore_errors=True)
        retry(study, trial)

    return queue_again


def _work(store: Store, run_id: str) -> Path:
    """Return the folder of a trial that is under way."""
    return store.folder / "trials" / run_id


@dataclass(frozen=True)
class Share:
    """A process's share of a study: trials, until all together have run so many.

    Attributes:
        cell: what is tuned.
        held_out: its configuration, of which a part of the training set is held out.
        spaces: what is searched.
        title: of the study.
        folder: the runs folder.
        trials: in the study, in all.
    """

    cell: Cell
    held_out: dict[str, Any]
    spaces: Mapping[str, SearchSpace]
    title: str
    folder: Path
    trials: int

    @property
    def experiment(self) -> str:
        """Name of the experiment in which its runs are."""
        return f"{self.cell.suite}-tune"

    def __call__(self, number: int) -> None:
        """Work on the study in a process of its own."""
        hush()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        store = Store(self.folder, wait_s=WAIT_S)
        with gpus.one_of(gpus.visible()):
            self.work(store, open_study(store, self.title), number=number)

    def work(
        self,
        store: Store,
        study: optuna.Study,
        ended: Callable[[int, str], object] = lambda done, words: None,
        number: int = 0,
    ) -> None:
        """Run trials until there are enough, or too many have failed."""
        # drawn anew at every start: a study that goes on must not repeat its first draws
        study.sampler = optuna.samplers.TPESampler(
            seed=derive(self.cell.seed, len(study.trials) + number) % 2**32,
            n_startup_trials=5,
            constant_liar=True,
        )

        def report(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            ended(len(ended_trials(study)), f"trial {trial.number}: {_words(trial, self.spaces)}")
            if len(failed_trials(study)) >= MOST_FAILURES:
                study.stop()

        enough = MaxTrialsCallback(self.trials, states=(TrialState.COMPLETE, TrialState.PRUNED))
        trial_of = _Trials(study, self, store, _run_of(study, store, self))
        study.optimize(trial_of, callbacks=[report, enough], catch=(Exception,))


def _shared_out(
    share: Share, study: optuna.Study, executor: Executor, ended: Callable[[int, str], object]
) -> None:
    """Have several processes work on a study until it has its trials; tell of each that ends.

    Raises:
        Failure: a process ended before its time, and no trial had ended since.
    """
    told = {trial.number for trial in study.trials if trial.state.is_finished()}

    def tell() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in told:
                told.add(trial.number)
                words = f"trial {trial.number}: {_words(trial, share.spaces)}"
                ended(len(ended_trials(study)), words)

    while len(ended_trials(study)) < share.trials and len(failed_trials(study)) < MOST_FAILURES:
        ended_before = len(ended_trials(study))
        shares = list(range(min(executor.workers, share.trials - ended_before)))
        lost = ""
        with _repeating(tell):
            for event in executor.run(share, shares):
                if event.kind not in ("started", "done"):
                    lost = str(event.value)
        tell()
        if lost and len(ended_trials(study)) == ended_before:
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


@dataclass(frozen=True)
class _Trials:
    """What one trial of a study is: a run with what it drew, scored on what is held out."""

    study: optuna.Study
    share: Share
    store: Store
    parent: str

    def __call__(self, trial: optuna.Trial) -> float:
        """Run a trial; one that is cut off is queued again, and is no failure."""
        config = files.merge(self.share.held_out, suggest(trial, self.share.spaces))
        tags = {**self.share.cell.tags(), "trial": str(trial.number)}
        experiment = self.share.experiment
        run_id = self.store.begin(
            experiment, f"trial {trial.number}", tags, config, parent=self.parent
        )
        trial.set_user_attr("mlflow_run", run_id)
        work = _work(self.store, run_id)
        logger = self.store.logger(experiment, run_id)
        try:
            fitted = fit.fit(config, work, logger=logger, callbacks=[_Pruner(trial)])
        except optuna.TrialPruned:
            self.store.tag(run_id, {"pruned": "true"})
            self.store.end(run_id, "KILLED")
            raise
        except KeyboardInterrupt:
            trial.set_user_attr("interrupted", True)
            self.study.enqueue_trial(trial.params)
            self.store.end(run_id, "KILLED")
            raise
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            trial.set_user_attr("error", words[:2000])
            self.store.tag(run_id, {"error": words[:5000]})
            self.store.end(run_id, "FAILED")
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        score = fitted.metrics[fitted.module.headline]
        self.store.metrics(run_id, {"held_out": score})
        self.store.end(run_id)
        return score


class _Pruner(Callback):
    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or not isinstance(pl_module, TaskModule):
            return
        value = float(trainer.callback_metrics[f"val/{pl_module.headline}"])
        self.trial.report(value, trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def suggest(trial: optuna.Trial, spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Draw one value of every space; return them as a configuration to lay over."""
    config: dict[str, Any] = {}
    for name, of in spaces.items():
        short = name.rpartition(".")[2]
        if of.values is not None:
            value = of.values[trial.suggest_categorical(short, list(range(len(of.values))))]
        elif isinstance(of.low, int) and isinstance(of.high, int):
            value = trial.suggest_int(short, of.low, of.high, log=of.log)
        else:
            value = trial.suggest_float(short, float(of.low or 0), float(of.high or 0), log=of.log)
        put(config, name, value)
    return config


def _words(trial: optuna.trial.FrozenTrial, spaces: Mapping[str, SearchSpace]) -> str:
    """Say what a trial drew and what came of it."""
    if "error" in trial.user_attrs:
        return f"failed: {trial.user_attrs['error']}"
    value = trial.state.name.lower() if trial.value is None else f"{trial.value:.4f}"
    parts = []
    for name, of in drawn(spaces, trial.params).items():
        shown = f"{of:.4g}" if isinstance(of, float) else str(of)
        parts.append(f"{name.rpartition('.')[2]} {shown}")
    return f"{value} with {', '.join(parts)}"


def ended_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that ran to their end, and the pruned ones."""
    return [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def failed_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that failed; those that were cut off did not."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in failed if "error" in trial.user_attrs]
