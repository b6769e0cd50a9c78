"""One arm is tuned: a study on a fifth of the training set; the published split is never seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState

from bench.config import files, lightning
from bench.config.cell import Cell
from bench.config.schema import OperatorConfig, SearchSpace, SpeedConfig, Tuning
from bench.errors import Failure
from bench.hashing import digest
from bench.record import Data, Study
from bench.run.suite import hush
from bench.run.tune import kept
from bench.run.tune.ratio import time_ratio
from bench.run.tune.spaces import OPTIONS, default_params, put, space, values_of
from bench.run.tune.study import DEFAULT, Direction, Search, best, ended, failed, opened, sampler_of
from bench.run.tune.trial import LOST, Trials, work_folder
from bench.store import Store
from tasks.seeds import derive

HOLDOUT = 0.2
"""Share of the training set that trials are scored on."""
MOST_FAILURES = 5


@dataclass(frozen=True)
class Arm:
    """An arm that is to be tuned.

    Attributes:
        cell: as the suite has it.
        held_out: the same, scored on what is held out of the training set.
        spaces: dotted name → what is searched.
        headline: the score that ranks.
        unit: its unit.
        higher_is_better: its direction.
    """

    cell: Cell
    held_out: Cell
    spaces: Mapping[str, SearchSpace]
    headline: str
    unit: str
    higher_is_better: bool

    @property
    def title(self) -> str:
        """A name for people."""
        return f"{self.cell.task} · {self.cell.host} · {self.cell.operator}"


@dataclass(frozen=True)
class Tuned:
    """What a study gave: how it went, and the arms that it found, none where the default stands."""

    arm: Arm
    study: Study
    operators: tuple[OperatorConfig, ...]


def arm_of(cell: Cell, search: Search) -> Arm:
    """Return an arm with what is searched of it."""
    above: dict[str, Any] = {"data": {"init_args": {"holdout": HOLDOUT}}}
    if search.prunes != "none":  # a trial is judged after every epoch
        above["trainer"] = {"check_val_every_n_epoch": 1}
    held_out = cell.model_copy(update={"config": files.merge(cell.config, above)})
    module = lightning.build(held_out.config).module
    unit, higher = module.metrics_info[module.headline]
    return Arm(cell, held_out, space(cell), module.headline, unit, higher)


def tune(
    arm: Arm,
    store: Store,
    search: Search,
    *,
    plan: SpeedConfig,
    data: Data,
    command: str,
    before: Callable[[int], object] = lambda done: None,
    told: Callable[[int, str], object] = lambda done, words: None,
) -> Tuned:
    """Search one arm, keep what came of it in the store, and return it.

    The first trial is the recipe and the operator as they are; what is searched beyond is said by
    `space`. Study and trials are kept in the store's folder, so the same call goes on where it
    was cut off, up to the trials of `search` in all.

    Args:
        arm: see `arm_of`.
        store: of the runs.
        search: how it is searched.
        plan: how its suite is timed, for the objective `time`.
        data: of the arm's cell.
        command: the command line that asked for it, for the record.
        before: called with how many trials had ended before.
        told: called after each trial with how many have ended, and what became of it.

    Raises:
        Failure: five trials failed, or none has a score.
    """
    hush()
    cell, config = arm.cell, arm.held_out.config
    dumped = {name: of.model_dump() for name, of in arm.spaces.items()}
    how = [search.sampler, search.prunes, search.objectives]
    title = f"{cell.task}/{cell.host}/{cell.operator}/{digest([config, dumped, how])[:12]}"
    directions: list[Direction] = ["maximize" if arm.higher_is_better else "minimize", "minimize"]
    study, retry_unheard = opened(
        store,
        title,
        search,
        directions[: len(search.objectives)],
        default_params(cell, arm.spaces),
        partial(_closed, store),
    )
    retry_unheard()
    # drawn anew at every start: a study that goes on must not repeat its first draws
    seed = derive(cell.seed, len(study.trials)) % 2**32
    study.sampler = sampler_of(search.sampler, seed)
    parent = kept.run_of(study, store, arm)
    ratio = partial(time_ratio, cell, plan=plan, store=store)
    timed = ratio if "time" in search.objectives else None
    trial_of = Trials(study, cell, config, arm.spaces, store, parent, timed)
    before(len(ended(study)))

    def report(study: optuna.Study, trial: FrozenTrial) -> None:
        retry_unheard()
        told(len(ended(study)), f"trial {trial.number}{words_of(trial, arm.spaces)}")
        if len(failed(study)) >= MOST_FAILURES:
            study.stop()

    if len(ended(study)) < search.trials:
        enough = MaxTrialsCallback(search.trials, states=(TrialState.COMPLETE, TrialState.PRUNED))
        study.optimize(trial_of, callbacks=[report, enough], catch=(Exception,))
    if len(failed(study)) >= MOST_FAILURES:
        raise Failure(
            f"{arm.title}: {MOST_FAILURES} trials failed, the last with: "
            f"{failed(study)[-1].user_attrs['error']}"
        )
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise Failure(f"{arm.title}: no trial has a score; see their errors in the MLflow UI.")
    told_of = kept.study_of(study, arm, search, HOLDOUT)
    kept.keep(store, parent, study, told_of, arm, data, command)
    return Tuned(arm, told_of, _operators(study, arm))


def _closed(store: Store, trial: FrozenTrial) -> None:
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
    drawn = []
    for setting, value in values_of(spaces, trial.params).items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        drawn.append(f"{setting.rpartition('.')[2]} {shown}")
    values = ", ".join(f"{value:.4f}" for value in trial.values or [])
    if trial.state == TrialState.PRUNED:
        values = f"pruned at {values}" if values else "pruned"
    return f"{name}: {values or trial.state.name.lower()} with {', '.join(drawn)}"


def _operators(study: optuna.Study, arm: Arm) -> tuple[OperatorConfig, ...]:
    """Return the arms of the best trials, as a suite gives them; the default is there already."""
    found = [trial for trial in best(study) if not trial.user_attrs.get(DEFAULT)]
    tuning = Tuning(study=study.study_name, trials=len(ended(study)))
    cell = arm.cell
    label = f"{cell.operator}-tuned"
    arms = []
    for trial in found:
        settings: dict[str, Any] = {}
        options = dict(cell.operator_config.options)
        for name, value in values_of(arm.spaces, trial.params).items():
            place, _, option = name.rpartition(".")
            if place == OPTIONS:
                options[option] = value
            else:
                put(settings, name, value)
        changes = {
            "label": label if len(found) == 1 else f"{label}-{trial.number}",
            "options": options,
            "tune": {},
            "set": settings,
            "tuned": tuning,
        }
        arms.append(cell.operator_config.model_copy(update=changes))
    return tuple(arms)
