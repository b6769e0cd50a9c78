"""Operators over all boards: a grid of contrasts, and geometric means to a fixed baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.hashing import digest
from bench.intervals import LEVEL, t_interval
from bench.record import Interval
from leaderboard.rows import Board, Row
from leaderboard.times import Choice, Ratio, choices, ratios
from leaderboard.wording import counted

Verdict = Literal["better", "worse", "open", "baseline", "failed", "unfit"]
FEWEST = 3
"""So many boards must there be for an interval over boards to mean anything."""


@dataclass(frozen=True)
class GridCell:
    """An operator on one board.

    Attributes:
        row: its row there.
        difference: its score − the baseline's, in the metric's unit; None without an interval.
        verdict: better or worse than the baseline where the board's tests tell them apart.
        certainty: probability that the difference has the sign that it shows, 0.5 to 1.
    """

    row: Row
    difference: Interval | None
    verdict: Verdict
    certainty: float | None


@dataclass(frozen=True)
class GeometricMean:
    """A ratio to the baseline over several places.

    Attributes:
        value: geometric mean.
        interval: t over the places, of logarithms, from `FEWEST` places on: what another place
            of this kind may show, not what noise there is in these.
        count: how many places.
        where: in words, e.g. 'three boards'.
    """

    value: float
    interval: Interval | None
    count: int
    where: str


@dataclass(frozen=True)
class OperatorMean:
    """An operator against the fixed baseline.

    Attributes:
        operator: its name in the overview.
        baseline: the baseline's name; boards with another one are left out.
        score: score / baseline's score, of metrics of which more is better and that are positive.
        times: time / baseline's time, of backbones at the smallest batch; one place is a host at
            an input size on a machine, whatever the tasks.
    """

    operator: str
    baseline: str
    score: GeometricMean | None
    times: GeometricMean | None


@dataclass(frozen=True)
class Overview:
    """Operators × boards.

    Attributes:
        boards: as given.
        operators: names of the arms, the fixed baseline first, then by their mean score.
        cells: (operator, key of the board) → cell.
        means: of every operator that shares a board with the fixed baseline.
        baseline: name of the fixed baseline: that of most boards; None where none has one.
    """

    boards: tuple[Board, ...]
    operators: tuple[str, ...]
    cells: Mapping[tuple[str, str], GridCell]
    means: tuple[OperatorMean, ...]
    baseline: str | None

    def cell(self, operator: str, board: Board) -> GridCell | None:
        """Return the cell of an operator on a board; None where it is not there."""
        return self.cells.get((operator, board.key))


def overview(boards: Sequence[Board]) -> Overview:
    """Return operators over all boards.

    Arms of the same operator, options and mix are one operator, under the label
    that most of their rows have. Tuned arms take no part.
    """
    rows: dict[str, dict[str, Row]] = {}
    for board in boards:
        for row in board.rows:
            if not row.tuned:
                rows.setdefault(_identity(row), {}).setdefault(board.key, row)
    names = _names(rows)
    bases = Counter(_identity(b.baseline) for b in boards if b.baseline)
    fixed = max(bases, key=lambda key: (bases[key], names[key]), default=None)
    cells = {
        (names[key], board.key): _cell(by_board[board.key], board)
        for key, by_board in rows.items()
        for board in boards
        if board.key in by_board
    }
    means = []
    if fixed is not None:
        shared = [b for b in boards if b.baseline and _identity(b.baseline) == fixed]
        timed = {
            b.key: [(choice, ratios(b, choice)) for choice in _smallest(choices(b))] for b in shared
        }
        for key, by_board in rows.items():
            if key == fixed:
                continue
            score, times = _scores(by_board, shared), _times(by_board, timed)
            if score or times:
                means.append(OperatorMean(names[key], names[fixed], score, times))

    def order(operator: str) -> tuple[bool, float, str]:
        value = next((m.score.value for m in means if m.operator == operator and m.score), 0.0)
        return operator != (fixed and names[fixed]), -value, operator

    operators = tuple(sorted(names.values(), key=order))
    means.sort(key=lambda mean: operators.index(mean.operator))
    return Overview(tuple(boards), operators, cells, tuple(means), fixed and names[fixed])


def _identity(row: Row) -> str:
    entry = row.first.entry
    return digest([entry.operator, entry.operator_options, entry.mix])


def _names(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, str]:
    """Return the name of each operator: its commonest label, with a number where two share it."""
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for key in sorted(rows):
        counts = Counter(row.label for row in rows[key].values())
        label = min(counts, key=lambda name: (-counts[name], name))
        taken[label] += 1
        names[key] = label if taken[label] == 1 else f"{label} ({taken[label]})"
    return names


def _cell(row: Row, board: Board) -> GridCell:
    if not row.scores:
        return GridCell(row, None, "unfit" if row.unfit else "failed", None)
    base = board.baseline
    if base is not None and row.key == base.key:
        return GridCell(row, None, "baseline", None)
    difference = row.difference
    certainty = None
    if difference is not None and difference.p is not None:
        certainty = round(1 - difference.p / 2, 3)
    verdict: Verdict = "open"
    if base is not None and (row.key, base.key) in board.pairs.apart:
        verdict = "better"
    elif base is not None and (base.key, row.key) in board.pairs.apart:
        verdict = "worse"
    return GridCell(row, difference.interval if difference else None, verdict, certainty)


def _scores(by_board: Mapping[str, Row], boards: Sequence[Board]) -> GeometricMean | None:
    logs = []
    for board in boards:
        row, base, metric = by_board.get(board.key), board.baseline, board.metric
        if row is None or base is None or metric is None or not metric.higher_is_better:
            continue
        if row.rank and base.rank and row.mean and base.mean and row.mean > 0 and base.mean > 0:
            logs.append(math.log(row.mean / base.mean))
    return _mean(logs, "board")


def _times(
    by_board: Mapping[str, Row], timed: Mapping[str, Sequence[tuple[Choice, Mapping[str, Ratio]]]]
) -> GeometricMean | None:
    """Return the mean ratio of times; the same networks on several boards are one place."""
    places: dict[str, float] = {}
    for board, kinds in timed.items():
        row = by_board.get(board)
        if row is None:
            continue
        for choice, of_rows in kinds:
            ratio = of_rows.get(row.key)
            if ratio is not None and ratio.logs:
                entry = row.first.entry
                place = digest([entry.host, entry.host_options, entry.selection, choice.key])
                places[place] = sum(ratio.logs) / len(ratio.logs)
    return _mean(list(places.values()), "place")


def _smallest(kinds: Sequence[Choice]) -> list[Choice]:
    """Return of each set-up the backbone's latency at the smallest batch."""
    chosen: dict[str, Choice] = {}
    for choice in kinds:
        if choice.scope == "backbone" and choice.mode == "latency":
            known = chosen.get(choice.setup.key)
            if known is None or choice.batch < known.batch:
                chosen[choice.setup.key] = choice
    return list(chosen.values())


def _mean(logs: Sequence[float], noun: str) -> GeometricMean | None:
    if not logs:
        return None
    formed = t_interval(logs) if len(logs) >= FEWEST else None
    interval = None
    if formed is not None:
        value, low, high = (math.exp(v) for v in formed)
        method = f"t over {len(logs)} {noun}s, of logarithms"
        interval = Interval(value=value, low=low, high=high, level=LEVEL, method=method)
    value = math.exp(sum(logs) / len(logs))
    return GeometricMean(value, interval, len(logs), counted(len(logs), noun))
