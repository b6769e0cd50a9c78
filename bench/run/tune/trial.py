"""A trial: an MLflow run with what it drew, scored on what is held out, and timed where asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.trial import FrozenTrial, TrialState

from bench.config import files
from bench.config.cell import Cell
from bench.config.schema import SearchSpace
from bench.run import fit
from bench.run.curve import Diverged
from bench.run.tune.spaces import default_params, suggest, values_of
from bench.run.tune.study import DEFAULT
from bench.store import Store, StoreError
from tasks.base import TaskModule

EPOCHS, LOST = "epochs", "lost"
"""Attributes of a trial: epochs that it was trained for, and why it has no score."""
VALUES = "values"
"""Attribute of a trial: what it is scored with, known before the store is told."""
RUN = "mlflow_run"
"""Attribute of a trial: id of its run."""


def work_folder(store: Store, run_id: str) -> Path:
    """Return the folder of a trial that is under way."""
    return store.folder / "trials" / run_id


class Pruner(Callback):
    """Reports the headline after every epoch; ends a trial that the study's pruner gives up.

    The default is never given up: the others are compared with it.
    """

    def __init__(self, trial: optuna.Trial, *, may_end: bool) -> None:
        self.trial, self.may_end = trial, may_end

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report a score."""
        if trainer.state.fn != "fit" or not isinstance(pl_module, TaskModule):
            return
        value = float(trainer.callback_metrics[f"val/{pl_module.headline}"])
        self.trial.report(value, trainer.current_epoch)
        self.trial.set_user_attr(EPOCHS, trainer.current_epoch + 1)
        if self.may_end and self.trial.should_prune():
            raise optuna.TrialPruned


def closed(store: Store, trial: FrozenTrial) -> None:
    """Close the run of a trial whose process died, if it had one."""
    run_id = trial.user_attrs.get(RUN)
    if run_id is not None:
        store.end(run_id, "KILLED")
        shutil.rmtree(work_folder(store, run_id), ignore_errors=True)


def words_of(trial: FrozenTrial, spaces: Mapping[str, SearchSpace]) -> str:
    """Say what a trial drew and what came of it."""
    name = " (the recipe)" if trial.user_attrs.get(DEFAULT) else ""
    lost = trial.user_attrs.get("error") or trial.user_attrs.get(LOST)
    if lost is not None:
        return f"{name}: failed: {lost}"
    if trial.state == TrialState.FAIL:
        return f"{name}: cut off"
    drawn = []
    for setting, value in values_of(spaces, trial.params).items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        drawn.append(f"{setting.rpartition('.')[2]} {shown}")
    score, *ratio = trial.values or [None]
    values = "" if score is None else f"{score:.4f}" + "".join(f" at {r:.2f}×" for r in ratio)
    if trial.state == TrialState.PRUNED:
        values = f"pruned at {values}" if values else "pruned"
    return f"{name}: {values or trial.state.name.lower()} with {', '.join(drawn)}"


@dataclass(frozen=True)
class Trials:
    """What one trial of a study is: a run with what it drew, scored on what is held out.

    Attributes:
        study: in Optuna.
        cell: the arm.
        held_out: its configuration, scored on what is held out of the training set.
        spaces: what is searched.
        store: keeps the runs.
        parent: run id of the study's run.
        ratio: time of a configuration's network over that of the default; None for one objective.
    """

    study: optuna.Study
    cell: Cell
    held_out: dict[str, Any]
    spaces: Mapping[str, SearchSpace]
    store: Store
    parent: str
    ratio: Callable[[dict[str, Any]], float] | None

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, float]:
        """Run a trial; one that is cut off is queued again, and is no failure.

        What else ends it is noted as its `error`. Of a trial that was trained when the store failed
        the score is not lost: queued again, it only has it kept.

        Raises:
            StoreError: the store cannot be used.
        """
        try:
            return self._scored(trial)
        except optuna.TrialPruned:
            raise
        except (KeyboardInterrupt, StoreError):
            trial.set_user_attr("interrupted", True)
            lasting = (DEFAULT, VALUES, EPOCHS, RUN) if VALUES in trial.user_attrs else (DEFAULT,)
            attributes = {name: v for name, v in trial.user_attrs.items() if name in lasting}
            self.study.enqueue_trial(trial.params, user_attrs=attributes)
            raise
        except Exception as error:
            trial.set_user_attr("error", _words(error)[:2000])
            raise

    def _scored(self, trial: optuna.Trial) -> float | tuple[float, float]:
        """Draw, train, score, and keep the run."""
        is_default = bool(trial.user_attrs.get(DEFAULT))
        if is_default:  # as it is: what a space can't hold stays, too
            known = default_params(self.cell, self.spaces)
            suggest(trial, self.spaces, only=known)
            config = self.held_out
        else:
            config = files.merge(self.held_out, suggest(trial, self.spaces))
        if VALUES in trial.user_attrs:
            run_id = trial.user_attrs[RUN]
            self.store.tag(run_id, {"trial": str(trial.number)})
        else:
            tags = {**self.cell.tags(), "trial": str(trial.number)}
            tags |= {DEFAULT: "true"} if is_default else {}
            name = f"trial {trial.number}"
            run_id = self.store.begin(self.experiment, name, tags, config, parent=self.parent)
            trial.set_user_attr(RUN, run_id)
            trial.set_user_attr(VALUES, self._trained(trial, run_id, config))
        values: list[float] = trial.user_attrs[VALUES]
        self.store.metrics(run_id, dict(zip(("held_out", "time_ratio"), values, strict=False)))
        self.store.end(run_id)
        return values[0] if len(values) == 1 else (values[0], values[1])

    @property
    def experiment(self) -> str:
        """Name of the experiment in which the trials' runs are."""
        return f"{self.cell.suite}-tune"

    def _trained(self, trial: optuna.Trial, run_id: str, config: dict[str, Any]) -> list[float]:
        """Train and score a configuration; return the values of the objectives."""
        work = work_folder(self.store, run_id)
        logger = self.store.logger(self.experiment, run_id)
        may_end = not trial.user_attrs.get(DEFAULT)
        callbacks = [] if self.ratio else [Pruner(trial, may_end=may_end)]
        try:
            fitted = fit.fit(config, work, logger=logger, callbacks=callbacks)
            trial.set_user_attr(EPOCHS, fitted.epochs)
            ratio = self.ratio(config) if self.ratio else None
        except optuna.TrialPruned:
            self.store.tag(run_id, {"pruned": "true"})
            self.store.end(run_id, "KILLED")
            raise
        except (Diverged, fit.NoScore) as error:  # a draw that doesn't train is a bad draw
            trial.set_user_attr(LOST, _words(error)[:2000])
            self._failed(run_id, error)
            raise optuna.TrialPruned from error
        except KeyboardInterrupt:
            self.store.end(run_id, "KILLED")
            raise
        except StoreError:  # nor could this be kept
            raise
        except Exception as error:
            trial.set_user_attr("error", _words(error)[:2000])
            self._failed(run_id, error)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        score = fitted.metrics[fitted.module.headline]
        return [score] if ratio is None else [score, ratio]

    def _failed(self, run_id: str, error: Exception) -> None:
        """End a run that has no score."""
        self.store.tag(run_id, {"error": _words(error)[:5000]})
        self.store.end(run_id, "FAILED")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
