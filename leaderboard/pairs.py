"""Any two arms of a board against each other, for the page that compares them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from bench.intervals import bounds, t_interval
from bench.record import Record
from bench.statistics.blocks import Blocks
from bench.statistics.ratios import log_ratios
from leaderboard.board_page import BoardView
from leaderboard.names import arm, entry_file
from leaderboard.rows import Row


def board_pairs(view: BoardView, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the arms of a board, and of each pair the differences with their intervals.

    Args:
        view: the board.
        names: arm → its short name in addresses.

    Returns:
        `arms`: name → what is shown of it; `pairs`: 'first second' (names in order) → the score of
        the first minus that of the second; whether the first is surely better (1), surely worse
        (-1) or neither (0), once all pairs are compared; and for each time, by its key, the first's
        time divided by the second's, the words of its interval and of that of the second's divided
        by the first's, whether both are steady, and of what it was measured, which is
        the same where boards share it. Scores and times are [value, low, high], in the unit shown.
    """
    show, rows = view.show, {names[arm(row)]: row for row in view.board.rows}
    blocks = Blocks({row.key: row.scores for row in rows.values()})
    pairs: dict[str, Any] = {}
    for one, other in combinations(sorted(rows), 2):
        a, b = rows[one], rows[other]
        difference = blocks.difference(a.key, b.key)
        within = difference.interval if difference else None
        score = (
            [round(show.scaled(v), 4) for v in (within.value, within.low, within.high)]
            if within
            else None
        )
        times = {
            stand.choice.key: {
                "ratio": ratio,
                "bounds": [bounds(ratio[1], ratio[2], 2), bounds(1 / ratio[2], 1 / ratio[1], 2)],
                "steady": _steady(first, second),
                "run": run,
            }
            for stand in view.standings
            if stand.choice
            and (first := stand.of(a).record) is not None
            and (second := stand.of(b).record) is not None
            and (ratio := time_ratio(first, second)) is not None
            and (run := first.speed and first.speed.run) is not None
        }
        apart = view.board.pairs.apart
        sure = (1 if (a.key, b.key) in apart else 0) - (1 if (b.key, a.key) in apart else 0)
        pairs[f"{one} {other}"] = {"score": score, "sure": sure, "times": times}
    return {
        "arms": {name: _arm(view, row) for name, row in rows.items()},
        "pairs": pairs,
        "unit": show.difference_unit,
        "metric": show.metric_name(view.board.headline),
        "times": view.times,
    }


def _arm(view: BoardView, row: Row) -> dict[str, Any]:
    show = view.show
    return {
        "page": entry_file(view.board, row),
        "score": show.score(row.mean),
        "interval": show.score_interval(row.interval),
        "rank": show.rank(row.rank),
        "params": show.count(row.cost.params if row.cost else None),
        "macs": show.count(row.cost.macs if row.cost else None),
        "times": {
            stand.choice.key: show.number(time.value)
            for stand in view.standings
            if stand.choice
            and (record := stand.of(row).record)
            and record.speed
            and (time := record.speed.latency_median_ms)
        },
    }


def _steady(*records: Record) -> bool:
    return all(r.speed is not None and r.speed.noise != "unstable" for r in records)


def time_ratio(one: Record | None, other: Record | None) -> list[float] | None:
    """Time of one divided by that of another, from the rounds of one run; None from two runs."""
    if not (one and other and one.speed and other.speed) or one.speed.run != other.speed.run:
        return None
    a, b = one.speed.samples_ms, other.speed.samples_ms
    if not a or [len(rounds) for rounds in a] != [len(rounds) for rounds in b]:
        return None
    found = t_interval(log_ratios(a, b))
    return [float(f"{math.exp(value):.5g}") for value in found] if found else None
