"""From a suite's YAML to its cells: overlays laid over each other, resolved, and chosen from."""

from __future__ import annotations

import copy
import functools
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.board_key import board_key
from bench.config import files
from bench.config.schema import (
    BoardConfig,
    HostConfig,
    OperatorConfig,
    SearchSpace,
    Tuning,
    load_host,
    load_operator,
    load_suite,
)
from bench.errors import ConfigError, near
from bench.hashing import digest

AXES = ("task", "host", "operator", "recipe", "seed", "cell")


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
    words: str = ""
    """The suite as the command line names it, with what was laid over it."""

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
    def seed(self) -> int:
        """Seed of data order, augmentation and initialisation."""
        seed: int = self.config["seed_everything"]
        return seed

    @property
    def backbone(self) -> dict[str, Any]:
        """Arguments of the backbone's builder."""
        arguments: dict[str, Any] = self.config["model"]["init_args"]["backbone"]["init_args"]
        return arguments

    @property
    def operator_config(self) -> OperatorConfig:
        """The operator as a suite may give it, read from the configuration."""
        return OperatorConfig(
            label=self.operator,
            operator=self.backbone.get("operator"),
            options=self.backbone.get("options") or {},
            where=self.backbone.get("where"),
            mix=self.backbone.get("mix"),
            tune=self.tune,
            tuned=self.tuned,
        )

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        h, w = self.backbone["input_size"]
        return h, w

    @property
    def absent(self) -> Path | None:
        """Where the data of an optional cell should lie, if they do not; None otherwise."""
        from tasks.data.locations import located

        root = self.config["data"]["init_args"].get("root")
        if not self.optional or root is None or located(root).is_dir():
            return None
        return located(root).absolute()

    @property
    def reproduce(self) -> str:
        """The one command that runs this cell again in an empty runs folder."""
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


@dataclass(frozen=True)
class Choice:
    """Which part of a suite is meant, and what is laid over it.

    Args:
        only: axis → values; see AXES.
        seeds: in place of the suite's own.
        hosts: in place of every board's own.
        operators: in place of every board's own; the baseline stays.
        sets: `a.b=value`, laid over every cell's configuration.
    """

    only: dict[str, list[str]] | None = None
    seeds: list[int] | None = None
    hosts: list[str] | None = None
    operators: list[str] | None = None
    sets: tuple[str, ...] = ()

    def words(self, suite: str) -> str:
        """Return the part of a command line that names the suite with what is laid over it."""
        given = [suite if not Path(suite).is_absolute() else Path(suite).name]
        if self.seeds:
            given += ["--seeds", ",".join(map(str, self.seeds))]
        if self.hosts:
            given += ["--hosts", ",".join(self.hosts)]
        if self.operators:
            given += ["--operators", ",".join(self.operators)]
        for dotted in self.sets:
            given += ["--set", dotted]
        return shlex.join(given)


def base(board: BoardConfig) -> dict[str, Any]:
    """Lay the overlays that all cells of a board share over each other: task, recipe, board."""
    config: dict[str, Any] = {}
    for layer in (
        files.read(files.find("tasks", board.task)),
        files.read(files.find("recipes", board.recipe)),
        board.set,
    ):
        config = files.merge(config, layer)
    config.pop("description", None)
    return config


