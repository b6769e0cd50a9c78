"""Optuna, in one place: a study over one cell, on a split held out of the training set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import yaml
from lightning.pytorch.callbacks import Callback
from optuna.trial import TrialState

from bench.config import files
from bench.config.plan import Cell, Choice, board_of, one, plan
from bench.config.schema import BoardConfig, SearchSpace, Tuning, load_host
from bench.errors import UserError
from bench.hashing import digest
from bench.run import fit
from bench.run.suite import hush, preflight
from bench.store import Store
from tasks.base import TaskModule

HOLDOUT = 0.2
WIDTH = 10.0
WEIGHT_DECAY = SearchSpace(low=1e-4, high=0.3, log=True)


@dataclass(frozen=True)
class Tuned:
    """What a study gave: the suite that runs its best trial, and how it was found."""

    path: Path
    best: float
    complete: int


def tune(
    name: str,
    choice: Choice,
    folder: Path,
    *,
    trials: int,
    out: Path | None,
    before: Callable[[int], object] = lambda done: None,
    ended: Callable[[int, str], object] = lambda done, words: None,
) -> Tuned:
    """Search one cell of a suite, and write the best trial as a suite.

    Searched are the learning rate (log-uniform, from a tenth to ten times the recipe's), the
    weight decay (log-uniform, 1e-4 … 0.3), and the operator's own options as its overlay's `tune`
    gives them. The sampler is TPE with the cell's seed; a trial that is below the median of the
    others at an epoch is pruned. The score is the headline on a fifth of the training set that
    is held out; the published split is never seen. Study and trials are kept in `folder`, so the
    same command goes on where it was cut off, up to `trials` in all.

    Args:
        name: of the suite, or its path.
        choice: what narrows it to one cell.
        folder: the runs folder; see `bench.store.Store`.
        trials: in the study, in all.
        out: the suite to write; None for one in `folder`.
        before: called with how many trials had ended before.
        ended: called after each trial with how many have ended, and what became of it.

    Raises:
        UserError: more than one cell is chosen, or `trials` < 1.
    """
    if trials < 1:
        raise UserError(f"`--trials` (={trials}) must be at least 1.")
    hush()
    cell = one(plan(name, choice))
    held_out = files.merge(cell.config, {"data": {"init_args": {"holdout": HOLDOUT}}})
    preflight([cell.model_copy(update={"config": held_out})])
    spaces = space(cell)
    store = Store(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    title = f"{cell.task}/{cell.host}/{cell.operator}/{digest([held_out, _dump(spaces)])[:12]}"
    study = optuna.create_study(
        storage=f"sqlite:///{store.folder / 'optuna.db'}",
        study_name=title,
        sampler=optuna.samplers.TPESampler(seed=cell.seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        direction="maximize",
        load_if_exists=True,
    )
    _settle(study)
    experiment = f"{cell.suite}-tune"
    parent = study.user_attrs.get("mlflow_run")
    if parent is None:
        parent = store.begin(experiment, title, {**cell.tags(), "study": title}, held_out)
        study.set_user_attr("mlflow_run", parent)
    before(len(_ended(study)))
    while len(_ended(study)) < trials:
        trial = study.ask()
        failure = _run_trial(study, trial, cell, held_out, spaces, store, experiment, parent)
        words = failure or _words(study.trials[trial.number], spaces)
        ended(len(_ended(study)), f"trial {trial.number}: {words}")
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if not complete:
        raise UserError("no trial ended well; see their errors in the MLflow UI.")
    best = study.best_trial
    store.metrics(parent, {"best": study.best_value})
    path = out or store.folder / "tuned" / f"{cell.task}-{cell.host}-{cell.operator}.yaml"
    write(path, board_of(name, choice, cell), cell, best.params, title, len(_ended(study)))
    store.keep(parent, path)
    store.end(parent)
    return Tuned(path, study.best_value, len(complete))


def _words(trial: optuna.trial.FrozenTrial, spaces: Mapping[str, SearchSpace]) -> str:
    """Say what a trial drew and what came of it."""
    value = trial.state.name.lower() if trial.value is None else f"{trial.value:.4f}"
    parts = []
    for name, drawn in _drawn(spaces, trial.params).items():
        shown = f"{drawn:.4g}" if isinstance(drawn, float) else str(drawn)
        parts.append(f"{name.rpartition('.')[2]} {shown}")
    return f"{value} with {', '.join(parts)}"


def space(cell: Cell) -> dict[str, SearchSpace]:
    """Return what is searched: dotted name in the configuration → its space."""
    arguments = cell.config["model"]["init_args"]
    lr = float(arguments["lr"])
    spaces = {
        "model.init_args.lr": SearchSpace(low=lr / WIDTH, high=lr * WIDTH, log=True),
        "model.init_args.weight_decay": WEIGHT_DECAY,
    }
    for option, of in cell.tune.items():
        spaces[f"model.init_args.backbone.init_args.options.{option}"] = of
    return spaces


def suggest(trial: optuna.Trial, spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Draw one value of every space; return them as a configuration to lay over."""
    config: dict[str, Any] = {}
    for name, of in spaces.items():
        short = name.rpartition(".")[2]
        if of.values is not None:
            drawn = of.values[trial.suggest_categorical(short, list(range(len(of.values))))]
        elif isinstance(of.low, int) and isinstance(of.high, int):
            drawn = trial.suggest_int(short, of.low, of.high, log=of.log)
        else:
            drawn = trial.suggest_float(short, float(of.low or 0), float(of.high or 0), log=of.log)
        _put(config, name, drawn)
    return config


def _drawn(spaces: Mapping[str, SearchSpace], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted name → value of a trial's parameters, in which a choice is an index."""
    drawn = {}
    for name, of in spaces.items():
        value = params[name.rpartition(".")[2]]
        drawn[name] = value if of.values is None else of.values[value]
    return drawn


def _put(config: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for key in path:
        config = config.setdefault(key, {})
    config[last] = value


def _dump(spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    return {name: of.model_dump() for name, of in spaces.items()}


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def _settle(study: optuna.Study) -> None:
    """Give trials that were cut off another try."""
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, skip_if_exists=True)


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


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    cell: Cell,
    held_out: dict[str, Any],
    spaces: Mapping[str, SearchSpace],
    store: Store,
    experiment: str,
    parent: str,
) -> str | None:
    """Run one trial; return what went wrong, if anything."""
    config = files.merge(held_out, suggest(trial, spaces))
    tags = {**cell.tags(), "trial": str(trial.number)}
    run_id = store.begin(experiment, f"trial {trial.number}", tags, config, parent)
    work = store.folder / "trials" / run_id
    try:
        fitted = fit.fit(
            config, work, logger=store.logger(experiment, run_id), callbacks=[_Pruner(trial)]
        )
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        store.tag(run_id, {"pruned": "true"})
        store.end(run_id, "KILLED")
    except KeyboardInterrupt:
        store.end(run_id, "KILLED")
        raise
    except Exception as error:
        study.tell(trial, state=TrialState.FAIL)
        words = f"{type(error).__name__}: {error}"
        store.tag(run_id, {"error": words[:5000]})
        store.end(run_id, "FAILED")
        if len([t for t in study.trials if t.state == TrialState.FAIL]) >= 5:
            raise UserError(f"five trials failed, the last with: {error}") from error
    else:
        value = fitted.metrics[fitted.module.headline]
        study.tell(trial, value)
        store.metrics(run_id, {"held_out": value})
        store.end(run_id)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return None


def write(
    path: Path,
    board: BoardConfig,
    cell: Cell,
    params: Mapping[str, Any],
    study: str,
    trials: int,
) -> None:
    """Write the best parameters as a suite of one board that `convboard run` takes as it is.

    Args:
        path: the file to write.
        board: on which the cell stands, with what the command line laid over it.
        cell: what was tuned.
        params: of the best trial.
        study: its study's name.
        trials: how many trials were ended.
    """
    found: dict[str, Any] = {}
    options = dict(cell.operator_config.options)
    for name, value in _drawn(space(cell), params).items():
        if ".options." in name:
            options[name.rpartition(".")[2]] = value
        else:
            _put(found, name, value)
    label = f"{cell.operator}-tuned"
    operator = cell.operator_config.model_copy(
        update={"label": label, "options": options, "tune": {}}
    )
    hosts = [load_host(host) for host in board.hosts]
    host = next((h for h in hosts if h.label == cell.host), None) or load_host(cell.host)
    changes = {
        "hosts": [host],
        "operators": [operator],
        "baseline": label,
        "set": files.merge(board.set, found),
        "tuned": Tuning(study=study, trials=trials),
    }
    told = {
        "name": path.stem,
        "description": f"{cell.operator} tuned on {cell.task} in {cell.host}",
        "seeds": [cell.seed],
        "boards": [board.model_copy(update=changes).model_dump(exclude_defaults=True)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
