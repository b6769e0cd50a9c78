"""What some records change on the boards, as Markdown: for a pull request and its reader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bench.record import Record
from leaderboard.board import boards
from leaderboard.names import host_words
from leaderboard.rows import Board, Row
from leaderboard.show import MISSING, Show
from leaderboard.standing import Standing, standing
from leaderboard.wording import capitalised, counted

HEADER = ("operator", "seeds", "score before", "score", "to the baseline", "time")
LONGEST = 80


def changes(before: Iterable[Record], after: Iterable[Record]) -> str:
    """Return what is new, different or gone on the boards of two sets of records.

    Nothing of the records acts in it: whatever is not a word is written as a character's number.

    Args:
        before: records as they are published.
        after: all records as they would be.
    """
    old = {board.key: board for board in boards(before)}
    new = {board.key: board for board in boards(after)}
    sections = [section for board in new.values() for section in _section(board, old)]
    gone = [board for key, board in old.items() if key not in new]
    sections += [f"**Gone:** {_heading(board)}" for board in gone]
    if not sections:
        return "No board changes.\n"
    return "\n\n".join(sections) + "\n"


def _section(board: Board, old: dict[str, Board]) -> Iterator[str]:
    """Yield the section of a board, if there is anything to say of it."""
    known = old.get(board.key)
    stand = standing(board)
    before = _all_cells(standing(known)) if known else {}
    after = _all_cells(stand)
    changed = [row for row in board.rows if before.get(row.key) != after[row.key]]
    gone = [row for row in known.rows if row.key not in after] if known else []
    if not changed and not gone:
        return
    lines = [f"### {_heading(board)}{'' if known else ' (new)'}", ""]
    lines += [plain(stand.card.text, 1000), ""]
    lines += [_line(HEADER), _line(["---"] * len(HEADER))]
    for row in changed:
        name, seeds, score, contrast, time = after[row.key]
        earlier = before[row.key][2] if row.key in before else "new"
        lines.append(_line([name, seeds, earlier, score, contrast, time]))
    lines += [_line([_name(row), "gone", *[MISSING] * (len(HEADER) - 2)]) for row in gone]
    same = len(board.rows) - len(changed)
    if same:
        verb = "stays as it was" if same == 1 else "stay as they were"
        lines += ["", f"{capitalised(counted(same, 'other operator'))} {verb}."]
    yield "\n".join(lines)


def _heading(board: Board) -> str:
    return plain(f"{board.title}, {host_words(board)}")


def _name(row: Row) -> str:
    return plain(row.label) + (" (baseline)" if row.baseline else "")


def _all_cells(stand: Standing) -> dict[str, tuple[str, str, str, str, str]]:
    return {row.key: _cells(stand, row) for row in stand.board.rows}


def _cells(stand: Standing, row: Row) -> tuple[str, str, str, str, str]:
    """Return what is said of an arm: name, seeds, score, contrast to the baseline, time."""
    show = Show(stand.board.metric)
    failed = sum(record.status != "unsupported" for record in row.failures)
    seeds = str(len(row.scores)) + (f", {failed} failed" if failed else "")
    seeds += ", does not fit" if row.unfit else ""
    score = show.score(row.mean) + (f" {plain(show.unit)}" if row.mean is not None else "")
    difference = row.difference
    contrast = MISSING
    if difference is not None and not row.baseline:
        bounds = show.change_bounds(difference.interval).strip("[]").replace(", ", " to ")
        change = plain(show.change(difference.value, difference.interval))
        contrast = f"{change} ({bounds})" if bounds else change
    ratio = stand.of(row).ratio
    return _name(row), seeds, score, contrast, show.times(ratio.value) if ratio else MISSING


def plain(text: str, length: int = LONGEST) -> str:
    """Return text that Markdown and HTML show as it is, shortened, on one line.

    Example:
        >>> plain("acb: 0.5 %"), plain("a|b <b>@you</b>", 6)
        ('acb&#58; 0.5 %', 'a&#124;b &#60;b')
    """
    line = " ".join(text.split())
    line = line if len(line) <= length else line[:length]
    acts = r"[^\w ,.;%()=+×−—-]|_|\.(?=[^\W\d])"  # a point before a letter makes an address
    # Mentions and references are looked for in the text that is shown: a mark without width
    # parts them from what they would name.
    apart = {"@": "&#8203;", "#": "&#8203;"}
    return re.sub(acts, lambda m: f"&#{ord(m[0])};{apart.get(m[0], '')}", line)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
