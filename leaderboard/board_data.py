"""The numbers of a board as data: what its page offers as CSV and JSON."""

from __future__ import annotations

from typing import Any

from bench.intervals import bounds
from leaderboard.board_page import BoardView, Line
from leaderboard.rows import Row
from leaderboard.show import Show
from leaderboard.standing import Place


def board_data(view: BoardView) -> dict[str, Any]:
    """Return the numbers of a board as data: what its page offers as CSV and JSON."""
    board, first = view.board, view.board.first
    return {
        "task": first.entry.task,
        "data": first.data.name if first.data else None,
        "host": first.entry.host,
        "head": first.entry.head,
        "recipe": first.recipe.name if first.recipe else None,
        "metric": board.headline,
        "unit": board.metric.unit if board.metric else None,
        "higher_is_better": board.metric.higher_is_better if board.metric else None,
        "baseline": view.baseline or None,
        "scale": 100 if view.show.unit == "%" else 1,
        "score_unit": view.show.unit,
        "difference_unit": view.show.difference_unit,
        "times": [
            {"key": c.key, "words": c.words, "where": c.where, "batch": c.batch}
            for c in view.choices
        ],
        "rows": [_row_data(view, line) for line in view.lines],
    }


def _row_data(view: BoardView, line: Line) -> dict[str, Any]:
    row = line.row
    entry, rank = row.first.entry, row.rank
    difference = row.difference.interval if row.difference else None
    return {
        "key": row.key[:12],
        "label": row.label,
        "operator": entry.operator,
        "operator_options": entry.operator_options,
        "rank": rank.place if rank else None,
        "rank_best": rank.best if rank else None,
        "rank_worst": rank.worst if rank else None,
        "tie": rank.letters if rank else None,
        "score": row.mean,
        "score_low": row.interval.low if row.interval else None,
        "score_high": row.interval.high if row.interval else None,
        "gain": row.difference.value if row.difference else None,
        "gain_low": difference.low if difference else None,
        "gain_high": difference.high if difference else None,
        "p_best": row.p_best,
        "p_best_words": line.cells["best"].text,
        "seeds": {str(seed): value for seed, value in sorted(row.scores.items())},
        "params": row.cost.params if row.cost else None,
        "macs": row.cost.macs if row.cost else None,
        "form": entry.form,
        "tuned_trials": row.trials if row.tuned else None,
        "baseline": row.baseline,
        "notes": [mark.text for mark in row.marks],
        "times": {
            stand.choice.key: _time_data(row, stand.of(row))
            for stand in view.standings
            if stand.choice
        },
    }


def _time_data(row: Row, place: Place) -> dict[str, Any]:
    speed = place.record.speed if place.record else None
    time = speed.latency_median_ms if speed else None
    rate = speed.images_per_second if speed else None
    return {
        "ms": time.value if time else None,
        "ms_low": time.low if time else None,
        "ms_high": time.high if time else None,
        "ms_bounds": Show.interval(time),
        "images_per_second": rate.value if rate else None,
        "ratio": place.ratio.value if place.ratio else None,
        "ratio_low": place.ratio.low if place.ratio else None,
        "ratio_high": place.ratio.high if place.ratio else None,
        "ratio_bounds": bounds(place.ratio.low, place.ratio.high, 2) if place.ratio else "",
        "verdict": place.verdict,
        "noise": speed.noise if speed else None,
        "stale": place.old or bool(place.record and row.is_stale(place.record)),
        "front": place.front.probability if place.front else None,
        "status": place.record.status if place.record else None,
    }
