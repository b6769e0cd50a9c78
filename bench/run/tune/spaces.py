"""What a study searches of an arm: settings of the recipe, and the operator's own options.

A space is known by the dotted name that it has in a configuration, and in Optuna by the last part
of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Container, Mapping
from typing import Any

import optuna
from timm.layers import DropPath

from bench import operators
from bench.backbones import build
from bench.backbones.change import SPEC_OPTIONS
from bench.config import files, lightning
from bench.config.cell import HOST_OPTIONS, START, Cell
from bench.config.schema import SearchSpace, load_operator
from bench.config.trust import refuse_code
from bench.errors import ConfigError, UserError, near

WIDTH = 10.0
"""The learning rate is searched from the recipe's over this to the recipe's times this."""
DECAY = (1e-4, 0.3)
MOST_DROPPED = 0.3
LR = "model.init_args.lr"
WEIGHT_DECAY = "model.init_args.weight_decay"
DROP_PATH = f"{HOST_OPTIONS}.drop_path_rate"
OPTIONS = "model.init_args.backbone.init_args.options"


def space(cell: Cell) -> dict[str, SearchSpace]:
    """Return what is searched: dotted name in the configuration → its space.

    That is the learning rate (log-uniform, from a tenth to ten times the recipe's), the weight
    decay (log-uniform, 1e-4 … 0.3), drop path (0 … 0.3, where the host has any), what the board's
    `tune` says, and the operator's own options: see `own_options`.
    """
    arguments = cell.config["model"]["init_args"]
    lr, decay = float(arguments["lr"]), float(arguments["weight_decay"])
    spaces = {LR: SearchSpace(low=lr / WIDTH, high=lr * WIDTH, log=True)}
    if decay > 0:
        ends = (min(decay, DECAY[0]), max(decay, DECAY[1]))
        spaces[WEIGHT_DECAY] = SearchSpace(low=ends[0], high=ends[1], log=True)
    else:
        spaces[WEIGHT_DECAY] = SearchSpace(low=0.0, high=DECAY[1])
    if _drops_paths(cell):
        high = max(MOST_DROPPED, float(default(cell, DROP_PATH)))
        spaces[DROP_PATH] = SearchSpace(low=0.0, high=high)
    spaces |= cell.searched
    return spaces | {f"{OPTIONS}.{option}": of for option, of in own_options(cell).items()}


def own_options(cell: Cell) -> Mapping[str, SearchSpace]:
    """Return the spaces of an operator's options: the arm's `tune`, or that of configs/operators.

    From there only of options that the arm does not set itself.
    """
    operator = cell.backbone.get("operator")
    if cell.tune or operator is None:
        return cell.tune
    given = cell.operator_config.options
    return {
        option: of for option, of in load_operator(operator).tune.items() if option not in given
    }


def _drops_paths(cell: Cell) -> bool:
    given = {k: v for k, v in cell.backbone.items() if k in ("host", "host_options", "host_sha256")}
    return _has_drop_path(json.dumps([given, cell.backbone["input_size"]]))


@functools.lru_cache(maxsize=64)
def _has_drop_path(host: str) -> bool:
    """Whether a host takes a rate of drop path, and has layers that do it."""
    given, size = json.loads(host)
    refuse_code(given)
    given["host_options"] = {**(given.get("host_options") or {}), "drop_path_rate": 0.1}
    try:
        model = build(**given, input_size=size)
    except UserError:
        return False
    return any(isinstance(module, DropPath) for module in model.modules())


def default(cell: Cell, name: str) -> Any:
    """Return the value that an arm has without a study; None where that is left to the code."""
    value = files.value_at(cell.config, name)
    operator = cell.backbone.get("operator")
    place, _, option = name.rpartition(".")
    if value is None and name == DROP_PATH:
        return 0.0
    if value is None and place == OPTIONS and operator is not None:
        parameter = operators.options(operator).get(option)
        return None if parameter is None else parameter.default
    return value


def short_names(spaces: Mapping[str, SearchSpace]) -> dict[str, str]:
    """Return dotted name → the name in Optuna: the last part, where no other has the same.

    Example:
        >>> of = SearchSpace(values=[1, 2])
        >>> short_names({"model.lr": of, "options.lr": of, "options.paths": of})
        {'model.lr': 'model.lr', 'options.lr': 'options.lr', 'options.paths': 'paths'}
    """
    lasts = [name.rpartition(".")[2] for name in spaces]
    return {
        name: last if lasts.count(last) == 1 else name
        for name, last in zip(spaces, lasts, strict=True)
    }


def default_params(cell: Cell, spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Return the parameters of the trial of the default, of those whose space holds it."""
    shorts = short_names(spaces)
    params: dict[str, Any] = {}
    for name, of in spaces.items():
        value = default(cell, name)
        if of.values is not None:
            if value in of.values:
                params[shorts[name]] = of.values.index(value)
        elif isinstance(value, int | float) and _low(of) <= value <= _high(of):
            params[shorts[name]] = value
    return params


def suggest(
    trial: optuna.Trial | optuna.trial.FixedTrial,
    spaces: Mapping[str, SearchSpace],
    only: Container[str] | None = None,
) -> dict[str, Any]:
    """Draw one value of every space; return them as a configuration to lay over.

    Args:
        trial: of a study.
        spaces: what is searched.
        only: short names of the spaces that are drawn from; None for all.
    """
    config: dict[str, Any] = {}
    for name, short in short_names(spaces).items():
        of = spaces[name]
        if only is not None and short not in only:
            continue
        if of.values is not None:
            index = trial.suggest_categorical(short, list(range(len(of.values))))
            files.put(config, name, of.values[int(index)])
            continue
        if isinstance(of.low, int) and isinstance(of.high, int):
            drawn: int | float = trial.suggest_int(short, of.low, of.high, log=of.log)
        else:
            drawn = trial.suggest_float(short, _low(of), _high(of), log=of.log)
        files.put(config, name, drawn)
    return config


def values_of(spaces: Mapping[str, SearchSpace], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted name → value of a trial's parameters, in which a choice is an index."""
    values = {}
    for name, short in short_names(spaces).items():
        if short in params:
            choices = spaces[name].values
            values[name] = params[short] if choices is None else choices[params[short]]
    return values


def check(cell: Cell, spaces: Mapping[str, SearchSpace]) -> None:
    """Refuse, before anything is trained, a space with a value that could not be run.

    Every listed value and both ends of every range are tried: an option of the operator or the
    host by building the network, a setting of the recipe by resolving the configuration.

    Raises:
        ConfigError: it names arm, space, value and rule.
    """
    arm = f"{cell.task} · {cell.host} · {cell.operator}"
    refuse_code(cell.backbone)
    for option in own_options(cell):
        _require_option(arm, cell.backbone.get("operator"), option)
    for name, of in spaces.items():
        if name in (LR, WEIGHT_DECAY, DROP_PATH) and name not in cell.searched:
            continue  # ours, and right by construction
        for value in of.values if of.values is not None else (of.low, of.high):
            above: dict[str, Any] = {}
            files.put(above, name, value)
            config = files.merge(cell.config, above)
            backbone = config["model"]["init_args"]["backbone"]["init_args"]
            try:
                if backbone == cell.backbone:
                    lightning.resolve(config)
                else:
                    build(**{k: v for k, v in backbone.items() if k not in START})
            except (UserError, TypeError) as error:
                raise ConfigError(f"{arm}: `tune` of {name} (={value!r}): {error}") from error


def _require_option(arm: str, operator: str | None, option: str) -> None:
    known = [*operators.options(operator), *SPEC_OPTIONS] if operator is not None else []
    if option not in known:
        hint = near(option, known) if known else "a host as it is has no options."
        raise ConfigError(f"{arm}: `tune` (={option!r}) is no option of {operator}; {hint}")


def _low(of: SearchSpace) -> float:
    return float(of.low or 0)


def _high(of: SearchSpace) -> float:
    return float(of.high or 0)
