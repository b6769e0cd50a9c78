"""The speed runs of a suite: which of its operators race together.

By one rule for all tasks. Operators alone are timed once per shape, and networks, image to feature
pyramid, once per host and input size, whatever the tasks, on noise and fresh weights. End to end,
image to labels, boxes, masks or poses (head, NMS, grouping and resizing included; decoding and
loading are not), is timed per board, on images of the scored split with the weights that were
trained: what a head has to sort out hangs on both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import board_key
from bench.config import files
from bench.config.cell import START, Cell, without_start
from bench.config.speed import SpeedConfig
from bench.hashing import digest
from bench.record import Data
from bench.run.describe import entry_of, recipe_of
from bench.run.race import Contender, Race, Timed, form_of
from bench.run.untrained import layers_race, networks_race
from bench.speed.protocol import Scope
from bench.store import CHECKPOINT, Kept, Store

ON_NOISE: tuple[Scope, ...] = ("backbone", "training")
"""What is done with networks that need no training."""


def network(cell: Cell) -> dict[str, Any]:
    """Arguments that build what is timed: image to feature pyramid, whatever the task."""
    fresh = {k: v for k, v in cell.network.items() if k not in START}
    return {**fresh, "features_only": True, "pretrained": False}


def races(
    cells: Sequence[Cell],
    plan: SpeedConfig,
    kept: Mapping[str, Kept],
    *,
    shapes: Sequence[str] = (),
    flags: str = "",
) -> list[Race]:
    """Return the races of a suite's cells: of operators, of networks, then end to end.

    Only what could stand on one board races together. End to end an arm takes part with its first
    seed that is trained; a board whose baseline is not trained yet has no race. A supernet is
    trained on the way to a network, and is none itself: it never races.

    Args:
        cells: of the suite.
        plan: how they are timed.
        kept: runs of the store, by cell.
        shapes: where operators are timed alone; none: `bench.speed.SHAPES`.
        flags: of the command line, that were laid over the suite's plan.
    """
    cells = [cell for cell in cells if _is_network(cell)]
    words = f"{cells[0].words} {flags}".strip() if cells else ""
    planned: list[Race] = []
    if "operator" in plan.scopes:
        planned += _of_operators(cells, plan, shapes, words)
    for scope in ON_NOISE:
        if scope in plan.scopes:
            hosts = _grouped(cells, _host, _arm)
            planned += [_of_networks(arms, scope, plan, words) for arms in hosts]
    if "end_to_end" in plan.scopes:
        run_of = {cell.hash: kept[cell.hash].run_id for cell in cells if _done(cell, kept)}
        trained = [cell for cell in cells if cell.hash in run_of]
        planned += [
            _end_to_end(arms, run_of, plan, words)
            for arms in _grouped(trained, _board, _trained_arm)
        ]
    return planned


def _of_operators(
    cells: Sequence[Cell], plan: SpeedConfig, shapes: Sequence[str], words: str
) -> list[Race]:
    from bench.speed import SHAPES

    alone = [cell for cell in cells if cell.backbone.get("operator") is not None]
    return [
        layers_race(
            [cell.operator_config for cell in arms],
            shape,
            plan,
            baseline=next(cell.operator for cell in arms if cell.baseline),
            words=words,
            suite=arms[0].suite,
        )
        for arms in _grouped(alone, lambda cell: "", _operator)
        for shape in shapes or map(str, SHAPES)
    ]


def _of_networks(arms: Sequence[Cell], scope: Scope, plan: SpeedConfig, words: str) -> Race:
    form = form_of(scope, plan)
    networks = [
        (entry_of(cell).model_copy(update={"form": form, "task": "backbone"}), network(cell))
        for cell in arms
    ]
    first = arms[0]
    return networks_race(networks, scope, plan, host=first.host, words=words, suite=first.suite)


def _end_to_end(
    arms: Sequence[Cell], run_of: Mapping[str, str], plan: SpeedConfig, words: str
) -> Race:
    first, form = arms[0], form_of("end_to_end", plan)
    height, width = first.input_size
    return Race(
        title=f"speed · end to end · {first.task} · {first.host} · {height}×{width}",
        words=words,
        scope="end_to_end",
        plan=plan,
        contenders=tuple(
            Contender(
                entry_of(cell).model_copy(update={"form": form}),
                [cell.hash, run_of[cell.hash]],
                recipe_of(cell, None),
            )
            for cell in arms
        ),
        input_size=first.input_size,
        load=functools.partial(_trained, arms, run_of, max(plan.scopes["end_to_end"])),
        suite=first.suite,
    )


def _trained(
    cells: Sequence[Cell], run_of: Mapping[str, str], images: int, store: Store, folder: Path
) -> Timed:
    from bench.config import lightning
    from bench.run import fit
    from bench.speed import Arm

    config = next(cell.config for cell in cells if cell.baseline)
    built = lightning.build({**config, "model": without_start(config["model"])})
    data = built.data
    scored = data.scored_images(images, cells[0].input_size)
    arms = []
    for cell in cells:
        into = folder / "weights" / cell.hash
        into.mkdir(parents=True, exist_ok=True)
        with store.artifact(run_of[cell.hash], CHECKPOINT, into) as checkpoint:
            weights = checkpoint
        model = cell.config["model"]
        factory = functools.partial(fit.inference_module, model, data.num_classes, weights)
        arms.append(Arm(cell.operator, factory))
    described = Data.model_validate(data.describe())
    return Timed(arms, scored.numpy(), described, imports=built.module.built_with)


def waiting(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> list[Cell]:
    """Return one cell of each arm that has no trained weights, and cannot race end to end."""
    first: dict[tuple[str, str], Cell] = {}
    trained = set()
    for cell in filter(_is_network, cells):
        arm = _board(cell), _trained_arm(cell)
        first.setdefault(arm, cell)
        if _done(cell, kept):
            trained.add(arm)
    return [cell for arm, cell in first.items() if arm not in trained]


def _done(cell: Cell, kept: Mapping[str, Kept]) -> bool:
    return cell.hash in kept and kept[cell.hash].done


def _is_network(cell: Cell) -> bool:
    return cell.ranked and cell.backbone.get("operator") != "edo"


def _operator(cell: Cell) -> str:
    """Key of an operator alone: slots and host are no part of it."""
    return digest([cell.backbone.get(name) for name in ("operator", "options")])


def _arm(cell: Cell) -> str:
    """Key of what differs between the networks of a race."""
    return digest([cell.backbone.get(name) for name in board_key.ARM])


def _trained_arm(cell: Cell) -> str:
    """Key of what differs between the arms of a board: weights that were tuned are others."""
    tuned = {name: files.value_at(cell.config, name) for name in cell.untuned}
    return digest([_arm(cell), tuned])


def _host(cell: Cell) -> str:
    """Key of what backbones share; tasks and seeds are no part of it."""
    return digest({k: v for k, v in network(cell).items() if k not in board_key.ARM})


def _board(cell: Cell) -> str:
    """Key of what arms share end to end; the seed is no part of it."""
    return cell.board


def _grouped(
    cells: Sequence[Cell], race: Callable[[Cell], str], arm: Callable[[Cell], str]
) -> list[tuple[Cell, ...]]:
    """Return the arms that race together, each as one cell, under labels that tell them apart.

    Of the cells of an arm the first stands for it, or the first that is a baseline.

    Args:
        cells: of a suite.
        race: key of what the arms of a race share.
        arm: key of what they differ by.
    """
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        arms = groups.setdefault(race(cell), {})
        known = arms.get(arm(cell))
        if known is None or (cell.baseline and not known.baseline):
            arms[arm(cell)] = cell
    return [
        _relabelled(list(arms.values()))
        for arms in groups.values()
        if any(cell.baseline for cell in arms.values())
    ]


def _relabelled(arms: list[Cell]) -> tuple[Cell, ...]:
    """Tell arms of one label apart: by the task, else by a number."""
    labels: list[str] = []
    for cell in arms:
        names = [cell.operator, f"{cell.operator} ({cell.task})"]
        names += [f"{cell.operator} ({number})" for number in range(2, len(arms) + 1)]
        labels.append(next(name for name in names if name not in labels))
    return tuple(
        cell.model_copy(update={"operator": label})
        for cell, label in zip(arms, labels, strict=True)
    )
