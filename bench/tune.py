"""Optuna, in one place: a study over one cell, on a split held out of the training set."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import yaml
from lightning.pytorch.callbacks import Callback
from optuna.trial import TrialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import fit, overlays, suite
from bench.cell import Cell
from bench.overlays import OverlayError, Space
from bench.record import digest
from bench.suite import Choice
from bench.track import Store
from tasks.base import TaskModule

HOLDOUT = 0.2
WIDTH = 10.0
WEIGHT_DECAY = Space(low=1e-4, high=0.3, log=True)


def tune(
    name: str,
    choice: Choice,
    folder: Path,
    *,
    trials: int,
    out: Path | None,
    command: str,
) -> Path:
    """Search one cell of a suite; write the best trial as a suite; return its path.

    Searched are the learning rate (log-uniform, from a tenth to ten times the recipe's), the
    weight decay (log-uniform, 1e-4 … 0.3), and the operator's own options as its overlay's `tune`
    gives them. The sampler is TPE with the cell's seed; a trial that is below the median of the
    others at an epoch is pruned. The score is the headline on a fifth of the training set that
    is held out; the published split is never seen. Study and trials are kept in `folder`, so the
    same command goes on where it was cut off, up to `trials` in all.

    Raises:
        ValueError: more than one cell is chosen, or `trials` < 1.
    """
    if trials < 1:
        raise OverlayError(f"`--trials` (={trials}) must be at least 1.")
    suite.hush()
    cell = suite.one(suite.plan(name, choice))
    held = overlays.merge(cell.config, {"data": {"init_args": {"holdout": HOLDOUT}}})
    suite.preflight([Cell(**dict(cell) | {"config": held})])
    spaces = space(cell)
    store = Store(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    title = f"{cell.task}/{cell.host}/{cell.arm.label}/{digest([held, _dump(spaces)])[:12]}"
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
        parent = store.begin(experiment, title, {**cell.tags(), "study": title}, held)
        study.set_user_attr("mlflow_run", parent)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    ) as progress:
        bar = progress.add_task("trials", total=trials, completed=len(_ended(study)))
        while len(_ended(study)) < trials:
            trial = study.ask()
            _run(study, trial, cell, held, spaces, store, experiment, parent)
            ended = study.trials[trial.number]
            value = ended.state.name.lower() if ended.value is None else f"{ended.value:.4f}"
            told = ", ".join(
                f"{name.rpartition('.')[2]} {value:.4g}"
                if isinstance(value, float)
                else f"{name.rpartition('.')[2]} {value}"
                for name, value in _drawn(spaces, ended.params).items()
            )
            progress.console.print(f"trial {trial.number}: {value} with {told}")
            progress.update(bar, completed=len(_ended(study)))
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if not complete:
        raise OverlayError("no trial ended well; see their errors in the MLflow UI.")
    best = study.best_trial
    store.metrics(parent, {"best": study.best_value})
    path = out or store.folder / "tuned" / f"{cell.task}-{cell.host}-{cell.arm.label}.yaml"
    write(path, suite.board(name, choice, cell), cell, best.params, title, len(_ended(study)))
    store.keep(parent, path)
    store.end(parent)
    print(f"best of {len(complete)} complete trials: {study.best_value:.4f} on the held-out split")
    print(f"next: convboard run {path}")
    return path


def space(cell: Cell) -> dict[str, Space]:
    """Return what is searched: dotted name in the configuration → its space."""
    arguments = cell.config["model"]["init_args"]
    lr = float(arguments["lr"])
    spaces = {
        "model.init_args.lr": Space(low=lr / WIDTH, high=lr * WIDTH, log=True),
        "model.init_args.weight_decay": WEIGHT_DECAY,
    }
    for option, of in cell.arm.tune.items():
        spaces[f"model.init_args.backbone.init_args.options.{option}"] = of
    return spaces


def suggest(trial: optuna.Trial, spaces: Mapping[str, Space]) -> dict[str, Any]:
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


def _drawn(spaces: Mapping[str, Space], params: Mapping[str, Any]) -> dict[str, Any]:
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


def _dump(spaces: Mapping[str, Space]) -> dict[str, Any]:
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


def _run(
    study: optuna.Study,
    trial: optuna.Trial,
    cell: Cell,
    held: dict[str, Any],
    spaces: Mapping[str, Space],
    store: Store,
    experiment: str,
    parent: str,
) -> None:
    config = overlays.merge(held, suggest(trial, spaces))
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
        print(f"trial {trial.number} failed: {type(error).__name__}: {error}")
        store.tag(run_id, {"error": f"{type(error).__name__}: {error}"[:5000]})
        store.end(run_id, "FAILED")
        if len([t for t in study.trials if t.state == TrialState.FAIL]) >= 5:
            raise OverlayError(f"five trials failed, the last with: {error}") from error
    else:
        value = fitted.metrics[fitted.module.headline]
        study.tell(trial, value)
        store.metrics(run_id, {"held_out": value})
        store.end(run_id)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write(
    path: Path,
    board: overlays.Board,
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
    options = dict(cell.arm.options)
    for name, value in _drawn(space(cell), params).items():
        if ".options." in name:
            options[name.rpartition(".")[2]] = value
        else:
            _put(found, name, value)
    label = f"{cell.arm.label}-tuned"
    arm = cell.arm.model_copy(update={"label": label, "options": options, "tune": {}})
    hosts = [overlays.load_host(host) for host in board.hosts]
    host = next((h for h in hosts if h.label == cell.host), None) or overlays.load_host(cell.host)
    changes = {
        "hosts": [host],
        "operators": [arm],
        "baseline": label,
        "set": overlays.merge(board.set, found),
        "tuned": overlays.Tuned(study=study, trials=trials),
    }
    told = {
        "name": path.stem,
        "description": f"{cell.arm.label} tuned on {cell.task} in {cell.host}",
        "seeds": [cell.seed],
        "boards": [board.model_copy(update=changes).model_dump(exclude_defaults=True)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
