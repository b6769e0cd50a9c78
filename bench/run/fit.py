"""One run: a resolved configuration in, a trained and scored model out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import nn

from bench.config.lightning import build, build_module
from tasks.base import TaskModule
from tasks.data.module import TaskData

LAST = "last.ckpt"
PROGRESS = "progress.json"


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
    module: TaskModule
    datamodule: TaskData


class _Curve(Callback):
    """Keeps the metrics of every epoch and says on disk how far the run is."""

    def __init__(self, folder: Path) -> None:
        self.curve: dict[str, list[float]] = {}
        self.samples = 0
        self.seconds = 0.0
        self.folder = folder
        self.scored: tuple[int, dict[str, float]] = (-1, {})
        self._since = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.samples += len(batch[0])
        self._write(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._keep(trainer, "val/")
            values = trainer.callback_metrics.items()
            metrics = {k: float(v) for k, v in values if k.startswith("val/")}
            self.scored = trainer.global_step, metrics

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._keep(trainer, "train/")
        self._write(trainer, force=True)

    def _keep(self, trainer: L.Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            # Lightning logs a value per step and epoch under three names: one is enough
            if name.startswith(prefix) and not name.endswith(("_step", "_epoch")):
                self.curve.setdefault(name, []).append(float(value))

    def _write(self, trainer: L.Trainer, force: bool = False) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        total = trainer.estimated_stepping_batches
        step = trainer.global_step
        if force or step % 10 == 0:
            partial = self.folder / (PROGRESS + ".partial")
            partial.write_text(json.dumps({"done": step / total if total else 0.0}))
            partial.replace(self.folder / PROGRESS)

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "samples": self.samples, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = state_dict["curve"]
        self.samples = state_dict["samples"]
        self.seconds = state_dict["seconds"]


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
        ConfigError, ValueError: before any training, for bad input.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = build(config)
    module, datamodule = run.module, run.data
    curve = _Curve(folder)
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
            "enable_progress_bar": progress_bar,
            "default_root_dir": str(folder),
        }
    )
    checkpoint = folder / LAST
    trainer.fit(
        module,
        datamodule=datamodule,
        ckpt_path=str(checkpoint) if checkpoint.exists() else None,
        weights_only=True,
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    step, scored = curve.scored
    if step != trainer.global_step:  # the last step was not validated after
        scored = dict(trainer.validate(module, datamodule=datamodule, verbose=False)[0])
    return Fitted(
        metrics={k.removeprefix("val/"): v for k, v in scored.items()},
        curve=curve.curve,
        per_class=module.per_class(),
        outcomes=module.outcomes(),
        data=datamodule.describe(),
        seconds=curve.seconds,
        epochs=trainer.current_epoch,
        samples_seen=curve.samples,
        module=module,
        datamodule=datamodule,
    )


def several(value: Any) -> list[Any]:
    """Return what Lightning takes as nothing, one thing or a list of things as a list.

    Example:
        >>> several(None), several(False), several("a"), several(["a", "b"])
        ([], [], ['a'], ['a', 'b'])
    """
    if value is None or value is False:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def inference_module(model: dict[str, Any], num_classes: int, checkpoint: Path) -> nn.Module:
    """Return what is timed end to end of a trained run, without its data.

    Args:
        model: the part `model` of the run's resolved configuration.
        num_classes: of its data.
        checkpoint: its weights.
    """
    return with_weights(build_module(model, num_classes), checkpoint).inference_module()


def with_weights(module: TaskModule, checkpoint: Path) -> TaskModule:
    """Return the module, to evaluate, with the weights of a checkpoint, read as weights only."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    module.load_state_dict(state["state_dict"])
    return module.eval()
