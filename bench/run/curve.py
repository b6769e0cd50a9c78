"""What a run is followed by: metrics of every epoch, how far it is, and whether it diverged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from bench.whole_files import write_whole

PROGRESS = "progress.json"
LOOK_EVERY = 10
"""Steps between two looks at the loss, which make a GPU wait."""


class Diverged(RuntimeError):
    """The loss is not a number any more; nothing good comes of going on."""


class Curve(Callback):
    """Keeps the metrics of every epoch, says on disk how far the run is, and stops a lost one.

    Args:
        folder: where `PROGRESS` is written.

    Attributes:
        curve: metric → value per epoch.
        samples: trained on so far.
        seconds: spent in training, those of earlier starts included.
        scored: the step after which the last validation was, and its metrics.
    """

    def __init__(self, folder: Path) -> None:
        self.curve: dict[str, list[float]] = {}
        self.samples = 0
        self.seconds = 0.0
        self.folder = folder
        self.scored: tuple[int, dict[str, float]] = (-1, {})
        self._since = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count, and look at the loss now and then."""
        self.samples += len(batch[0]) * trainer.world_size  # of every rank as many
        if batch_idx % LOOK_EVERY == 0 or trainer.is_last_batch:
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            if isinstance(loss, torch.Tensor) and not bool(loss.isfinite().all()):
                step = trainer.global_step
                raise Diverged(f"diverged at step {step}: the loss is {float(loss.mean()):g}")
        self._write(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the scores of the epoch."""
        if trainer.state.fn == "fit":
            self._keep(trainer, "val/")
            values = trainer.callback_metrics.items()
            metrics = {k: float(v) for k, v in values if k.startswith("val/")}
            self.scored = trainer.global_step, metrics

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the losses of the epoch."""
        self._keep(trainer, "train/")
        loss = self.curve.get("train/loss", [0.0])[-1]
        if not math.isfinite(loss):
            step = trainer.global_step
            raise Diverged(f"diverged at step {step}: the epoch's mean loss is {loss:g}")
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
        if trainer.is_global_zero and (force or step % 10 == 0):
            text = json.dumps({"done": step / total if total else 0.0})
            write_whole(self.folder / PROGRESS, text)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on needs."""
        return {"curve": self.curve, "samples": self.samples, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.curve = state_dict["curve"]
        self.samples = state_dict["samples"]
        self.seconds = state_dict["seconds"]


def fraction(folder: Path) -> float:
    """Return how much of the training in a folder is done, 0…1; 0 where nothing says so."""
    try:
        return float(json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
