"""Optuna, in one place: a study over one cell, on a split held out of the training set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import yaml
from lightning.pytorch.callbacks import Callback
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from bench.config import files
from bench.config.cell import Cell
from bench.config.plan import Choice, board_of, one, plan
from bench.config.schema import (
    BoardConfig,
    SearchSpace,
    Tuning,
    load_host,
    load_operator,
    load_suite,
)
from bench.errors import Failure, UserError
from bench.hashing import digest
from bench.run import fit
from bench.run.suite import hush, preflight
from bench.store import Store
from bench.whole_files import write_whole
from tasks.base import TaskModule
from tasks.seeds import derive

HOLDOUT = 0.2
"""Share of the training set that trials are scored on."""
MOST_FAILURES = 5
HEARTBEAT_S = 30
"""How often a trial says that it lives: one that is silent for twice as long is retried."""
WAIT_S = 600
"""How long a store that is locked or away is waited for."""
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
    store = Store(folder, wait_s=WAIT_S)
    store.require_writable()
    store.require_active([f"{cell.suite}-tune"])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    title = f"{cell.task}/{cell.host}/{cell.operator}/{digest([held_out, _dump(spaces)])[:12]}"
    study = _study(store, title)
    # drawn anew at every start: a study that goes on must not repeat its first draws
    study.sampler = optuna.samplers.TPESampler(
        seed=derive(cell.seed, len(study.trials)) % 2**32, n_startup_trials=5, constant_liar=True
    )
    parent = _parent(study, store, cell, held_out, title)
    trial_of = _Trials(study, cell, held_out, spaces, store, parent)
    before(len(_ended(study)))

    def report(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        ended(len(_ended(study)), f"trial {trial.number}: {_words(trial, spaces)}")
        if len(_failed(study)) >= MOST_FAILURES:
            study.stop()

    if len(_ended(study)) < trials:
        enough = MaxTrialsCallback(trials, states=(TrialState.COMPLETE, TrialState.PRUNED))
        study.optimize(trial_of, callbacks=[report, enough], catch=(Exception,))
    if len(_failed(study)) >= MOST_FAILURES:
        raise Failure(
            f"{MOST_FAILURES} trials failed, the last with: "
            f"{_failed(study)[-1].user_attrs['error']}"
        )
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if not complete:
        raise Failure("no trial ended well; see their errors in the MLflow UI.")
    store.metrics(parent, {"best": study.best_value})
    path = out or store.folder / "tuned" / f"{cell.task}-{cell.host}-{cell.operator}.yaml"
    tuning = Tuning(study=title, trials=len(_ended(study)))
    board = board_of(name, choice, cell)
    seeds = choice.seeds or board.seeds or load_suite(name).seeds
    write(path, board, cell, study.best_params, tuning, seeds)
    store.keep(parent, path)
    store.end(parent)
    return Tuned(path, study.best_value, len(complete))


def _study(store: Store, title: str) -> optuna.Study:
    """Make or load a study; processes share it, and the trials of those that died are retried."""
    storage = optuna.storages.RDBStorage(
        store.database("optuna.db"),
        heartbeat_interval=HEARTBEAT_S,
        grace_period=2 * HEARTBEAT_S,
        heartbeat_stale_trial_callback=_again(store),
    )
    return optuna.create_study(
        storage=storage,
        study_name=title,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        direction="maximize",
        load_if_exists=True,
    )


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


def _parent(
    study: optuna.Study, store: Store, cell: Cell, held_out: dict[str, Any], title: str
) -> str:
    """Return the MLflow run of a study, in which its trials are."""
    run_id: str | None = study.user_attrs.get("mlflow_run")
    if run_id is None:
        tags = {**cell.tags(), "study": title}
        run_id = store.begin(f"{cell.suite}-tune", title, tags, held_out)
        study.set_user_attr("mlflow_run", run_id)
    return run_id


def _words(trial: optuna.trial.FrozenTrial, spaces: Mapping[str, SearchSpace]) -> str:
    """Say what a trial drew and what came of it."""
    if "error" in trial.user_attrs:
        return f"failed: {trial.user_attrs['error']}"
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


def _failed(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that failed; those that were cut off did not."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in failed if "error" in trial.user_attrs]


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


@dataclass(frozen=True)
class _Trials:
    """What one trial of a study is: a run with what it drew, scored on what is held out."""

    study: optuna.Study
    cell: Cell
    held_out: dict[str, Any]
    spaces: Mapping[str, SearchSpace]
    store: Store
    parent: str

    def __call__(self, trial: optuna.Trial) -> float:
        """Run a trial; one that is cut off is queued again, and is no failure."""
        config = files.merge(self.held_out, suggest(trial, self.spaces))
        tags = {**self.cell.tags(), "trial": str(trial.number)}
        experiment = f"{self.cell.suite}-tune"
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


def write(
    path: Path,
    board: BoardConfig,
    cell: Cell,
    params: Mapping[str, Any],
    tuning: Tuning,
    seeds: Sequence[int],
) -> None:
    """Write a suite of one board: the tuned operator beside the default one and the baseline.

    All have the same seeds, and the cells of the last two are those of the original suite, so that
    `convboard run` runs the tuned ones alone where the others are done.

    Args:
        path: the file to write.
        board: on which the cell stands, with what the command line laid over it.
        cell: what was tuned.
        params: of the best trial.
        tuning: its study.
        seeds: of the original suite.
    """
    settings: dict[str, Any] = {}
    options = dict(cell.operator_config.options)
    for name, value in _drawn(space(cell), params).items():
        if ".options." in name:
            options[name.rpartition(".")[2]] = value
        else:
            _put(settings, name, value)
    tuned = cell.operator_config.model_copy(
        update={
            "label": f"{cell.operator}-tuned",
            "options": options,
            "tune": {},
            "set": settings,
            "tuned": tuning,
        }
    )
    by_label = {load_operator(operator).label: operator for operator in board.operators}
    default = by_label.get(cell.operator, cell.operator_config)
    others = [default] if cell.baseline else [by_label[board.baseline], default]
    hosts = [load_host(host) for host in board.hosts]
    host = next((h for h in hosts if h.label == cell.host), None) or load_host(cell.host)
    changes = {"hosts": [host], "operators": [*others, tuned], "seeds": None}
    suite = {
        "name": path.stem,
        "description": f"{cell.operator} tuned on {cell.task} in {cell.host}",
        "seeds": list(seeds),
        "boards": [board.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)],
    }
    write_whole(path, yaml.safe_dump(suite, sort_keys=False))
