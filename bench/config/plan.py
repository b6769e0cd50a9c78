"""From a suite's YAML to its cells: overlays laid over each other, resolved, and chosen from."""

from __future__ import annotations

import copy
import functools
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.config import files
from bench.config.cell import HOST_OPTIONS, Cell
from bench.config.code_flags import code_flags
from bench.config.network import backbone_of
from bench.config.schema import (
    BoardConfig,
    HostConfig,
    OperatorConfig,
    Suite,
    load_host,
    load_operator,
    load_suite,
)
from bench.errors import ConfigError, near
from bench.memo import remembered

VERSIONED = frozenset(
    {"bench", "lightning", "tasks", "timm", "torch", "torchmetrics", "torchvision"}
)
"""Packages whose classes are the same as long as `bench.memo.code` is: ours, and of releases."""
BACKBONE = HOST_OPTIONS.rpartition(".")[0]
ELSEWHERE = {
    "seed_everything": "--seeds",
    "data.init_args.seed": "--seeds",
    "model.init_args.seed": "--seeds",
    "host": "--hosts",
    "host_sha256": "--hosts",
    "operator": "--operators",
    "options": "the operator's own file, or --operators",
    "where": "--where",
    "mix": "--mix",
    "pretrained": "--pretrained",
    "weights": "--weights",
    "weights_sha256": "--weights",
    "input_size": "data.init_args.image_size",
}
"""What cannot be set by name: settings, and arguments of the network → where they come from."""
AXES = ("task", "host", "operator", "recipe", "seed", "cell")


@dataclass(frozen=True)
class Choice:
    """Which part of a suite is meant, and what is laid over it.

    Args:
        only: axis → values; see AXES.
        seeds: in place of the suite's own.
        seeds_max: how many seeds every board gets, by more after its own; None for its own.
        hosts: in place of every board's own.
        operators: in place of every board's own; the baseline stays.
        where: slots, in place of the boards' and the operators' own.
        pretrained: hosts start from timm's weights.
        weights: file that hosts start from.
        mix: of every operator, in place of its own.
        sets: `a.b=value`, laid over every cell's configuration.
    """

    only: dict[str, list[str]] | None = None
    seeds: list[int] | None = None
    seeds_max: int | None = None
    hosts: list[str] | None = None
    operators: list[str] | None = None
    where: dict[str, Any] | None = None
    mix: str | None = None
    pretrained: bool = False
    weights: str | None = None
    sets: tuple[str, ...] = ()

    def started(self, host: HostConfig) -> HostConfig:
        """Return a host with the weights that it starts from, where the command line says so."""
        if not (self.pretrained or self.weights):
            return host
        start = {"pretrained": self.weights is None, "weights": self.weights}
        return host.model_copy(update=start)

    def laid_over(
        self, operators: Sequence[str | OperatorConfig]
    ) -> Sequence[str | OperatorConfig]:
        """Return operators with the slots that the command line says; as they are without."""
        if not (self.where or self.mix):
            return operators
        return [load_operator(arm).laid_over(self.where, self.mix) for arm in operators]

    def seeds_of(self, board: BoardConfig, suite: Suite) -> list[int]:
        """Return the seeds of a board.

        Example:
            >>> suite = load_suite("quick")
            >>> suite.seeds, Choice(seeds=[7], seeds_max=3).seeds_of(suite.boards[0], suite)
            ([0, 1], [7, 0, 1])
        """
        first = self.seeds or board.seeds or suite.seeds
        if self.seeds_max is None:
            return first
        more = (seed for seed in range(self.seeds_max + len(first)) if seed not in first)
        return [*first, *more][: self.seeds_max]

    def words(self, suite: str) -> str:
        """Return the part of a command line that names the suite with what is laid over it."""
        given = [suite if not Path(suite).is_absolute() else Path(suite).name]
        if self.seeds:
            given += ["--seeds", ",".join(map(str, self.seeds))]
        if self.hosts:
            given += ["--hosts", ",".join(self.hosts)]
        if self.operators:
            given += ["--operators", ",".join(self.operators)]
        for key, value in (self.where or {}).items():
            given += ["--where", f"{key}={_said(value)}"]
        if self.mix:
            given += ["--mix", self.mix]
        if self.pretrained:
            given += ["--pretrained"]
        if self.weights:
            given += ["--weights", Path(self.weights).name]
        for dotted in self.sets:
            given += ["--set", dotted]
        return shlex.join(given)