def compose(
    shared: dict[str, Any],
    where: dict[str, Any] | None,
    host: HostConfig,
    operator: OperatorConfig,
    seed: int,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """Lay a cell's own overlays over its board's, and resolve them.

    Args:
        shared: the board's, as `base` gives it.
        where: the board's selection of slots, for operators that have none of their own.
        host: network.
        operator: what stands in the slots; its `set` is laid over the board's overlays.
        seed: of the cell.
        sets: `a.b=value` of the command line, laid over all.

    Raises:
        ConfigError: an unknown name, or an argument that a class does not take.
    """
    config = files.merge(shared, operator.set)
    for assignment in sets:
        files.assign(config, assignment)
    size = config.get("data", {}).get("init_args", {}).get("image_size", 224)
    whole_host = operator.operator is None
    backbone = {
        "host": host.host,
        "host_options": host.host_options or None,
        "pretrained": host.pretrained,
        "operator": operator.operator,
        "options": _options(operator),
        "where": operator.where if operator.where is not None or whole_host else where,
        "mix": operator.mix,
        "input_size": [size, size] if isinstance(size, int) else list(size),
    }
    return _placed(_resolved(json.dumps(config, sort_keys=True)), backbone, seed)


@functools.lru_cache(maxsize=256)
def _resolved(config: str) -> dict[str, Any]:
    """Resolve a configuration without its axes; many cells share one, and it takes long."""
    from bench.config import lightning

    host = {"class_path": "bench.backbones.build", "init_args": {"host": "resnet18"}}
    axes = {"model": {"init_args": {"backbone": host}}}
    return lightning.resolve(files.merge(json.loads(config), axes))


def _placed(shared: dict[str, Any], backbone: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a resolved configuration with the axes of one cell in their places."""
    config = copy.deepcopy(shared)
    config["model"]["init_args"]["backbone"]["init_args"] |= backbone
    for part in (config["model"]["init_args"], config["data"]["init_args"]):
        part["seed"] = seed
    config["seed_everything"] = seed
    return config


def _options(operator: OperatorConfig) -> dict[str, Any] | None:
    if operator.operator is None:
        return operator.options or None
    from bench import operators

    return operators.get(operator.operator).with_files(operator.options) or None


def plan(name: str, choice: Choice | None = None) -> list[Cell]:
    """Return the cells of a suite, resolved and checked, in the order in which they run.

    On each board seeds are the outer loop, so that one that is cut off has whole comparisons.

    Raises:
        ConfigError: an unknown name, or an argument that a class does not take.
    """
    choice = choice or Choice()
    cells: dict[str, Cell] = {}
    for _, cell in _planned(name, choice):
        cells.setdefault(cell.hash, cell)
    return _chosen(list(cells.values()), choice.only or {})


def board_of(name: str, choice: Choice, cell: Cell) -> BoardConfig:
    """Return the board on which a cell of the suite stands, with the choice's values laid over.

    Example:
        >>> cell = plan("quick")[0]
        >>> board_of("quick", Choice(), cell).baseline
        'dwconv'
    """
    home = next(board for board, other in _planned(name, choice) if other.hash == cell.hash)
    above = copy.deepcopy(home.set)
    for dotted in choice.sets:
        files.assign(above, dotted)
    return home.model_copy(update={"set": above})


def one(cells: Sequence[Cell]) -> Cell:
    """Return the first of cells that differ by their seeds alone.

    Raises:
        ConfigError: they differ by more.
    """
    first = cells[0]
    names = sorted({f"{cell.task} · {cell.host} · {cell.operator}" for cell in cells})
    if len(names) > 1:
        raise ConfigError(
            f"this takes one cell, and {len(names)} are chosen; narrow it, e.g. "
            f"--only operator={first.operator} --only task={first.task}."
        )
    return first


def _planned(name: str, choice: Choice) -> Iterator[tuple[BoardConfig, Cell]]:
    suite = load_suite(name)
    for board in suite.boards:
        by_label = {load_operator(operator).label: operator for operator in board.operators}
        if board.baseline not in by_label:
            raise ConfigError(
                f"`baseline` (={board.baseline!r}) of board {board.task} must be one of its "
                f"operators; {near(board.baseline, by_label)}"
            )
        operators: list[str | OperatorConfig] = list(board.operators)
        if choice.operators is not None:
            operators = list(dict.fromkeys([by_label[board.baseline], *choice.operators]))
        words = choice.words(name)
        hosts = [load_host(host) for host in choice.hosts or board.hosts]
        loaded = [load_operator(operator) for operator in operators]
        shared = base(board)
        for seed in choice.seeds or board.seeds or suite.seeds:
            for host in hosts:
                for operator in loaded:
                    try:
                        config = compose(shared, board.where, host, operator, seed, choice.sets)
                        untuned = _untuned(shared, operator, choice.sets)
                    except ConfigError as error:
                        where = f"{board.task} · {host.label} · {operator.label}"
                        raise ConfigError(f"{where}: {error}") from None
                    cell = Cell(
                        suite=suite.name,
                        task=board.task,
                        host=host.label,
                        operator=operator.label,
                        recipe=board.recipe,
                        baseline=operator.label == board.baseline,
                        config=config,
                        tune=operator.tune,
                        tuned=operator.tuned,
                        untuned=untuned,
                        learnt=board.learnt,
                        optional=board.optional,
                        words=words,
                    )
                    yield board, cell


def _untuned(
    shared: dict[str, Any], operator: OperatorConfig, sets: Sequence[str]
) -> dict[str, Any]:
    """Return what stands without the operator's own settings, by dotted name."""
    if not operator.set:
        return {}
    plain = copy.deepcopy(shared)
    for assignment in sets:
        files.assign(plain, assignment)
    resolved = _resolved(json.dumps(plain, sort_keys=True))
    return {name: files.value_at(resolved, name) for name in files.dotted(operator.set)}


def _chosen(cells: list[Cell], only: dict[str, list[str]]) -> list[Cell]:
    for axis, wanted in only.items():
        if axis not in AXES:
            raise ConfigError(f"`--only` (={axis}): no such axis; {near(axis, AXES)}")
        values = {_axis(cell, axis) for cell in cells}
        for value in wanted:
            if value not in values:
                raise ConfigError(
                    f"`--only {axis}` (={value!r}): no such cell; {near(value, values)}"
                )
        cells = [cell for cell in cells if _axis(cell, axis) in wanted]
    if not cells:
        raise ConfigError("no cell is left: the choices given with --only exclude each other.")
    return cells


def _axis(cell: Cell, axis: str) -> str:
    return cell.hash if axis == "cell" else str(getattr(cell, axis))
