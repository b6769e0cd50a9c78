"""A board in a few sentences, made by rule from its statistics.

What a card claims is wrong for at most 5 % of boards: that an arm is surely better or worse than
another (the pairs told apart by Holm over all pairs, at most 4 %; where the board was decided, that
the arm named the best is better than each other, at most 4 %), and that it is faster than the
baseline, slower, or at the same speed (by its ratio of times, at 1 % shared out among the arms
whose times are told). Everything else that it says is an estimate with its interval, or that
something is not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.record import Record
from bench.statistics.ratios import verdict
from leaderboard.rows import Board, Row
from leaderboard.show import Show
from leaderboard.times import Choice, Ratio, is_faster, record_of
from leaderboard.wording import capitalised, counted, listed, once_compared

TIMES = 0.01
"""How often what a card says of times may be wrong."""
NAMED = 4
"""So many arms that can't be told from the first one are named; of more, only the number."""
MUCH = 0.9
"""An answer is about an arm that takes at most so much of the time of one that may be as good."""


@dataclass(frozen=True)
class Claim:
    """One thing that a card says for sure of two arms, given by the keys of their rows."""

    of: str
    relation: Literal["better", "faster", "slower", "same"]
    """In score better, or in time faster, slower or the same within ±1 %."""
    to: str


@dataclass(frozen=True)
class Card:
    """The sentences of a board.

    Attributes:
        sentences: the answer; what can't be told from it and what is worse; what is missing.
        lead: key of the row that the answer is about; None where nothing has a score.
        claims: what the sentences say for sure.
    """

    sentences: tuple[str, ...]
    lead: str | None = None
    claims: tuple[Claim, ...] = ()

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join(self.sentences)


def card(board: Board, times: Mapping[str, Ratio], choice: Choice | None = None) -> Card:
    """Return the card of a board.

    The answer is about the arm with the best fitted mean among those that are surely better than
    the baseline; where there is none, it says so. Where another of them can't be told from it and
    takes surely less time, by a tenth or more, it is about that one.

    Args:
        board: with its statistics.
        times: ratios of the arms to the baseline, by the keys of their rows; see
            `leaderboard.times.ratios`.
        choice: which times these are.
    """
    if not board.pairs.order:
        return Card(_missing(board, times, choice))
    return _Writer(board, times, choice).card()


