"""What the page of a board shows: its table, cell by cell, and the same numbers as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bench.intervals import bounds
from bench.record import Interval
from leaderboard.families import colour
from leaderboard.front import Front
from leaderboard.names import entry_file, operator_file, operator_words
from leaderboard.rows import Board, Row, status_words
from leaderboard.show import MISSING, Show
from leaderboard.standing import Place, Standing, standing
from leaderboard.times import Choice, choices, in_short
from leaderboard.wording import first_line


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: short, for addresses.
        name: its heading.
        note: unit, and what it is compared with.
        explained: what it is, in a sentence.
        text: whether it holds words, not numbers.
        first: the order of the first click.
        shown: whether it is shown at first.
        choice: the time that it is about; it is shown with that time only.
    """

    key: str
    name: str
    note: str = ""
    explained: str = ""
    text: bool = False
    first: str = "ascending"
    shown: bool = True
    choice: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell: what it sorts by, what it says, what stands small below, and its tags."""

    value: float | int | str | None
    text: str
    note: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    class_: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    row: Row
    page: str
    operator_page: str
    operator: str
    colour: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class BoardView:
    """A board as its pages show it; each part is made when it is first asked for."""

    board: Board

    @cached_property
    def show(self) -> Show:
        """Shows its numbers."""
        return Show(self.board.metric)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The kinds of time that there are, the usual one first."""
        return tuple(choices(self.board))

    @cached_property
    def times(self) -> dict[str, str]:
        """Key of each kind of time → what it is called where one is chosen."""
        return in_short(self.choices)

    @cached_property
    def usual(self) -> Standing:
        """What the board opens with."""
        return standing(self.board, next(iter(self.choices), None))

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """One for each kind of time; a single one where nothing was timed."""
        return (self.usual, *(standing(self.board, choice) for choice in self.choices[1:]))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of its table."""
        return tuple(_columns(self.board, self.show, self.choices))

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The rows of its table, with every time."""
        return tuple(_line(self, self.standings, row) for row in self.board.rows)

    @property
    def baseline(self) -> str:
        """Label of the baseline, or nothing."""
        return self.board.baseline.label if self.board.baseline else ""


def choice_key(stand: Standing) -> str:
    """Key of a time in addresses; empty without a time."""
    return stand.choice.key if stand.choice else ""


def _columns(board: Board, show: Show, times: tuple[Choice, ...]) -> list[Column]:
    better = "descending" if board.metric and board.metric.higher_is_better else "ascending"
    base = board.baseline.label if board.baseline else ""
    columns = [
        Column("rank", "Rank", explained="By the fitted mean; below it the places left open."),
        Column("arm", "Operator", text=True),
        Column(
            "tie",
            "Tie",
            "same letter: tied",
            "Operators that share a letter can't be told apart.",
            text=True,
        ),
        Column(
            "score",
            show.metric_name(board.headline),
            ", ".join(filter(None, [show.unit, "mean"])),
            "Mean over the seeds, fitted where a seed is missing; below it the 95 % interval.",
            first=better,
        ),
    ]
    if base:
        columns.append(
            Column(
                "contrast",
                "Gain",
                f"{show.difference_unit} over {base}".strip(),
                f"The score minus that of {base}, seed by seed; below it the 95 % interval.",
                first=better,
            )
        )
    for index, choice in enumerate(times):
        columns += _time_columns(choice, base, usual=index == 0)
    return [
        *columns,
        Column("best", "Best?", "probability", "That its true score is the best of the board.",
               first="descending", shown=False),
        Column("params", "Weights", "number", shown=False),
        Column("macs", "MACs", "an image", "Multiply-accumulates of one image, by formula.",
               shown=False),
        Column("seeds", "Seeds", first="descending", shown=False),
        Column("form", "Form", "scored", "The form of the operator that was scored.", text=True,
               shown=False),
    ]  # fmt: skip


def _time_columns(choice: Choice, base: str, *, usual: bool) -> list[Column]:
    where = f"{choice.words}; {choice.where}"
    unit = "ms a batch" if choice.batch != 1 else "ms"
    columns = []
    if base:
        columns += [
            Column(f"ratio-{choice.key}", "Time", f"× {base}",
                   f"Time divided by {base}'s: {where}.", choice=choice.key, shown=usual),
            Column(f"front-{choice.key}", "On the front", "probability",
                   "That no other operator is both better and faster.", first="descending",
                   choice=choice.key, shown=usual),
        ]  # fmt: skip
    return [
        *columns,
        Column(f"time-{choice.key}", "Time", f"{unit}, batch {choice.batch}", f"{where}.",
               choice=choice.key, shown=usual and not base),
        Column(f"rate-{choice.key}", "Images a second", f"batch {choice.batch}", f"{where}.",
               first="descending", choice=choice.key, shown=False),
        Column(f"noise-{choice.key}", "Noise", "of the time", f"How steady the time was: {where}.",
               text=True, choice=choice.key, shown=False),
    ]  # fmt: skip


