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
from bench.store import Store
from tasks.base import TaskModule

EPOCHS, LOST = "epochs", "lost"
"""Attributes of a trial: epochs that it was trained for, and why it has no score."""


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
    run_id = trial.user_attrs.get("mlflow_run")
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
        """Run a trial; one that is cut off is queued again, and is no failure."""
        is_default = bool(trial.user_attrs.get(DEFAULT))
        if is_default:  # as it is: what a space can't hold stays, too
            known = default_params(self.cell, self.spaces)
            suggest(trial, self.spaces, only=known)
            config = self.held_out
        else:
            config = files.merge(self.held_out, suggest(trial, self.spaces))
        tags = {**self.cell.tags(), "trial": str(trial.number)}
        tags |= {DEFAULT: "true"} if is_default else {}
        experiment = f"{self.cell.suite}-tune"
        run_id = self.store.begin(
            experiment, f"trial {trial.number}", tags, config, parent=self.parent
        )
        trial.set_user_attr("mlflow_run", run_id)
        work = work_folder(self.store, run_id)
        logger = self.store.logger(experiment, run_id)
        callbacks = [] if self.ratio else [Pruner(trial, may_end=not is_default)]
        try:
            fitted = fit.fit(config, work, logger=logger, callbacks=callbacks)
            trial.set_user_attr(EPOCHS, fitted.epochs)
            ratio = self.ratio(config) if self.ratio else None
        except optuna.TrialPruned:
            self.store.tag(run_id, {"pruned": "true"})
            self.store.end(run_id, "KILLED")
            raise
        except (Diverged, fit.NoScore) as error:  # a draw that doesn't train is a bad draw
            words = f"{type(error).__name__}: {error}"
            trial.set_user_attr(LOST, words[:2000])
            self.store.tag(run_id, {"error": words[:5000]})
            self.store.end(run_id, "FAILED")
            raise optuna.TrialPruned from error
        except KeyboardInterrupt:
            trial.set_user_attr("interrupted", True)
            again = {DEFAULT: True} if is_default else {}
            self.study.enqueue_trial(trial.params, user_attrs=again)
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
        if ratio is not None:
            self.store.metrics(run_id, {"time_ratio": ratio})
        self.store.end(run_id)
        return score if ratio is None else (score, ratio)
