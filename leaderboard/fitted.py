"""The statistics of a board's scores: fitted means, contrasts, ranks, and what can't be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.intervals import critical
from bench.record import Metric
from bench.statistics.blocks import Blocks
from bench.statistics.ranks import Pairs, compared, ranks
from leaderboard import detectable, marks, stats
from leaderboard.decided import board_words, stopped_words, told_apart
from leaderboard.draws import p_best
from leaderboard.rows import Board, Row
from leaderboard.show import Show


def fitted(board: Board) -> Board:
    """Return a board with the statistics of its rows' scores, its rows in the order of the means.

    Ranked are the arms that shared seeds link with the baseline, or without one the largest group.
    """
    rows, metric, notes = list(board.rows), board.metric, []
    candidates = [row for row in rows if row.baseline]
    baseline = candidates[0] if len(candidates) == 1 else None
    if baseline is None:
        plural = "s" * (len(candidates) != 1)
        count = len(candidates) or "No"
        notes.append(f"{count} baseline{plural} among the operators: no gains.")
    blocks = Blocks({row.key: row.scores for row in rows})
    if blocks.sd is None and blocks.arms:
        notes.append("Too few seeds for a test: every operator is tied.")
    pairs = Pairs()
    if metric and blocks.arms:
        pairs = compared(blocks, metric.higher_is_better, _linked(blocks, baseline), board.looks)
        pairs = pairs.knowing(told_apart(rows))
        rows = _with_numbers(rows, blocks, metric, baseline, pairs, board.key)
    apart = sorted(row.label for row in rows if not row.linked)
    if apart:
        notes.append(
            f"No chain of shared seeds links {', '.join(apart)} with the other operators: no "
            "gain and no rank."
        )
    rows.sort(key=lambda row: _order(row, metric))
    if decided := board_words(rows, Show(metric)):
        notes.append(decided)
    seeds = tuple(sorted({seed for row in rows for seed in row.scores}))
    width = None
    if blocks.sd is not None:
        width = critical(blocks.freedom) * blocks.sd * math.sqrt(2)
    rows = [_marked(row, seeds, board.headline, width, Show(metric)) for row in rows]
    return replace(
        board,
        rows=tuple(rows),
        seeds=seeds,
        baseline=next((row for row in rows if baseline and row.key == baseline.key), None),
        pairs=pairs,
        detectable=blocks.detectable(detectable.level(len(pairs.order), board.looks)),
        detectable_words=detectable.words(blocks, len(pairs.order), board.looks, Show(metric)),
        notes=tuple(notes),
    )


def _linked(blocks: Blocks, baseline: Row | None) -> list[str]:
    """Return the arms that shared seeds link with the baseline, or else the largest group."""
    groups = blocks.groups()
    return next((g for g in groups if baseline and baseline.key in g), groups[0])


def _with_numbers(
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


def _marked(
    row: Row, seeds: Sequence[int], headline: str | None, width: float | None, show: Show
) -> Row:
    """Give a row its marks; `width` is how far two scores of one seed may lie apart."""
    disputed = (
        *marks.disputed_scores(row.records, row.superseded, headline, width),
        *row.disputed,
    )
    run = {record.recipe.seed for record in row.records if record.recipe}
    return replace(
        row,
        disputed=disputed,
        marks=marks.of_row(
            scored=bool(row.scores),
            of=len(row.records),
            stale=row.stale,
            superseded=row.superseded,
            failures=row.failures,
            disputed=disputed,
            lacking=[seed for seed in seeds if row.scores and seed not in run],
            stopped=stopped_words(row, show),
            old_times=row.old_times,
            noisy=[name for name, time in row.columns.items() if marks.unclear_for_noise(time)],
            start=marks.fresh_start(row.records),
        ),
    )


def _order(row: Row, metric: Metric | None) -> tuple[float, float, str, str]:
    """By the fitted mean, whatever the time; then arms without a rank, failures last."""
    place = float(row.rank.place) if row.rank else float("inf")
    sign = -1.0 if metric and metric.higher_is_better else 1.0
    score = sign * row.mean if row.mean is not None else float("inf")
    return place, score, row.label, row.key
