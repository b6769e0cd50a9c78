"""One arm is tuned: a study on a fifth of the training set; the published split is never seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import TrialState

from bench.config import files, lightning
from bench.config.cell import Cell
from bench.config.schema import OperatorConfig, SearchSpace, Tuning
from bench.config.speed import SpeedConfig
from bench.errors import Failure
from bench.hashing import digest
from bench.record import Data, Study
from bench.run.code import code_of
from bench.run.executor import Executor
from bench.run.suite import hush
from bench.run.tune import kept
from bench.run.tune.share import MOST_FAILURES, Share, share_out, work
from bench.run.tune.spaces import OPTIONS, space, values_of
from bench.run.tune.study import DEFAULT, Search, best, ended, failed
from bench.store import Store

HOLDOUT = 0.2
"""Share of the training set that trials are scored on."""


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
    executor: Executor | None = None,
    before: Callable[[int], object] = lambda done: None,
    told: Callable[[int, str], object] = lambda done, words: None,
) -> Tuned:
    """Search one arm, keep what came of it in the store, and return it.

    The first trial is the recipe and the operator as they are; what is searched beyond is said by
    `space`. Study and trials are kept in the store's folder, so the same call goes on where it
    was cut off, up to the trials of `search` in all. A study that has more keeps them.

    Args:
        arm: see `arm_of`.
        store: of the runs.
        search: how it is searched.
        plan: how its suite is timed, for the objective `time`.
        data: of the arm's cell.
        command: the command line that asked for it, for the record.
        executor: runs the trials, several at a time; None runs them here, one after the other.
        before: called with how many trials had ended before.
        told: called after each trial with how many have ended, and what became of it.

    Raises:
        Failure: five trials failed since, or none has a score.
        StoreError: the store cannot be used.
    """
    hush()
    cell, config = arm.cell, arm.held_out.config
    dumped = {name: of.model_dump() for name, of in arm.spaces.items()}
    timed = plan.model_dump() if "time" in search.objectives else None
    how = [search.sampler, search.prunes, search.objectives, timed]
    used = [code_of(cell), data.files_sha256]
    title = f"{cell.task}/{cell.host}/{cell.operator}/{digest([config, dumped, how, used])[:12]}"
    share = Share(arm, search, title, plan, store.folder)
    shared = share.opened(store)
    study = shared.study
    share = replace(share, earlier=frozenset(trial.number for trial in failed(study)))
    with shared.alone():  # two at once would both begin its run
        parent = kept.run_of(study, store, arm)
    before(len(ended(study)))
    if len(ended(study)) < search.trials:
        if executor is None:
            work(share, shared, store, told)
        else:
            share_out(share, shared, executor, told)
    failures = share.failures(study)
    if len(failures) >= MOST_FAILURES:
        raise Failure(
            f"{arm.title}: {MOST_FAILURES} trials failed, the last with: "
            f"{failures[-1].user_attrs['error']}; the same command tries {MOST_FAILURES} more."
        )
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise Failure(f"{arm.title}: no trial has a score; see their errors in the MLflow UI.")
    told_of = kept.study_of(study, arm, search, HOLDOUT)
    kept.keep(store, parent, study, told_of, arm, data, command)
    return Tuned(arm, told_of, _operators(study, arm))


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
                files.put(settings, name, value)
        changes = {
            "label": label if len(found) == 1 else f"{label}-{trial.number}",
            "options": options,
            "tune": {},
            "set": files.merge(cell.operator_config.set, settings),
            "tuned": tuning,
        }
        arms.append(cell.operator_config.model_copy(update=changes))
    return tuple(arms)
