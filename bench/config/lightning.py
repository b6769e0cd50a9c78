"""A run as Lightning configures it: `model`, `data`, `trainer` and `seed_everything`.

The signatures of the classes are the configuration; jsonargparse reads it and builds from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser

import bench.checkpoints  # noqa: F401  (a host may start from a paper's public weights)
from bench.config import files
from bench.config.trust import refuse_code
from bench.errors import ConfigError, UserError, require
from tasks.base import TaskModule
from tasks.data.module import TaskData


def parser() -> LightningArgumentParser:
    """Return the parser of a run."""
    run = LightningArgumentParser(prog="convboard fit", exit_on_error=False)
    run.add_argument("--seed_everything", type=int, default=0, help="seed of the run")
    run.add_lightning_class_args(L.Trainer, "trainer")
    run.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
    run.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True)
    run.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
    run.link_arguments("seed_everything", "data.init_args.seed")
    run.link_arguments("seed_everything", "model.init_args.seed")
    run.set_defaults(
        {
            "trainer.logger": False,
            "trainer.enable_model_summary": False,
            "trainer.num_sanity_val_steps": 0,
            "trainer.devices": 1,
        }
    )
    return run


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
            config = files.merge(config, files.read(files.existing(text)))
            continue
        files.assign(config, f"{_path(name.split('.'))}={text}")
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
    run = parser()
    try:
        parsed = run.parse_object(config)
        text = run.dump(parsed, skip_validation=True, skip_link_targets=False, format="json")
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
class Run:
    """What a configuration builds: the module, its data, and the arguments of the trainer.

    In `trainer` callbacks, loggers, strategy, profiler and plugins are objects.
    """

    module: TaskModule
    data: TaskData
    trainer: dict[str, Any]


def build(config: dict[str, Any]) -> Run:
    """Build what a resolved configuration says, seeded.

    Raises:
        ConfigError: the configuration does not resolve.
        UserError: a class refuses its arguments.
    """
    refuse_code(config)
    seed = config["seed_everything"]
    require("seed_everything", seed, 0 <= seed < 1 << 32, f"from 0 to {(1 << 32) - 1}")
    # it ends without the checkpoint that every run keeps
    fast = config["trainer"].get("fast_dev_run")
    require("trainer.fast_dev_run", fast, not fast, "False; trainer.max_steps shortens a run")
    run = parser()
    L.seed_everything(seed, workers=True, verbose=False)
    try:
        parsed = run.parse_object(config)
    except ArgumentError as error:
        raise ConfigError(_short(str(error))) from None
    built = _instantiate(run, parsed)
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
    return Run(built.model, built.data, dict(built.trainer))


def build_module(model: dict[str, Any], num_classes: int) -> TaskModule:
    """Build the module of the part `model` of a resolved configuration, without its data."""
    refuse_code(model)
    only = LightningArgumentParser(exit_on_error=False)
    only.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
    whole = files.merge(model, {"init_args": {"num_classes": num_classes}})
    # what it does not say is left to the defaults of the signatures: to write them out takes longer
    parsed = only.parse_object({"model": whole}, defaults=False)
    module: TaskModule = _instantiate(only, parsed).model
    return module


def build_data(data: dict[str, Any]) -> TaskData:
    """Build the data module of the part `data` of a resolved configuration; no file is opened."""
    refuse_code(data)
    only = LightningArgumentParser(exit_on_error=False)
    only.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True)
    built: TaskData = _instantiate(only, only.parse_object({"data": data})).data
    return built


def _instantiate(run: LightningArgumentParser, parsed: Any) -> Any:
    """Build the classes; what one of them says of its arguments is told without the wrapping."""
    try:
        return run.instantiate(parsed)
    except ValueError as error:  # jsonargparse's own, around ours
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, UserError):
            inner = inner.__cause__ or inner.__context__
        if inner is None:
            raise
        raise ConfigError(str(inner)) from error
