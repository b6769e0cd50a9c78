"""What a study searches: the spaces of a cell, and where in its configuration values belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.config.cell import Cell
from bench.config.schema import SearchSpace

WIDTH = 10.0
WEIGHT_DECAY = SearchSpace(low=1e-4, high=0.3, log=True)


def space(cell: Cell) -> dict[str, SearchSpace]:
    """Return what is searched: dotted name in the configuration → its space."""
    arguments = cell.config["model"]["init_args"]
    lr = float(arguments["lr"])
    spaces = {
        "model.init_args.lr": SearchSpace(low=lr / WIDTH, high=lr * WIDTH, log=True),
        "model.init_args.weight_decay": WEIGHT_DECAY,
    }
    for option, of in cell.tune.items():
        spaces[f"model.init_args.backbone.init_args.options.{option}"] = of
    return spaces


def drawn(spaces: Mapping[str, SearchSpace], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted name → value of a trial's parameters, in which a choice is an index."""
    values = {}
    for name, of in spaces.items():
        if name.rpartition(".")[2] not in params:
            continue  # cut off before it was drawn
        value = params[name.rpartition(".")[2]]
        values[name] = value if of.values is None else of.values[value]
    return values


def put(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value in its place in a configuration."""
    *path, last = dotted.split(".")
    for key in path:
        config = config.setdefault(key, {})
    config[last] = value


def dump(spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Return spaces as JSON has them."""
    return {name: of.model_dump() for name, of in spaces.items()}
