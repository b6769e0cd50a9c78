"""A cell: what is run once, and what makes two of them the same."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.board_key import board_key
from bench.config import files
from bench.config.schema import OfficialConfig, OperatorConfig, SearchSpace, Tuning
from bench.hashing import digest
from bench.local import located

START = ("pretrained", "weights", "weights_sha256")
"""Arguments of the backbone's builder that say what its weights start from, and nothing else."""

HOST_OPTIONS = "model.init_args.backbone.init_args.host_options"
"""Where the options of a host stand in a configuration."""


def input_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of the images of a resolved configuration.

    A network of one's own need not say them, its data do.

    Example:
        >>> model = {"init_args": {"backbone": {"class_path": "my.Net"}}}
        >>> input_size({"model": model, "data": {"init_args": {"image_size": 64}}})
        (64, 64)
    """
    data = config.get("data", {}).get("init_args", {})
    size = _backbone(config).get("input_size") or data.get("image_size") or 224
    h, w = (size, size) if isinstance(size, int) else size
    return h, w


def _backbone(config: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] | None = config["model"]["init_args"]["backbone"].get("init_args")
    return arguments or {}


def without_start(model: dict[str, Any]) -> dict[str, Any]:
    """Return the part `model` of a configuration for weights of a checkpoint: no others are read.

    Example:
        >>> arguments = {"host": "resnet18", "pretrained": True}
        >>> backbone = {"class_path": "bench.backbones.build", "init_args": arguments}
        >>> without_start({"init_args": {"backbone": backbone}})["init_args"]["backbone"]
        {'class_path': 'bench.backbones.build', 'init_args': {'host': 'resnet18'}}
    """
    fresh = copy.deepcopy(model)
    backbone = fresh["init_args"]["backbone"]
    if backbone.get("class_path") == "bench.backbones.build":
        for name in START:
            backbone["init_args"].pop(name, None)
    return fresh


class Cell(BaseModel):
    """One configuration with one seed: task, data, head, host, operator, selection and recipe.

    `config` is the resolved Lightning configuration, and the one place of operator, options,
    selection and seed. The rest is what a suite calls things, and what it asks of them.
    """

    model_config = ConfigDict(frozen=True)

    suite: str
    task: str
    host: str
    operator: str
    """Label of the operator on its board, e.g. 'parc'; with options of its own it may differ from
    the registered name."""
    recipe: str
    baseline: bool
    config: dict[str, Any]
    tune: dict[str, SearchSpace] = {}
    """The operator's own options that a study searches."""
    searched: dict[str, SearchSpace] = {}
    """Settings that a study searches on its board, by dotted name."""
    tuned: Tuning | None = None
    """The study that found some of its settings."""
    untuned: dict[str, Any] = {}
    """Dotted name in the configuration → the recipe's own value, of what the study found."""
    ranked: bool = True
    """False: it is trained on the way to something else, such as a supernet."""
    learnt: dict[str, float] = {}
    """Metric → what the baseline's mean over seeds must reach for its board to say anything."""
    optional: bool = False
    """Whether it is left out where its data are not there."""
    official: OfficialConfig | None = None
    """The checkpoint of the host's authors, of an arm that leaves the host as it is."""
    scored: bool = False
    """Whether nothing is trained: its weights are a public checkpoint's (`bench.run.score`)."""
    train_images: int | None = None
    """Images of the training split, where the suite says how many."""
    words: str = ""
    """The suite as the command line names it, with what was laid over it and lets its code run."""

    @property
    def hash(self) -> str:
        """Hash of the resolved configuration: what makes two cells the same."""
        return digest(self.config)[:12]

    @property
    def board(self) -> str:
        """Key of the board on which it stands: what it shares with the other arms."""
        return board_key(self.config, untuned=self.untuned)

    @property
    def title(self) -> str:
        """A name for people."""
        return f"{self.task} · {self.host} · {self.operator} · seed {self.seed}"

    @property
    def run_name(self) -> str:
        """Its name in lists that are cut off at the right: what differs comes first."""
        return f"{self.operator} · seed {self.seed} · {self.board_name}"

    @property
    def board_name(self) -> str:
        """Its board, for people."""
        return f"{self.task} · {self.host}"

    @property
    def seed(self) -> int:
        """Seed of data order, augmentation and initialisation."""
        seed: int = self.config["seed_everything"]
        return seed

    @property
    def backbone(self) -> dict[str, Any]:
        """Arguments of the backbone's builder; of a class without any there are none."""
        return _backbone(self.config)

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of the backbone's builder without what a study tuned of the training alone.

        Of the host's options that is drop path: it is none of the network that is timed and named.
        """
        arguments = copy.deepcopy(self.backbone)
        options = arguments.get("host_options") or {}
        for name, before in self.untuned.items():
            place, _, option = name.rpartition(".")
            if place == HOST_OPTIONS:
                options.pop(option, None)
                options |= {} if before is None else {option: before}
        arguments.pop("host_options", None)
        return arguments | ({"host_options": options} if options else {})

    @property
    def starts_trained(self) -> bool:
        """Whether the host starts from trained weights."""
        return bool(self.backbone.get("pretrained") or self.backbone.get("weights"))

    @property
    def operator_config(self) -> OperatorConfig:
        """The operator as a suite may give it, read from the configuration."""
        return OperatorConfig(
            label=self.operator,
            operator=self.backbone.get("operator"),
            options=self.backbone.get("options") or {},
            where=self.backbone.get("where"),
            mix=self.backbone.get("mix"),
            set=self._set(),
            tune=self.tune,
            tuned=self.tuned,
        )

    def _set(self) -> dict[str, Any]:
        """What the operator lays over its board's settings, as it is in the configuration."""
        above: dict[str, Any] = {}
        for name in self.untuned:
            files.put(above, name, copy.deepcopy(files.value_at(self.config, name)))
        return above

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images; a network of one's own need not say, its data do."""
        return input_size(self.config)

    @property
    def absent(self) -> Path | None:
        """Where the data of an optional cell should lie, if they do not; None otherwise."""
        root = self.config["data"]["init_args"].get("root")
        if not self.optional or root is None or located(root).is_dir():
            return None
        return located(root).absolute()

    @property
    def reproduce(self) -> str:
        """The one command that runs this cell again in an empty runs folder."""
        if self.scored:
            only = shlex.join(["--only", f"task={self.task}", "--only", f"host={self.host}"])
            return f"convboard score {self.words} {only}"
        if self.words:
            return f"convboard run {self.words} --only cell={self.hash}"
        return "convboard fit --config config.yaml"

    def tags(self) -> dict[str, str]:
        """Return the tags by which the run is found in the MLflow UI."""
        return {
            "suite": self.suite,
            "task": self.task,
            "host": self.host,
            "operator": self.operator,
            "recipe": self.recipe,
            "seed": str(self.seed),
        }
