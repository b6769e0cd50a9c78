"""One run: a resolved configuration in, a trained and scored model out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import nn

from bench.config.cell import without_start
from bench.config.lightning import build, build_module
from bench.operators import forms
from bench.run.curve import Curve, Diverged
from bench.run.resume import LAST, WholeCheckpoints, forget, newest
from tasks.base import TaskModule
from tasks.data.module import TaskData


class NoScore(RuntimeError):
    """The run ended, and its headline is not a number."""


@dataclass
class Fitted:
    """What one run gave."""

    metrics: dict[str, float]
    curve: dict[str, list[float]]
    per_class: dict[str, float]
    outcomes: dict[str, np.ndarray]
    data: dict[str, Any]
    seconds: float
    epochs: int
    samples_seen: int
    sampling_error: float | None
    forms: dict[str, str]
    """Problem in words → the exact form of an operator that was taken, where it was measured."""
    notes: list[str]
    """What was repaired on the way, in words."""
    module: TaskModule
    datamodule: TaskData


def fit(
    config: dict[str, Any],
    folder: Path,
    *,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
) -> Fitted:
    """Train and score the resolved `config`; a run that was cut off goes on from its last epoch.

    Args:
        config: as `resolve` returns it.
        folder: where the checkpoint is kept.
        logger: a Lightning logger.
        callbacks: more callbacks, e.g. one that prunes.
        progress_bar: show Lightning's bar.

    Raises:
        UserError: before any training, for bad input.
        Diverged: the loss is not a number any more.
        NoScore: the headline is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = build(config)
    module, datamodule = run.module, run.data
    curve = Curve(folder)
    # the newest of every epoch, validated or not, in one file: with no monitor, "top 1" is the last
    last = ModelCheckpoint(
        folder,
        Path(LAST).stem,
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    trainer = L.Trainer(
        **run.trainer
        | {
            "logger": [*([logger] if logger else []), *several(run.trainer["logger"])],
            "callbacks": [curve, last, *callbacks, *several(run.trainer["callbacks"])],
            "plugins": [WholeCheckpoints(), *several(run.trainer["plugins"])],
            "enable_checkpointing": True,
            "enable_progress_bar": progress_bar,
            "default_root_dir": str(folder),
        }
    )
    checkpoint, notes = newest(folder)
    with forms.asked() as choices:
        try:
            trainer.fit(
                module,
                datamodule=datamodule,
                ckpt_path=None if checkpoint is None else str(checkpoint),
                weights_only=True,
            )
        except SystemExit:  # how Lightning answers Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        except Diverged:
            forget(folder)
            raise
        if trainer.interrupted:
            raise KeyboardInterrupt
        step, scored = curve.scored
        if step != trainer.global_step:  # the last step was not validated after
            kept, _ = newest(folder)
            if kept is not None:  # of a run that was cut off behind it: an average is there alone
                with_weights(module, kept)
            scored = dict(trainer.validate(module, datamodule=datamodule, verbose=False)[0])
    try:
        metrics = finite_scores(module, scored)
    except NoScore:
        forget(folder)
        raise
    return Fitted(
        metrics=metrics,
        curve=curve.curve,
        per_class=finite(module.per_class()),
        outcomes=module.outcomes(),
        data=datamodule.describe(),
        seconds=curve.seconds,
        epochs=trainer.current_epoch,
        samples_seen=curve.samples,
        sampling_error=module.sampling_error(),
        forms=choices.taken if choices else {},
        notes=notes,
        module=module,
        datamodule=datamodule,
    )


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return what is a number."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def finite_scores(module: TaskModule, scored: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a validation that are numbers, by name.

    Raises:
        NoScore: the headline is none.
    """
    metrics = finite({name.removeprefix("val/"): value for name, value in scored.items()})
    if module.headline not in metrics:
        raise NoScore(
            f"`{module.headline}` is not a number: in the scored split nothing counts (all its "
            "objects are crowds, or all its pixels are ignored), or the network's outputs are "
            "not finite"
        )
    return metrics


def several(value: Any) -> list[Any]:
    """Return what Lightning takes as nothing, one thing or a list of things as a list.

    Example:
        >>> several(None), several(True), several("a"), several(["a", "b"])
        ([], [], ['a'], ['a', 'b'])
    """
    if value is None or isinstance(value, bool):  # True is Lightning's own, and ours is there
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def inference_module(model: dict[str, Any], num_classes: int, checkpoint: Path) -> nn.Module:
    """Return what is timed end to end of a trained run, without its data.

    Args:
        model: the part `model` of the run's resolved configuration.
        num_classes: of its data.
        checkpoint: its weights.
    """
    fresh = build_module(without_start(model), num_classes)
    return with_weights(fresh, checkpoint).inference_module()


def with_weights(module: TaskModule, checkpoint: Path) -> TaskModule:
    """Return the module, to evaluate, with the weights of a checkpoint, read as weights only."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    module.load_state_dict(state["state_dict"])
    return module.eval()
