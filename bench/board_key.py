"""What a board is: the settings that all of its arms share.

An arm is an operator with its options in a selection of slots; everything else of a run's resolved
configuration, and the identity of its data, is what arms must share to be compared. The key is
made here for all: boards, the means that a run prints, what a baseline must learn, speed races.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.hashing import digest

ARM = ("operator", "options", "where", "mix")
"""Arguments of the backbone's builder that say which arm it is."""
IRRELEVANT = (
    "seed_everything",
    "model.init_args.seed",
    "data.init_args.seed",
    "data.init_args.num_workers",
    "data.init_args.memory_mb",
    "data.init_args.download",
    "trainer.default_root_dir",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
)
"""The seed, by which replicates differ, and what decides nothing but how a run goes about it."""
LOCATION = "data.init_args.root"
"""Where a set lies: it says which set it is only as long as the set's identity is not known."""
_BACKBONE = "model.init_args.backbone.init_args"
_LEFT_OUT = frozenset((*IRRELEVANT, *(f"{_BACKBONE}.{part}" for part in ARM)))


def shared(config: Mapping[str, Any], untuned: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the arms of a board share of a resolved configuration: dotted name → value.

    What is not set (None) is left out, as in a configuration that does not mention it.

    Args:
        config: of one cell.
        untuned: dotted name → the value before a study tuned it: a tuned arm stands on the board
            of the recipe that it was tuned from.

    Example:
        >>> backbone = {"init_args": {"host": "resnet18", "operator": "acb"}}
        >>> config = {
        ...     "seed_everything": 1,
        ...     "model": {"init_args": {"lr": 0.2, "seed": 1, "backbone": backbone}},
        ... }
        >>> shared(config, {"model.init_args.lr": 0.1})
        {'model.init_args.lr': 0.1, 'model.init_args.backbone.init_args.host': 'resnet18'}
    """
    flat: dict[str, Any] = {}
    _flatten(config, "", flat)
    flat |= {name: value for name, value in (untuned or {}).items() if not _is_left_out(name)}
    return {name: value for name, value in flat.items() if value is not None}


def board_key(
    config: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
    untuned: Mapping[str, Any] | None = None,
) -> str:
    """Return the key of the board on which a cell stands.

    Args:
        config: the cell's resolved configuration.
        data: the fields of `bench.record.Data`, where they are known: two sets under one name are
            two boards.
        untuned: see `shared`.
    """
    settings = shared(config, untuned)
    if data is None:
        return digest([settings, None])
    settings.pop(LOCATION, None)
    return digest([settings, identity(data)])


def identity(data: Mapping[str, Any]) -> list[Any]:
    """Return what a set of data is known by; a seed in its options is what replicates differ by."""
    options = {k: v for k, v in data["options"].items() if k != "seed"}
    return [data[k] for k in ("name", "revision", "files_sha256", "split")] + [options]


def differences(boards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each of several boards, as `shared` gives them, the settings that tell them apart.

    A setting that a board does not have is not among its own.

    Example:
        >>> differences([{"lr": 1, "epochs": 5}, {"lr": 1, "epochs": 1}])
        [{'epochs': 5}, {'epochs': 1}]
    """
    if len(boards) < 2:
        return [{} for _ in boards]
    first, *others = boards
    names = sorted({name for board in boards for name in board})
    apart = [n for n in names if any(not _same(first.get(n), b.get(n)) for b in others)]
    return [{name: board[name] for name in apart if name in board} for board in boards]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _flatten(value: Mapping[str, Any], prefix: str, into: dict[str, Any]) -> None:
    """Put the leaves of nested mappings into `into`, by their dotted names, but what is left out.

    It is asked at every part and not of every leaf: a board of thousands of records is keyed so.
    """
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if name in _LEFT_OUT:
            continue
        if isinstance(inner, dict) and inner:
            _flatten(inner, f"{name}.", into)
        else:
            into[name] = inner


def _is_left_out(dotted: str) -> bool:
    """Whether a setting, or a part of the configuration in which it lies, is left out."""
    parts = dotted.split(".")
    return any(".".join(parts[:depth]) in _LEFT_OUT for depth in range(1, len(parts) + 1))
