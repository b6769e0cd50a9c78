"""The suite that a tuning writes: every arm as it was, and beside it as it was tuned."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bench.config.cell import Cell
from bench.config.plan import Choice, board_of
from bench.config.schema import (
    BoardConfig,
    OperatorConfig,
    load_host,
    load_operator,
    load_suite,
)
from bench.hashing import digest
from bench.whole_files import write_whole

_LONGEST = 120
"""Characters of a file's name that say what was chosen."""


def file_name(name: str, choice: Choice) -> str:
    """Return the name of the suite that a choice of another one gets.

    Example:
        >>> file_name("configs/suites/quick.yaml", Choice(only={"task": ["paths"]}))
        'quick-paths.yaml'
        >>> file_name("quick", Choice(operators=["acb", "mine/arm.yaml"], mix="pointwise"))
        'quick-acb-arm-5d494f.yaml'
    """
    chosen = [value for values in (choice.only or {}).values() for value in values]
    chosen += [*(choice.hosts or []), *(choice.operators or [])]
    said = {name: value for name, value in asdict(choice).items() if value}
    parts = [re.sub(r"[^\w.]+", "_", Path(each).name.removesuffix(".yaml")) for each in chosen]
    if said.keys() - {"only", "hosts", "operators"} or len("-".join(parts)) > _LONGEST:
        parts.append(digest(said)[:6])
    return f"{'-'.join([Path(name).stem, '-'.join(parts)[-_LONGEST:]]).rstrip('-')}.yaml"


def write(
    path: Path, name: str, choice: Choice, arms: Sequence[tuple[Cell, Sequence[OperatorConfig]]]
) -> None:
    """Write a suite with the baseline, the arms that were chosen, and what was found of each.

    All have the same seeds, and the cells of arms as they were are those of the original suite, so
    that `convboard run` runs the tuned ones alone where the others are done.

    Args:
        path: the file to write.
        name: of the original suite, or its path.
        choice: what was chosen of it.
        arms: a cell of each, and the tuned arms that it got.
    """
    by_board: dict[str, list[tuple[Cell, Sequence[OperatorConfig]]]] = {}
    for arm in arms:
        by_board.setdefault(arm[0].board, []).append(arm)
    whole = load_suite(name)
    operators = dict.fromkeys(cell.operator for cell, _ in arms)
    suite = whole.model_copy(
        update={
            "name": path.stem,
            "description": f"{', '.join(operators)} as in {whole.name}, and tuned",
            "seeds": choice.seeds or whole.seeds,
            "boards": [_board(name, choice, found) for found in by_board.values()],
        }
    )
    dumped: dict[str, Any] = suite.model_dump(mode="json", exclude_defaults=True)
    write_whole(path, yaml.safe_dump(dumped, sort_keys=False, allow_unicode=True))


def _board(
    name: str, choice: Choice, arms: Sequence[tuple[Cell, Sequence[OperatorConfig]]]
) -> BoardConfig:
    cell = arms[0][0]
    board = board_of(name, choice, cell)
    known = [*board.operators, *choice.laid_over(choice.operators or [])]
    by_label = {load_operator(operator).label: operator for operator in known}
    operators = {board.baseline: by_label[board.baseline]}
    for arm, tuned in arms:
        operators[arm.operator] = by_label[arm.operator]
        for each in tuned:
            numbered = (f"{each.label}-{number}" for number in itertools.count(2))
            labels = itertools.chain([each.label], numbered)
            free = next(label for label in labels if label not in by_label | operators)
            operators[free] = each.model_copy(update={"label": free})
    hosts = [choice.started(load_host(host)) for host in choice.hosts or board.hosts]
    host = next(host for host in hosts if host.label == cell.host)
    return board.model_copy(
        update={
            "hosts": [host],
            "operators": list(operators.values()),
            "seeds": None if choice.seeds else board.seeds,
        }
    )