def _said(value: Any) -> str:
    """Return a value of `where` as a command line has it."""
    if isinstance(value, list) and not any(isinstance(one, list) for one in value):
        return ",".join(map(str, value))
    return json.dumps(value)


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
        _require_settable(assignment)
        files.assign(config, assignment)
    size = config.get("data", {}).get("init_args", {}).get("image_size", 224)
    sides = (size, size) if isinstance(size, int) else size
    backbone = backbone_of(host, operator, where, sides)
    if above := files.value_at(config, HOST_OPTIONS):
        backbone["host_options"] = {**backbone.get("host_options", {}), **above}
    return _placed(_resolved(json.dumps(config, sort_keys=True)), backbone, seed)


def _require_settable(assignment: str) -> None:
    """Refuse what is set by the axes of a suite, which would go over it without a word."""
    name = assignment.partition("=")[0].strip()
    argument = name.removeprefix(f"{BACKBONE}.")
    by = ELSEWHERE.get(name) or (argument != name and ELSEWHERE.get(argument.split(".")[0]))
    if by or name == BACKBONE:
        raise ConfigError(
            f"`--set` (={assignment!r}) must be left out: this comes from {by or 'the suite'}."
        )


@functools.lru_cache(maxsize=256)
def _resolved(config: str) -> dict[str, Any]:
    """Resolve a configuration without its axes; many cells share one, and it takes long."""
    host = {"class_path": "bench.backbones.build", "init_args": {"host": "resnet18"}}
    axes = {"model": {"init_args": {"backbone": host}}}
    whole = files.merge(json.loads(config), axes)

    def resolve() -> dict[str, Any]:
        from bench.config import lightning

        return lightning.resolve(whole)

    if all(path.split(".")[0] in VERSIONED and "." in path for path in _class_paths(whole)):
        resolved: dict[str, Any] = remembered("config", whole, resolve)
        return resolved
    return resolve()


def _class_paths(value: Any) -> Iterator[str]:
    """Yield the classes that a configuration names."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield str(value["class_path"])
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _class_paths(inner)


def _placed(shared: dict[str, Any], backbone: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a resolved configuration with the axes of one cell in their places."""
    config = copy.deepcopy(shared)
    config["model"]["init_args"]["backbone"]["init_args"] |= backbone
    for part in (config["model"]["init_args"], config["data"]["init_args"]):
        part["seed"] = seed
    config["seed_everything"] = seed
    return config


def plan(name: str, choice: Choice | None = None) -> list[Cell]:
    """Return the cells of a suite, resolved and checked, in the order in which they run.

    On each board seeds are the outer loop, so that one that is cut off has whole comparisons.

    Raises:
        ConfigError: an unknown name, or an argument that a class does not take.
    """
    choice = choice or Choice()
    _require_known(name, choice)
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
    return home.model_copy(update={"set": above, "operators": choice.laid_over(home.operators)})


def one(cells: Sequence[Cell]) -> Cell:
    """Return the first of cells that differ by their seeds alone.

    Raises:
        ConfigError: they differ by more.
    """
    first = cells[0]
    names = sorted(each_arm(cells))
    if len(names) > 1:
        raise ConfigError(
            f"this takes one cell, and {len(names)} are chosen: {'; '.join(names)}; narrow it, "
            f"e.g. --only operator={first.operator} --only task={first.task}, or by "
            f"--only cell={first.hash}."
        )
    return first


