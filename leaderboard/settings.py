"""What tells boards of the same task, data, host and head apart, setting by setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.board_key import LOCATION, differences, shared
from bench.hashing import digest
from bench.record import Record
from leaderboard.rows import Board
from leaderboard.wording import setting

LENGTH = 60


def with_settings(boards: Sequence[Board]) -> list[Board]:
    """Say of each board by which settings it differs from others of its task, data and host.

    Where the configurations are the same, it is the data that differ: their revision, their
    split, or their files.
    """
    alike: dict[str, list[Board]] = defaultdict(list)
    for board in boards:
        entry, data = board.first.entry, board.first.data
        alike[digest([entry.task, data and data.name, entry.host, entry.head])].append(board)
    words: dict[str, list[tuple[str, str]]] = {}
    for group in alike.values():
        apart = differences([_settings(board.first) for board in group])
        same: dict[str, list[Board]] = defaultdict(list)
        for board, values in zip(group, apart, strict=True):
            words[board.key] = [(name, _shown(value)) for name, value in values.items()]
            same[digest(values)].append(board)
        for twins in same.values():
            for board, values in zip(
                twins, differences([_data(b.first) for b in twins]), strict=True
            ):
                words[board.key] += [(name, _shown(value)) for name, value in values.items()]
    return [replace(board, settings=tuple(words[board.key])) for board in boards]


def _settings(record: Record) -> dict[str, Any]:
    if record.recipe is None:
        return {}
    settings = shared(record.recipe.config, record.recipe.untuned)
    if record.data:
        settings.pop(LOCATION, None)
    return settings


def _data(record: Record) -> dict[str, Any]:
    data = record.data
    if data is None:
        return {}
    options = {f"options.{k}": v for k, v in data.options.items() if k != "seed"}
    named = {"revision": data.revision, "split": data.split, "files": data.files_sha256[:12]}
    return {f"data {name}": value for name, value in (named | options).items()}


def _shown(value: Any) -> str:
    text = setting(value)
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 1]}…"
