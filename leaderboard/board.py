"""Boards: accuracy records grouped into what may be compared, joined with their speed.

One board holds the arms that share everything but the operator (`bench.board_key`). A row of it is
an arm: an operator with its options in a selection of slots, with a score per seed. The newest
result of a seed counts, whatever became of it; one of older code of the operator is stale, not
wrong. Nothing is imputed: what was not measured is None, and a failure is a row with its error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bench.hashing import digest
from bench.record import Record
from leaderboard.fitted import fitted
from leaderboard.grouping import Group, grouped
from leaderboard.join import Times, board_times, network_times, with_speed
from leaderboard.keys import arm_key, in_order, newest_code
from leaderboard.rows import Board, Row
from leaderboard.settings import with_settings


def boards(records: Iterable[Record]) -> list[Board]:
    """Group records into boards, in a fixed order whatever the order of the records."""
    ordered = in_order(records)
    code = newest_code(ordered)
    backbones, steps = (network_times(ordered, scope) for scope in ("backbone", "training"))
    every = [_board(key, group, code, backbones, steps) for key, group in grouped(ordered).items()]
    every = with_settings(every)
    return sorted(every, key=lambda b: (b.title, b.first.entry.host, b.settings, b.key))


def _board(
    key: str, group: Group, code: Mapping[str, str], backbones: Times, steps: Times
) -> Board:
    first = _standing(group.scored)
    headline = first.accuracy.headline if first.accuracy else None
    rows, setup = with_speed(
        _rows(group, code, headline), backbones, steps, board_times(group.timed)
    )
    return fitted(
        Board(
            key=key,
            first=first,
            headline=headline,
            metric=first.accuracy.metrics[headline] if first.accuracy and headline else None,
            rows=tuple(rows),
            setup=setup,
        )
    )


def _standing(records: Sequence[Record]) -> Record:
    """Return the record that stands for a board: the newest that is ok, rather not a tuned one."""

    def worth(record: Record) -> tuple[bool, bool]:
        return record.status == "ok", not (record.recipe and record.recipe.untuned)

    return max(reversed(records), key=worth)  # of equals the first, which is the newest


def _rows(group: Group, code: Mapping[str, str], headline: str | None) -> list[Row]:
    by_arm: dict[str, list[Record]] = defaultdict(list)
    for record in group.scored:
        by_arm[_row_key(record)].append(record)
    views: dict[str, list[Record]] = defaultdict(list)
    for record in group.views:
        views[_row_key(record)].append(record)
    decisions = {_row_key(record): record for record in group.decisions}  # the newest
    return [
        replace(
            _row(key, records, views[key], code, headline),
            decision=decisions.get(key),
            studies=_studies(key, records, group.studies),
        )
        for key, records in sorted(by_arm.items())
    ]


def _studies(key: str, records: Sequence[Record], studies: Iterable[Record]) -> tuple[Record, ...]:
    """Return the newest record of each study of an arm, or behind it where it is a tuned one."""
    behind = {record.provenance.optuna_study for record in records}
    named = {
        record.study.name: record
        for record in studies
        if record.study and (_row_key(record) == key or record.study.name in behind)
    }
    return tuple(named.values())


def _row_key(record: Record) -> str:
    return digest([record.entry.form, arm_key(record)])


def _row(
    key: str,
    records: list[Record],
    views: list[Record],
    code: Mapping[str, str],
    headline: str | None,
) -> Row:
    """Take the newest record of each seed, and the newest view of each seed and kind."""
    newest = {record.recipe.seed if record.recipe else -1: record for record in records}
    counted = [newest[seed] for seed in sorted(newest)]
    chosen = {id(record) for record in counted}
    shown = {
        (record.view.weights == "fresh", record.recipe.seed): record
        for record in views
        if record.view and record.recipe
    }
    return Row(
        key=key,
        code=code,
        records=tuple(counted),
        superseded=tuple(record for record in records if id(record) not in chosen),
        scores={
            record.recipe.seed: record.accuracy.metrics[headline].value
            for record in counted
            if record.status == "ok"
            and record.accuracy
            and record.recipe
            and headline in record.accuracy.metrics
        },
        views=tuple(shown[kind] for kind in sorted(shown)),
    )
