"""What changed: the records of the last day against what stood on the boards before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.record import Record
from leaderboard.board_page import BoardView
from leaderboard.names import entry_file
from leaderboard.rows import Row, status_words

DAYS = 60
"""Days that the list shows."""


@dataclass(frozen=True)
class Change:
    """What became of an arm on a board.

    Attributes:
        kind: 'new', 'improved', 'worse', 'stale', 'failed' or 'unfit'.
        view: the board.
        row: the arm.
        page: its page.
        words: what changed, in a few words.
    """

    kind: str
    view: BoardView
    row: Row
    page: str
    words: str


def history_view(views: Sequence[BoardView], records: Iterable[Record]) -> dict[str, Any]:
    """Return the variables of `history.html`; all from the dates of the records."""
    days: dict[str, Counter[str]] = {}
    for record in records:
        of_day = days.setdefault(record.provenance.created[:10], Counter())
        if not _unfit(record):
            of_day[record.kind if record.status == "ok" else "failure"] += 1
    last = max(days, default=None)
    changes = [
        change
        for view in views
        for row in view.board.rows
        for change in _changes(view, row, last or "")
    ]
    return {
        "last": last,
        "before": sorted(days)[-2] if len(days) > 1 else None,
        "changes": {
            kind: [change for change in changes if change.kind == kind]
            for kind in ("new", "improved", "worse", "stale", "failed", "unfit")
        },
        "days": [(day, dict(days[day])) for day in sorted(days, reverse=True)[:DAYS]],
    }


def _changes(view: BoardView, row: Row, last: str) -> list[Change]:
    fresh = [r for r in row.records if r.provenance.created[:10] == last]
    page = entry_file(view.board, row)

    def change(kind: str, words: str) -> Change:
        return Change(kind, view, row, page, words)

    changes = []
    if row.stale:
        some = len(row.stale) < len(row.records)
        words = f"{len(row.stale)} of {len(row.records)} seeds" if some else ""
        changes.append(change("stale", words))
    if not fresh:
        return changes
    if lost := [r for r in fresh if r.status != "ok" and not _unfit(r)]:
        changes.append(change("failed", status_words(lost[0])))
    if row.unfit:
        changes.append(change("unfit", ""))
    older = [
        r
        for r in (*row.superseded, *row.records)
        if r.provenance.created[:10] < last and r.status == "ok"
    ]
    if not older and row.scores:
        return [
            *changes,
            change("new", f"{view.show.score(row.mean)}\u00a0{view.show.unit}".strip()),
        ]
    before, metric = _scores(older, view.board.headline), view.board.metric
    both = before.keys() & row.scores.keys()  # a seed that was added is no change
    if both and row.plain_mean is not None and metric is not None:
        gain = sum(row.scores[seed] - before[seed] for seed in both) / len(both)
        if gain:
            kind = "improved" if (gain > 0) == metric.higher_is_better else "worse"
            words = f"{view.show.difference(gain)} {view.show.difference_unit}"
            changes.append(change(kind, f"{words} to {view.show.score(row.plain_mean)}"))
    return changes


def _unfit(record: Record) -> bool:
    """Whether an arm takes no slot of the host, which is no failure."""
    return record.kind == "accuracy" and record.status == "unsupported"


def _scores(records: Iterable[Record], headline: str | None) -> dict[int, float]:
    """Return seed → what stood there, the newest of each."""
    newest: dict[int, float] = {}
    for record in sorted(records, key=lambda r: r.provenance.created):
        if record.recipe and record.accuracy and headline in record.accuracy.metrics:
            newest[record.recipe.seed] = record.accuracy.metrics[headline].value
    return newest
