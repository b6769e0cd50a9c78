"""One run: a Lightning configuration in, a trained and scored model out."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch import nn

from bench import overlays
from tasks.base import TaskModule
from tasks.data.module import TaskData

LAST = "last.ckpt"
PROGRESS = "progress.json"


class ConfigError(ValueError):
    """A configuration that cannot run; the message names argument, value and rule."""


def parser() -> LightningArgumentParser:
    """Return the parser of a run: `model`, `data`, `trainer`, `seed_everything`.

    The signatures of the classes are the configuration.
    """
    made = LightningArgumentParser(prog="convboard fit", exit_on_error=False)
    made.add_argument("--seed_everything", type=int, default=0, help="seed of the run")
    made.add_lightning_class_args(L.Trainer, "trainer")
    made.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
    made.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True)
    made.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
    made.link_arguments("seed_everything", "data.init_args.seed")
    made.link_arguments("seed_everything", "model.init_args.seed")
    made.set_defaults(
        {
            "trainer.logger": False,
            "trainer.enable_model_summary": False,
            "trainer.num_sanity_val_steps": 0,
            "trainer.devices": 1,
        }
    )
    return made


def from_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Read Lightning's form of a command line: `--config FILE`, then `--name value` over it.

    `--model` and `--data` name classes; a class's own arguments may be written with or without
    `init_args`. Values are read as YAML; what comes later goes over what came before.

    Raises:
        ConfigError: not of this form.

    Example:
        >>> from_arguments(["--data", "tasks.ClassificationData", "--data.batch_size=8"])
        {'data': {'class_path': 'tasks.ClassificationData', 'init_args': {'batch_size': 8}}}
    """
    config: dict[str, Any] = {}
    left = list(arguments)
    while left:
        name, equals, text = left.pop(0).partition("=")
        if not name.startswith("--"):
            raise ConfigError(f"`{name}` stands alone; write --name value, e.g. --model.lr 0.01.")
        if not equals:
            if not left:
                raise ConfigError(f"`{name}` has no value.")
            text = left.pop(0)
        name = name.removeprefix("--")
        if name == "config":
            config = overlays.merge(config, overlays.read(overlays.existing(text)))
            continue
        overlays.assign(config, f"{_path(name.split('.'))}={text}")
    return config


def _path(parts: list[str]) -> str:
    """Fill in what Lightning lets people leave out: class_path and init_args."""
    if parts[0] not in ("model", "data"):
        return ".".join(parts)
    if len(parts) == 1:
        return f"{parts[0]}.class_path"
    full = parts[:1]
    if parts[1] not in ("class_path", "init_args"):
        full.append("init_args")
    full += parts[1:]
    if full[:3] == ["model", "init_args", "backbone"]:
        if len(full) == 3:
            full.append("class_path")
        elif full[3] not in ("class_path", "init_args"):
            full.insert(3, "init_args")
    return ".".join(full)


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration and fill in the defaults of every class in it.

    Raises:
        ConfigError: an unknown class or argument, or a value of the wrong type.
    """
    made = parser()
    try:
        parsed = made.parse_object(config)
        text = made.dump(parsed, skip_validation=True, skip_link_targets=False, format="json")
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(_short(str(error))) from None
    resolved: dict[str, Any] = json.loads(text)
    return resolved


def _short(message: str) -> str:
    """Keep what a user needs of jsonargparse's nested report: the path, the fault, the value."""
    keys = re.findall(r'[Pp]arser key "([^"]+)"', message)
    lines = [line.strip(" -") for line in message.splitlines()]
    faults = [
        line
        for line in lines
        if line
        and not re.match(
            r"(Does not validate|Subtypes:|Errors:|Parser key|Given value|Problem with given|"
            r"Expected a <class 'NoneType'>|usage:|tip:)",
            line,
        )
    ]
    values = [line for line in lines if line.startswith("Given value:") and len(line) < 120]
    if not faults:
        return message
    where = f"`{'.'.join(keys)}`: " if keys else ""
    return where + "; ".join(dict.fromkeys([*faults[:4], *values[:1]]))


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


def instantiate(config: dict[str, Any]) -> tuple[TaskModule, TaskData]:
    """Build the module and the data module of a resolved configuration, seeded.

    Raises:
        ConfigError: the configuration does not resolve.
        ValueError: a class refuses its arguments.
    """
    made = parser()
    L.seed_everything(config["seed_everything"], workers=True, verbose=False)
    try:
        parsed = made.parse_object({k: v for k, v in config.items() if k != "trainer"})
    except ArgumentError as error:
        raise ConfigError(_short(str(error))) from None
    built = made.instantiate(parsed)
    if not isinstance(built.model, TaskModule):
        raise ConfigError(
            "`model.class_path` (="
            f"{config['model']['class_path']!r}) must be a tasks.base.TaskModule."
        )
    if not isinstance(built.data, TaskData):
        raise ConfigError(
            f"`data.class_path` (={config['data']['class_path']!r}) must be a "
            "tasks.data.module.TaskData."
        )
    return built.model, built.data


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
    module, datamodule = instantiate(config)
    curve = _Curve(folder)
    # the newest of every epoch, validated or not, in one file: with no monitor, "top 1" is the last
    last = ModelCheckpoint(
        folder,
        Path(LAST).stem,
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    settings = {k: v for k, v in config["trainer"].items() if k not in ("logger", "callbacks")}
    settings |= {
        "logger": logger or False,
        "callbacks": [curve, last, *callbacks],
        "enable_progress_bar": progress_bar,
        "default_root_dir": str(folder),
    }
    trainer = L.Trainer(**settings)
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


def inference_module(model: dict[str, Any], num_classes: int, checkpoint: Path) -> nn.Module:
    """Return what is timed end to end of a trained run, without its data.

    Args:
        model: the part `model` of the run's resolved configuration.
        num_classes: of its data.
        checkpoint: its weights.
    """
    made = LightningArgumentParser(exit_on_error=False)
    made.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
    whole = overlays.merge(model, {"init_args": {"num_classes": num_classes}})
    task: TaskModule = made.instantiate(made.parse_object({"model": whole})).model
    return _weights(task, checkpoint).inference_module()


def load(config: dict[str, Any], checkpoint: Path) -> TaskModule:
    """Return the module of `config` with the weights of `checkpoint`, read as weights only."""
    module, _ = instantiate(config)
    return _weights(module, checkpoint)


def _weights(module: TaskModule, checkpoint: Path) -> TaskModule:
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    module.load_state_dict(state["state_dict"])
    return module.eval()