def _line(view: BoardView, stands: tuple[Standing, ...], row: Row) -> Line:
    board, show = view.board, view.show
    difference = row.difference
    within = difference.interval if difference else None
    contrast = (
        Cell(0.0, "baseline", class_="muted")
        if row.baseline and board.baseline
        else Cell(
            difference.value if difference else None,
            show.difference(difference.value if difference else None),
            show.difference_interval(within),
        )
    )
    cells = {
        "rank": Cell(
            row.rank.place if row.rank else None, show.rank(row.rank), show.rank_interval(row.rank)
        ),
        "tie": Cell(
            row.rank.letters if row.rank else "", row.rank.letters if row.rank else MISSING
        ),
        "score": _score(show, row),
        "contrast": contrast,
        "best": _probability(row.p_best),
        "params": _count(row.cost.params if row.cost else None),
        "macs": _count(row.cost.macs if row.cost else None),
        "seeds": Cell(len(row.scores), str(len(row.scores))),
        "form": Cell(row.first.entry.form, row.first.entry.form),
    }
    for stand in stands:
        if stand.choice:
            cells |= _times(show, stand, row)
    return Line(
        row=row,
        page=entry_file(board, row),
        operator_page=operator_file(row.first.entry.operator),
        operator=first_line(operator_words(row), 60),
        colour=colour(row.first.entry.operator),
        cells=cells,
    )


def _score(show: Show, row: Row) -> Cell:
    note = show.score_interval(row.interval) or ("one seed" if len(row.scores) == 1 else "")
    if (
        row.mean is not None
        and row.plain_mean is not None
        and abs(row.mean - row.plain_mean) > 1e-9
    ):
        note = f"{note} plain {show.score(row.plain_mean)}".strip()
    return Cell(row.mean, show.score(row.mean), note)


def _probability(value: float | None) -> Cell:
    return Cell(value, MISSING if value is None else show_probability(value))


def show_probability(value: float) -> str:
    """A probability in percent; never certain.

    Example:
        >>> show_probability(0.997), show_probability(0.42), show_probability(0.0)
        ('> 99 %', '42 %', '< 1 %')
    """
    if value > 0.99:
        return "> 99 %"
    return "< 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def front_words(front: Front) -> str:
    """The probability to be on the front; a range where unsteady times leave it open."""
    if abs(front.high - front.low) > 0.01:
        return f"{show_probability(front.low)} to {show_probability(front.high)}"
    return show_probability(front.probability)


def _count(value: int | None) -> Cell:
    return Cell(value, Show.count(value))


def _times(show: Show, stand: Standing, row: Row) -> dict[str, Cell]:
    assert stand.choice is not None
    place, key = stand.of(row), stand.choice.key
    speed = place.record.speed if place.record else None
    noise = (speed.noise or "") if speed else ""
    lost = place.record
    if lost is None:  # a failure before anything was known of the time
        lost = row.lost_time(stand.choice.scope)
    status = status_words(lost) if lost and lost.status != "ok" else ""
    stale = "stale" if place.record and row.is_stale(place.record) else ""
    return {
        f"ratio-{key}": _ratio(place, status, stale),
        f"front-{key}": _front(place),
        f"time-{key}": _time(show, speed.latency_median_ms if speed else None, status, stale),
        f"rate-{key}": _time(show, speed.images_per_second if speed else None, status, stale),
        f"noise-{key}": Cell(noise, noise or MISSING),
    }


def _ratio(place: Place, status: str, stale: str) -> Cell:
    if place.verdict == "baseline":
        return Cell(1.0, "baseline", class_=stale or "muted")
    if place.ratio is None:
        return _failed(status) if status else Cell(None, MISSING)
    shown = place.verdict in ("faster", "slower", "unclear")
    tags = ((place.verdict, place.verdict),) if shown and place.verdict else ()
    if place.old:
        tags, stale = (*tags, ("stale", "older baseline")), "stale"
    note = bounds(place.ratio.low, place.ratio.high, 2)
    return Cell(place.ratio.value, f"{place.ratio.value:.2f}×", note, tags, stale)


def _failed(status: str) -> Cell:
    return Cell(None, "", tags=(("failed", status),))


def _front(place: Place) -> Cell:
    if place.front is None:
        return Cell(None, MISSING)
    words = {"front": "yes", "maybe": "maybe", "no": "no"}[place.front.word]
    return Cell(place.front.probability, words, front_words(place.front), class_=place.front.word)


def _time(show: Show, time: Interval | None, status: str, stale: str) -> Cell:
    if status:
        return _failed(status)
    value = time.value if time else None
    return Cell(value, show.number(value), show.interval(time), class_=stale)