def each_arm(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the arms that are chosen: a title → the cells of the arm, one for each seed.

    Two boards of one task and host are two arms, whose titles say the recipe, or where that is the
    same too the beginning of the board's key.

    Example:
        >>> arms = each_arm(plan("quick", Choice(only={"operator": ["parc"]})))
        >>> list(arms)[:2]
        ['scenes-classification · test_convnext · parc', 'scenes-detection · test_convnext · parc']
        >>> [cell.seed for cell in list(arms.values())[0]]
        [0, 1]
    """
    alike: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        boards = alike.setdefault(f"{cell.board_name} · {cell.operator}", {})
        boards.setdefault(cell.board, []).append(cell)
    arms = {}
    for name, boards in alike.items():
        recipes = {of[0].recipe for of in boards.values()}
        for board, of in boards.items():
            apart = of[0].recipe if len(recipes) == len(boards) else board[:6]
            arms[name if len(boards) == 1 else f"{name} · {apart}"] = of
    return arms


def _planned(name: str, choice: Choice) -> Iterator[tuple[BoardConfig, Cell]]:
    suite = load_suite(name)
    flags = _code_flags(suite, choice)
    for board in suite.boards:
        by_label = {load_operator(operator).label: operator for operator in board.operators}
        if board.baseline not in by_label:
            raise ConfigError(
                f"`baseline` (={board.baseline!r}) of board {board.task} must be one of its "
                f"operators; {near(board.baseline, by_label)}"
            )
        operators = list(board.operators)
        if choice.operators is not None:
            operators = [by_label[board.baseline], *choice.operators]
        hosts = [choice.started(load_host(host)) for host in choice.hosts or board.hosts]
        loaded = [load_operator(o).laid_over(choice.where, choice.mix) for o in operators]
        loaded = [arm for n, arm in enumerate(loaded) if arm not in loaded[:n]]
        _require_unlike(board.task, [arm.label for arm in loaded])
        shared = base(board)
        seeds = choice.seeds_of(board, suite)
        named = choice if choice.seeds_max is None else replace(choice, seeds=seeds)
        words = named.words(name) + flags
        for seed in seeds:
            for host in hosts:
                for operator in loaded:
                    try:
                        config = compose(shared, board.where, host, operator, seed, choice.sets)
                        untuned = _untuned(shared, host, operator, choice.sets)
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
                        searched=board.tune,
                        tuned=operator.tuned,
                        untuned=untuned,
                        learnt=board.learnt,
                        optional=board.optional,
                        official=host.official if operator.operator is None else None,
                        train_images=board.train_images,
                        words=words,
                    )
                    yield board, cell


def _code_flags(suite: Suite, choice: Choice) -> str:
    """Return what the command line must say so that the code that the suite uses may run."""
    hosts = [host for board in suite.boards for host in choice.hosts or board.hosts]
    laid: dict[str, Any] = {}
    for dotted in choice.sets:
        files.assign(laid, dotted)
    configs = [base(board) for board in suite.boards]
    return code_flags(
        [*configs, laid, *({"host": load_host(host).host} for host in hosts)], choice.hosts or ()
    )


def _untuned(
    shared: dict[str, Any], host: HostConfig, operator: OperatorConfig, sets: Sequence[str]
) -> dict[str, Any]:
    """Return what stands without the operator's own settings, by dotted name."""
    if not operator.set:
        return {}
    plain = compose(shared, None, host, operator.model_copy(update={"set": {}}), 0, sets)
    return {name: files.value_at(plain, name) for name in files.dotted(operator.set)}


def _require_unlike(task: str, labels: Sequence[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"`operators` (={', '.join(labels)}) of board {task} must have unlike labels: two "
                f"arms are called {label!r}; give one of them a `label` of its own."
            )


def _require_known(name: str, choice: Choice) -> None:
    """Refuse what `only` names and no cell can have, before anything takes time."""
    suite = load_suite(name)
    hosts = [host for board in suite.boards for host in choice.hosts or board.hosts]
    arms = [arm for b in suite.boards for arm in (*b.operators, *(choice.operators or []))]
    seeds = [s for board in suite.boards for s in choice.seeds_of(board, suite)]
    values = {
        "task": {board.task for board in suite.boards},
        "host": {load_host(host).label for host in hosts},
        "operator": {load_operator(arm).label for arm in arms},
        "recipe": {board.recipe for board in suite.boards},
        "seed": {str(seed) for seed in seeds},
    }
    for axis, wanted in (choice.only or {}).items():
        if axis not in AXES:
            raise ConfigError(f"`--only` (={axis}): no such axis; {near(axis, AXES)}")
        for value in wanted:
            if axis in values and value not in values[axis]:
                raise ConfigError(
                    f"`--only {axis}` (={value!r}): no such cell; {near(value, values[axis])}"
                )


def _chosen(cells: list[Cell], only: dict[str, list[str]]) -> list[Cell]:
    for axis, wanted in only.items():
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