class _Writer:
    """Holds what the sentences of one card share."""

    def __init__(self, board: Board, times: Mapping[str, Ratio], choice: Choice | None) -> None:
        self.board, self.times, self.show = board, times, Show(board.metric)
        self.choice = choice
        self.rows = {row.key: row for row in board.rows}
        self.names = _names(board)
        base = board.baseline.key if board.baseline else None
        self.base = base if base in board.pairs.order else None
        surer = board.pairs.better(self.base) if self.base else []
        self.surer = bool(surer)
        # of arms that share the best mean the baseline leads
        first = board.baseline.rank if board.baseline and self.base else None
        best = self.base if self.base and first and first.place == 1 else board.pairs.order[0]
        self.lead, among = self._quicker(surer) if surer else (best, 1)
        self.others = [arm for arm in board.pairs.open(self.lead) if arm != self.base]
        told = [self.lead, *(self.others if len(self.others) <= NAMED else [])]
        told = [arm for arm in told if arm != self.base and arm in times]
        self.speeds = {arm: self._speed(arm, max(len(told), among)) for arm in told}

    def _quicker(self, surer: Sequence[str]) -> tuple[str, int]:
        """Return the arm that the answer is about, and among how many its time was looked at.

        Args:
            surer: the arms that are surely better than the baseline, the best mean first.
        """
        pairs, lead = self.board.pairs, surer[0]
        tied = [arm for arm in surer if arm in pairs.open(lead) and not pairs.better(arm)]
        for arm in tied:
            if arm in self.times and lead in self.times:
                one, other = self.times[arm], self.times[lead]
                if is_faster(one, other) and self._ratio(arm) <= MUCH * self._ratio(lead):
                    lead = arm
        return lead, 1 + len(tied)

    def _ratio(self, arm: str) -> float:
        """The time of an arm over the baseline's."""
        ratio = self.times[arm]
        if ratio.interval:
            return ratio.interval.value
        return math.exp(sum(ratio.logs) / len(ratio.logs)) if ratio.logs else 1.0

    def _speed(self, arm: str, count: int) -> Literal["faster", "slower", "same"] | None:
        """Judge the time of one of so many arms, so that all are right but for `TIMES`."""
        ratio = self.times[arm]
        judged = verdict(ratio.logs, level=TIMES / count) if ratio.known else None
        return None if judged == "unclear" else judged

    def card(self) -> Card:
        if self.show.nothing_learnt(row.scores for row in self.rows.values()):
            score = self._score(self.lead)
            answer = f"Nothing was learnt: every score is {score}. Longer training may help."
            return Card((answer, *_missing(self.board, self.times, self.choice)))
        missing = _missing(self.board, self.times, self.choice)
        sentences = [self._answer(), *self._others(), *missing]
        return Card(tuple(sentences), self.lead, tuple(self._claims()))

    def _claims(self) -> list[Claim]:
        claims = [Claim(arm, "better", self.lead) for arm in self.board.pairs.better(self.lead)]
        claims += [Claim(self.lead, "better", arm) for arm in self.board.pairs.worse(self.lead)]
        for arm, judged in self.speeds.items():
            if judged is not None and self.base is not None:
                claims.append(Claim(arm, judged, self.base))
        return claims

    def _answer(self) -> str:
        name, lead, score = self.names[self.lead], self.rows[self.lead], self._score(self.lead)
        if len(self.board.pairs.order) == 1:
            if sum(bool(row.scores) for row in self.board.rows) > 1:
                return f"{name} has {score}; no operator shares its seeds, so none can be compared."
            return f"{name} alone has a score, {score}: there is nothing to compare it with."
        tested = self.board.detectable is not None
        only = "" if tested else "The seeds are too few to tell any two operators apart. "
        if self.base is None:
            return f"{only}{name} has the best mean, {score}."
        if self.lead == self.base:
            if not tested:
                return f"{only}{name}, the baseline, has the best mean, {score}."
            return f"Nothing is surely better than {name}, the baseline, with {score}."
        assert lead.difference is not None
        change = self.show.change(lead.difference.value, lead.difference.interval)
        bounds = self.show.change_bounds(lead.difference.interval)
        bounds = f" {bounds}" if bounds else ""
        time, base = self._time_of_lead(), self.names[self.base]
        if self.surer:
            against = "over" if self.show.higher else "against"
            lower = "" if self.show.higher else " (lower is better)"
            return f"{name}: {change} {against} {base}{bounds}{lower}{time}."
        nothing = only or f"Nothing is surely better than {base}, the baseline. "
        compared = once_compared(lead.difference.interval)
        return (
            f"{nothing}{name} has the best mean{time}: {change} against {base}{bounds}, "
            f"which may be chance{compared}."
        )

    def _time_of_lead(self) -> str:
        """Say at what time the lead has its score, as the end of a sentence."""
        if self.lead not in self.times:
            return ""
        judged, share = self.speeds[self.lead], self._share(self.lead)
        if judged == "same":
            return " at the same speed"
        if judged is None and not self.times[self.lead].known:
            return " at a speed that is not clear"
        whose = "its" if self.surer else f"{self.names[str(self.base)]}'s"
        return f" at {share} {whose} time"

    def _others(self) -> list[str]:
        """Say what else may be as good, and what is surely worse."""
        pairs, sentences = self.board.pairs, []
        if len(pairs.order) == 1:
            return []
        name = self.names[self.lead]
        if better := pairs.better(self.lead):
            verb = "is" if len(better) == 1 else "are"
            sentences.append(f"{self._listed(better)} {verb} surely better still.")
        start = ""
        if not better and self.lead != self.base and (self.surer or self.base is None):
            start = f"Nothing is surely better than {name}"
        if self.board.detectable is None:
            return sentences  # the answer has said that none can be told apart
        if others := self.others:
            who = (
                self._listed(others, timed=True)
                if len(others) <= NAMED
                else f"{counted(len(others), 'other operator')}"
            )
            if start:
                sentences.append(f"{start}; {who} can't be told from it.")
            else:
                who = who if len(others) <= NAMED else capitalised(who)
                sentences.append(f"{who} can't be told from {name}.")
        elif start:
            sentences.append(f"{start}.")
        worse = pairs.worse(self.lead)
        worse = [arm for arm in worse if not (self.surer and arm == self.base)]
        if worse:
            verb = "is" if len(worse) == 1 else "are"
            who = (
                self._listed(worse)
                if len(worse) <= NAMED
                else f"{capitalised(counted(len(worse), 'operator'))}"
            )
            sentences.append(f"{who} {verb} surely worse than {name}.")
        return sentences

    def _listed(self, arms: Sequence[str], timed: bool = False) -> str:
        """Name arms, where wanted with their times: 'shift (1.9× the time of dwconv)'."""
        words, first = [], True
        for arm in arms:
            word, notes = self.names[arm], []
            if timed and self._is_first(arm) and not self._is_first(self.lead):
                notes.append("the best mean")
            if timed and arm in self.speeds and self.base is not None:
                base = f"the time of {self.names[self.base]}" if first else ""
                if self.speeds[arm] == "same":
                    whose = f" as {self.names[self.base]}" if first else ""
                    notes.append(f"the same speed{whose}")
                elif self.speeds[arm] is None and not self.times[arm].known:
                    notes.append("speed not clear")
                else:
                    notes.append(f"{self._share(arm)} {base}".strip())
                first = False
            if notes:
                word += f" ({', '.join(notes)})"
            words.append(word)
        return listed(words)

    def _is_first(self, arm: str) -> bool:
        """Whether no other arm has a better mean."""
        rank = self.rows[arm].rank
        return rank is not None and rank.place == 1

    def _share(self, arm: str) -> str:
        """The ratio of an arm's time, 'about' where it may as well be 1."""
        about = "" if self.speeds[arm] in ("faster", "slower") else "about "
        return f"{about}{self.show.times(self._ratio(arm))}"

    def _score(self, arm: str) -> str:
        unit = self.show.unit
        mean = self.show.score(self.rows[arm].mean)
        return f"{mean} %" if unit == "%" else f"{mean} {unit}".strip()


