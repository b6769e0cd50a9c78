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

import numpy as np

from bench.hashing import digest
from bench.record import Metric, Record
from bench.statistics.blocks import Blocks
from bench.statistics.ranks import Pairs, compared, ranks
from leaderboard import detectable, stats
from leaderboard.draws import p_best
from leaderboard.grouping import Group, grouped
from leaderboard.join import Times, board_times, network_times, with_speed
from leaderboard.keys import arm_key, in_order, newest_code
from leaderboard.rows import Board, Row
from leaderboard.settings import with_settings
from leaderboard.show import Show


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
    metric = first.accuracy.metrics[headline] if first.accuracy and headline else None
    rows = _rows(group, code, headline)

    notes = []
    candidates = [row for row in rows if row.baseline]
    baseline = candidates[0] if len(candidates) == 1 else None
    if baseline is None:
        plural = "s" * (len(candidates) != 1)
        count = len(candidates) or "No"
        notes.append(f"{count} baseline{plural} among the arms: no contrasts.")
    blocks = Blocks({row.key: row.scores for row in rows})
    if blocks.sd is None and blocks.arms:
        notes.append("Too few seeds for a test: every arm is tied.")
    pairs = Pairs((), frozenset())
    if metric and blocks.arms:
        pairs = compared(blocks, metric.higher_is_better, _linked(blocks, baseline))
        rows = _compared(rows, blocks, metric, baseline, pairs, key)
    apart = sorted(row.label for row in rows if not row.linked)
    if apart:
        notes.append(
            f"No chain of shared seeds links {', '.join(apart)} with the other arms: no contrast "
            "and no rank."
        )
    rows, setup = with_speed(rows, backbones, steps, board_times(group.timed))
    rows.sort(key=lambda row: _order(row, metric))
    return Board(
        key=key,
        first=first,
        headline=headline,
        metric=metric,
        rows=tuple(rows),
        seeds=tuple(sorted({seed for row in rows for seed in row.scores})),
        baseline=next((row for row in rows if baseline and row.key == baseline.key), None),
        pairs=pairs,
        detectable=blocks.detectable(detectable.level(len(pairs.order))),
        detectable_words=detectable.words(blocks, len(pairs.order), Show(metric)),
        setup=setup,
        notes=tuple(notes),
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
    return [
        _row(key, records, views[key], code[records[0].entry.operator], headline)
        for key, records in sorted(by_arm.items())
    ]


def _row_key(record: Record) -> str:
    return digest([record.entry.form, arm_key(record)])


def _row(
    key: str, records: list[Record], views: list[Record], code: str, headline: str | None
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


def _linked(blocks: Blocks, baseline: Row | None) -> list[str]:
    """Return the arms that shared seeds link with the baseline, or else the largest group."""
    groups = blocks.groups()
    return next((g for g in groups if baseline and baseline.key in g), groups[0])


def _compared(
    rows: Sequence[Row],
    blocks: Blocks,
    metric: Metric,
    baseline: Row | None,
    pairs: Pairs,
    key: str,
) -> list[Row]:
    """Give each row its fitted mean, its interval, its contrast, and its rank among `pairs`."""
    places = ranks(blocks, metric.higher_is_better, pairs)
    best = p_best(blocks, metric.higher_is_better, pairs.order, key)
    bounds = stats.bounds_of(metric)
    return [
        replace(
            row,
            mean=float(np.clip(blocks.mean(row.key), *bounds)),
            interval=blocks.mean_interval(row.key, bounds),
            linked=row.key in places,
            rank=places.get(row.key),
            p_best=best.get(row.key),
            difference=blocks.difference(row.key, baseline.key) if baseline else None,
            paired=stats.paired_interval(row.scores, baseline.scores)
            if baseline and row.key != baseline.key
            else None,
        )
        if row.scores
        else row
        for row in rows
    ]


def _order(row: Row, metric: Metric | None) -> tuple[float, float, str, str]:
    """By the fitted mean, whatever the time; then arms without a rank, failures last."""
    place = float(row.rank.place) if row.rank else float("inf")
    sign = -1.0 if metric and metric.higher_is_better else 1.0
    score = sign * row.mean if row.mean is not None else float("inf")
    return place, score, row.label, row.key
