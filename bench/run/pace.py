"""How long a training takes, by a few of its steps: known before any is run in full."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from bench.config.lightning import build

STEPS = 4
"""Batches that are trained on, and scored; the first of them is slower and does not count."""


class _Clock(Callback):
    """Notes when training began and when each batch ended, trained on or scored."""

    def __init__(self) -> None:
        self.trained: list[float] = []
        self.scored: list[float] = []

    def on_train_start(self, *_: Any, **__: Any) -> None:
        self.trained.append(_now())

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.trained.append(_now())

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        self.scored.append(_now())

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        self.scored.append(_now())


def _now() -> float:
    """Return the time when all that was asked for is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def epoch_seconds(config: dict[str, Any]) -> float:
    """Return about how long an epoch of a run takes here and now, scored as often as it says.

    Args:
        config: resolved; a few steps of it are run, and nothing is kept.

    Raises:
        UserError: the configuration or its data are wrong.
    """
    run = build(config)
    clock = _Clock()
    few: dict[str, Any] = {
        "max_epochs": 1,
        "limit_train_batches": STEPS,
        "limit_val_batches": STEPS,
        "check_val_every_n_epoch": 1,
        "logger": False,
        "callbacks": [clock],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    L.Trainer(**run.trainer | few).fit(run.module, datamodule=run.data)
    if torch.cuda.is_available():
        run.module.cpu()
        torch.cuda.empty_cache()  # the cells will need it
    training = _step(clock.trained) * len(run.data.train_dataloader())
    scoring = _step(clock.scored) * len(run.data.val_dataloader())
    return training + scoring / (config["trainer"].get("check_val_every_n_epoch") or 1)


def _step(moments: list[float]) -> float:
    """Return the mean time between moments; the first step counts where there is no other.

    Example:
        >>> _step([0.0, 9.0, 10.0, 11.0]), _step([0.0, 9.0]), _step([])
        (1.0, 9.0, 0.0)
    """
    later = moments[1:] if len(moments) > 2 else moments
    return (later[-1] - later[0]) / max(1, len(later) - 1) if later else 0.0
