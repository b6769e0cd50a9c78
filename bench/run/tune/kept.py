"""What is kept of a study: its MLflow run, its record, its pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from bench.hashing import digest
from bench.pictures import plot_picture
from bench.record import Data, Objective, Study, Trial
from bench.run.describe import record_of
from bench.run.tune.spaces import short_names, values_of
from bench.run.tune.study import DEFAULT, Search, best, ended, failed
from bench.run.tune.trial import EPOCHS, LOST, RUN
from bench.store import Store

if TYPE_CHECKING:
    from bench.run.tune.arm import Arm

TAG = "convboard.study"
"""Tag of a study's run: hash of what is kept of it."""
TIME = "time ratio"
"""Name of the second objective: time over the default's."""
LEAST = 10
"""Complete trials below which nothing is said of what a score hangs on."""


def run_of(study: optuna.Study, store: Store, arm: Arm) -> str:
    """Return the MLflow run of a study, in which its trials are; every store has its own.

    Several stores may share the database of the studies.
    """
    experiment, name = f"{arm.cell.suite}-tune", study.study_name
    runs = (run for run, _ in store.runs(experiment))
    known = [str(run.info.run_id) for run in runs if run.data.tags.get("study") == name]
    begun = study.user_attrs.get(RUN)
    if begun in known:
        return str(begun)
    tags = {**arm.cell.tags(), "study": name}
    run_id = known[0] if known else store.begin(experiment, name, tags, arm.held_out.config)
    study.set_user_attr(RUN, run_id)
    return run_id


def study_of(study: optuna.Study, arm: Arm, search: Search, held_out: float) -> Study:
    """Return what a record says of a study; trials that were cut off took no part."""
    objectives = [
        Objective(name=arm.headline, unit=arm.unit, higher_is_better=arm.higher_is_better),
        Objective(name=TIME, unit="ratio", higher_is_better=False),
    ]
    front = {trial.number for trial in best(study)}
    trials = sorted([*ended(study), *failed(study)], key=lambda trial: trial.number)
    spaces = {name: of.model_dump(exclude_defaults=True) for name, of in arm.spaces.items()}
    return Study(
        name=study.study_name,
        sampler=search.sampler,
        pruner=search.prunes,
        held_out=held_out,
        objectives=objectives[: len(search.objectives)],
        searched=spaces,
        trials=[_trial(trial, arm, trial.number in front) for trial in trials],
        importances=importances(study),
        seconds=sum(trial.duration.total_seconds() for trial in trials if trial.duration),
    )


def _trial(trial: FrozenTrial, arm: Arm, is_best: bool) -> Trial:
    error = trial.user_attrs.get("error") or trial.user_attrs.get(LOST)
    shorts = short_names(arm.spaces)
    complete = trial.state == TrialState.COMPLETE
    return Trial(
        number=trial.number,
        state="failed" if error else "complete" if complete else "pruned",
        values=trial.values if complete else [],
        params={shorts[name]: v for name, v in values_of(arm.spaces, trial.params).items()},
        epochs=trial.user_attrs.get(EPOCHS, 0),
        default=bool(trial.user_attrs.get(DEFAULT)),
        best=is_best,
        error=error,
    )


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each setting in what the first objective hangs on.

    Optuna asks in what the best tenth of the trials differs from all; of few it says nothing.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST or len({trial.values[0] for trial in complete}) < 2:
        return {}
    return optuna.importance.get_param_importances(study, target=_lower_is_better(study))


def _lower_is_better(study: optuna.Study) -> Callable[[FrozenTrial], float] | None:
    """Return the first of two objectives as Optuna's importances want it; it knows a single one."""
    if len(study.directions) == 1:
        return None
    sign = 1.0 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1.0
    return lambda trial: sign * trial.values[0]


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def keep(
    store: Store,
    run_id: str,
    study: optuna.Study,
    told: Study,
    arm: Arm,
    data: Data,
    command: str,
) -> None:
    """Keep the record and the pictures of a study with its run; what is kept already stays."""
    content = digest(told.model_dump())
    if store.client.get_run(run_id).data.tags.get(TAG) == content:
        return
    record = record_of(
        arm.cell,
        command=command,
        reproduce=command,
        run_id=run_id,
        optuna_study=study.study_name,
        kind="study",
        data=data,
        study=told,
    )
    with TemporaryDirectory() as scratch:
        store.keep(run_id, record.save(Path(scratch)), "records")
        for picture in draw(study, told, Path(scratch)):
            store.keep(run_id, picture, "pictures")
    scores = [trial.values[0] for trial in told.trials if trial.best]
    better = max if arm.higher_is_better else min
    store.metrics(run_id, {"best": better(scores), "seconds": told.seconds})
    store.tag(run_id, {TAG: content})
    store.end(run_id)


def draw(study: optuna.Study, told: Study, folder: Path) -> list[Path]:
    """Draw Optuna's own pictures of a study into a folder; return their paths.

    Args:
        study: in Optuna.
        told: what a record says of it.
        folder: for PNG files.
    """
    paths = []
    for name, plot in _plots(study, told).items():
        paths.append(folder / f"{name}.png")
        with warnings.catch_warnings():  # they are Optuna's own to change
            warnings.simplefilter("ignore", ExperimentalWarning)
            plot_picture(plot, paths[-1])
    return paths


def _plots(study: optuna.Study, told: Study) -> Mapping[str, Callable[[], Any]]:
    """Return name → what draws a picture."""
    headline = told.objectives[0].name
    drawn: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(
            study, target=_first if len(told.objectives) > 1 else None, target_name=headline
        ),
    }
    if told.importances:
        drawn["importances"] = lambda: plots.plot_param_importances(
            study, target=_lower_is_better(study), target_name=headline
        )
    if len(told.objectives) > 1:
        names = [objective.name for objective in told.objectives]
        drawn["pareto"] = lambda: plots.plot_pareto_front(study, target_names=names)
    else:
        drawn["epochs"] = lambda: plots.plot_intermediate_values(study)
    return drawn