def _names(board: Board) -> dict[str, str]:
    """Return the name of each row; arms of one label are told apart by their number."""
    counts = Counter(row.label for row in board.rows)
    seen: Counter[str] = Counter()
    names = {}
    for row in board.rows:
        seen[row.label] += 1
        more = f" ({seen[row.label]})" if counts[row.label] > 1 else ""
        names[row.key] = f"{row.label}{more}"
    return names


def _missing(board: Board, times: Mapping[str, Ratio], choice: Choice | None) -> tuple[str, ...]:
    """Say which arms have no score, and why; which are not compared, not timed, or stale."""
    names = _names(board)

    def told(rows: Sequence[Row], one: str, several: str) -> list[str]:
        if not rows:
            return []
        who = listed([names[row.key] for row in rows])
        if len(rows) > NAMED:
            who = capitalised(counted(len(rows), "operator"))
        return [f"{who} {one if len(rows) == 1 else several}."]

    scoreless = [row for row in board.rows if not row.scores]
    unfit = [row for row in scoreless if row.unfit]
    failed = [row for row in scoreless if row not in unfit]
    unlinked = [row for row in board.rows if not row.linked]
    ranked = [row for row in board.rows if row.rank]
    untimed = [row for row in ranked if row.key not in times]
    took = {row.key: record_of(row, choice) if choice else None for row in untimed}
    unable = [row for row in untimed if _is_lost(row, took[row.key], choice)]
    beside = [row for row in untimed if took[row.key] and row not in unable]
    untimed = [row for row in untimed if row not in unable and row not in beside]
    stale = [row for row in ranked if row.stale]
    sentences = [
        *told(failed, "failed", "failed"),
        *told(unfit, "does not fit the host", "do not fit the host"),
        *told(unlinked, "shares no seeds with the others", "share no seeds with the others"),
    ]
    if times:
        sentences += told(untimed, "was not timed", "were not timed")
        sentences += told(unable, "could not be timed", "could not be timed")
        apart = "timed apart from the baseline"
        sentences += told(beside, f"was {apart}", f"were {apart}")
    elif len(ranked) > 1 and not any(row.speeds for row in ranked):
        sentences.append("Nothing was timed.")
    elif len(ranked) > 1:
        sentences.append("There is no time of a baseline to compare times with.")
    sentences += told(stale, "rests on older code", "rest on older code")
    timed = "timed with older code"
    old = [row for row in ranked if row.old_times and row not in stale]
    sentences += told(old, f"was {timed}", f"were {timed}")
    return tuple(sentences)


def _is_lost(row: Row, record: Record | None, choice: Choice | None) -> bool:
    """Whether a time failed, before or after its batch size was known."""
    if record is not None:
        return record.status != "ok"
    return choice is not None and row.lost_time(choice.scope) is not None
