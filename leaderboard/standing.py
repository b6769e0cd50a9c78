"""Where the arms of a board stand in score and in one kind of time, and the card that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.record import Interval, Record
from bench.statistics.blocks import Blocks
from leaderboard import draws
from leaderboard.card import Card, card
from leaderboard.front import Front, fronts
from leaderboard.rows import Board, Row
from leaderboard.times import Choice, Ratio, choices, ratios, record_of


@dataclass(frozen=True)
class Place:
    """Where an arm stands.

    Attributes:
        record: its speed record of this kind; a failed one too.
        ratio: time / time of the board's baseline.
        verdict: of that ratio.
        old: whether it is a ratio to the baseline's older code.
        front: whether it is on the front of score against time; None without a score, a time, or
            a baseline, or where the board has too few seeds for a test.
    """

    record: Record | None = None
    ratio: Interval | None = None
    verdict: str | None = None
    old: bool = False
    front: Front | None = None


@dataclass(frozen=True)
class Standing:
    """A board seen with one kind of time; without any, `choice` is None."""

    board: Board
    choice: Choice | None
    places: Mapping[str, Place]
    times: Mapping[str, Ratio]

    def of(self, row: Row) -> Place:
        """Return where a row of the board stands."""
        return self.places[row.key]

    @cached_property
    def card(self) -> Card:
        """The board in a few sentences."""
        return card(self.board, self.times, self.choice)


def standing(board: Board, choice: Choice | None = None) -> Standing:
    """Return where the arms of a board stand.

    Args:
        board: as `leaderboard.board.boards` gives it.
        choice: one of `leaderboard.times.choices`; None for the first of them.
    """
    if choice is None:
        choice = next(iter(choices(board)), None)
    times = ratios(board, choice) if choice else {}
    known = _fronts(board, times, choice)
    places = {}
    for row in board.rows:
        ratio = times.get(row.key)
        places[row.key] = Place(
            record=record_of(row, choice) if choice else None,
            ratio=ratio.interval if ratio else None,
            verdict=ratio.verdict if ratio else None,
            old=ratio.old if ratio else False,
            front=known.get(row.key),
        )
    return Standing(board, choice, places, times)


def _fronts(board: Board, times: Mapping[str, Ratio], choice: Choice | None) -> dict[str, Front]:
    timed = [arm for arm in board.pairs.order if arm in times]
    if not timed or choice is None or board.metric is None:
        return {}
    blocks = Blocks({row.key: row.scores for row in board.rows})
    scores = draws.scores(blocks, board.metric.higher_is_better, timed, board.key)
    if scores is None:
        return {}
    runs: dict[str, dict[str, tuple[float, ...]]] = {}
    for arm in timed:
        runs.setdefault(times[arm].run, {})[arm] = times[arm].logs
    drawn = draws.log_times(runs, f"{board.key} {choice.key}")
    still = {arm: np.full(draws.DRAWS, np.mean(times[arm].logs or [0.0])) for arm in timed}
    return fronts(
        {arm: scores[:, column] for column, arm in enumerate(timed)},
        {arm: drawn.get(arm, still[arm]) for arm in timed},
        [arm for arm in timed if not times[arm].known],
    )
