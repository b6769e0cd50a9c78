"""Records brought to their boards: each result stands on the board that its settings name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.board_key import shared
from bench.hashing import digest
from bench.record import Record
from leaderboard.keys import board_of

SUPERNETS = ("edo",)
"""Operators of records older than `entry.ranked` that were trained on the way to others."""


@dataclass
class Group:
    """The records of one board, each list from the oldest to the newest."""

    scored: list[Record] = field(default_factory=list)
    timed: list[Record] = field(default_factory=list)
    """End to end, with this board's data and weights."""
    views: list[Record] = field(default_factory=list)
    decisions: list[Record] = field(default_factory=list)
    studies: list[Record] = field(default_factory=list)


def grouped(ordered: Sequence[Record]) -> dict[str, Group]:
    """Return board → its records; times of backbones stand on no board of their own."""
    groups: dict[str, Group] = defaultdict(Group)
    strays = []
    for record in ordered:
        if not record.entry.ranked or record.entry.operator in SUPERNETS:
            continue
        if record.kind == "accuracy":
            if record.data and record.recipe:
                groups[board_of(record)].scored.append(record)
            else:
                strays.append(record)
        elif record.data and record.recipe:
            group = groups[board_of(record)]
            lists = {
                "speed": group.timed,
                "view": group.views,
                "decision": group.decisions,
                "study": group.studies,
            }
            lists[record.kind].append(record)
    if strays:
        _place(strays, groups)
        position = {id(record): index for index, record in enumerate(ordered)}
        for group in groups.values():
            group.scored.sort(key=lambda record: position[id(record)])
    return {key: group for key, group in groups.items() if group.scored}


def _place(strays: Sequence[Record], groups: dict[str, Group]) -> None:
    """Bring failures that do not know their data to the boards of their recipe and settings."""
    homes: dict[str, list[str]] = defaultdict(list)
    for key, group in groups.items():
        for settings in {_settings(record) for record in group.scored}:
            homes[settings].append(key)
    for record in strays:
        settings = _settings(record)
        lonely = board_of(record) if record.recipe else settings
        for key in homes.get(settings, [lonely]):
            groups[key].scored.append(record)


def _settings(record: Record) -> str:
    """Hash of the recipe's name and of what arms share of the configuration."""
    recipe = record.recipe
    if recipe is None:
        return digest([record.entry.task, record.entry.host, record.entry.head])
    return digest([recipe.name, shared(recipe.config, recipe.untuned)])
