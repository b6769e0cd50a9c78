"""Names of files and short words of the site: the one place that makes them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

from bench.hashing import digest
from bench.record import Record
from leaderboard.keys import tuned_values
from leaderboard.rows import Board, Row
from leaderboard.wording import processor


def slug(words: str, length: int = 48) -> str:
    """Return words as a part of an address.

    Example:
        >>> slug("Detection on Scenes, yolox")
        'detection-on-scenes-yolox'
    """
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:length].strip("-") or "x"


def board_name(board: Board) -> str:
    """Name of the board's files, e.g. 'classification-scenes-test-convnext-1a2b3c'."""
    entry, data = board.first.entry, board.first.data
    words = [entry.task, data.name if data else "", entry.host]
    return f"{slug('-'.join(filter(None, words)))}-{board.key[:6]}"


def opening(boards: Sequence[Board]) -> Board:
    """The board that the site opens with: where most operators are surely better than the baseline.

    Of equals the one where most surely differ from it.
    """

    def decided(board: Board) -> tuple[int, int]:
        known = [board.surely(row) for row in board.rows]
        return known.count("better"), len(known) - known.count(None)

    return max(boards, key=decided)


def host_words(board: Board) -> str:
    """The host with its head, and what else tells the board from its like."""
    entry = board.first.entry
    words = f"{entry.host} + {entry.head}" if entry.head else entry.host
    settings = [f"{name} = {value}" for name, value in board.settings[:2]]
    more = ["…"] if len(board.settings) > 2 else []
    return ", ".join([words, *settings, *more])


def entry_file(board: Board, row: Row) -> str:
    """Path of an arm's page in the site."""
    return _entry(row.label, board.key, row.key)


@cache
def _entry(label: str, board: str, row: str) -> str:
    return f"entries/{slug(label, 40)}-{digest([board, row])[:10]}.html"


def operator_file(operator: str) -> str:
    """Path of an operator's page in the site."""
    plain = re.fullmatch(r"[a-z0-9_]+", operator) is not None
    return f"operators/{operator if plain else f'{slug(operator, 30)}-{digest(operator)[:6]}'}.html"


def machine_file(record: Record) -> str:
    """Path of the page of the machine that a record comes from."""
    machine = record.machine
    name = slug(machine.gpu or machine.cpu, 36)
    return f"machines/{name}-{digest(machine.model_dump())[:6]}.html"


def machine_name(record: Record) -> str:
    """The card of the machine that a record comes from, or its processor, for people."""
    return processor(record.machine.gpu or record.machine.cpu)


def arm(row: Row) -> str:
    """Hash of what makes an arm the same one on every board.

    That is its operator with its options, the slots in which it stands where it has some of its
    own, and what was tuned.
    """
    entry, tuned = row.first.entry, tuned_values(row.first)
    own = [entry.operator_options, entry.mix, entry.selection, entry.form]
    return digest([row.label, entry.operator, own, tuned, row.tuned])


def arm_names(boards: Iterable[Board]) -> dict[str, str]:
    """Return arm → its short name in addresses, the label where that is enough."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for board in boards:
        for row in board.rows:
            arms = by_label[slug(row.label, 30)]
            if arm(row) not in arms:
                arms.append(arm(row))
    return {
        key: label if len(keys) == 1 else f"{label}-{key[:4]}"
        for label, keys in by_label.items()
        for key in keys
    }


def operator_words(row: Row) -> str:
    """The operator with its options, e.g. 'icconv kernel_size=3'."""
    entry = row.first.entry
    return " ".join(
        [entry.operator, *(f"{k}={v}" for k, v in sorted(entry.operator_options.items()))]
    )
