"""The times of a board that are looked at: which there are, and each arm's ratio to the baseline.

A board's networks may be timed on several machines, by several engines, at several batch sizes, as
backbones, end to end or in training; one of them at a time is set against the scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.hashing import digest
from bench.intervals import LEVEL, t_interval
from bench.record import Interval, Record
from bench.statistics.ratios import log_ratios, verdict
from leaderboard.keys import setup_key
from leaderboard.rows import Board, Row, Setup
from leaderboard.show import Show

SCOPES = {"backbone": "backbone", "end_to_end": "end to end", "training": "training step"}
SURE = 0.01
"""Level at which one arm is called faster than another."""
MODES = {"latency": "latency", "throughput": "throughput", "training_step": "samples per second"}


@dataclass(frozen=True)
class Choice:
    """One kind of time of a board: on one machine, in one scope and mode, at one batch size."""

    setup: Setup
    scope: str
    mode: str
    batch: int

    @property
    def key(self) -> str:
        """Short hash of it, for an address."""
        return digest([self.setup.key, self.scope, self.mode, self.batch])[:8]

    @property
    def words(self) -> str:
        """E.g. 'latency, batch 1, backbone'."""
        return f"{MODES[self.mode]}, batch {self.batch}, {SCOPES[self.scope]}"

    @property
    def where(self) -> str:
        """Machine and settings in a line."""
        return self.setup.words


@dataclass(frozen=True)
class Ratio:
    """Time of an arm / time of the board's baseline, in one speed run.

    Attributes:
        record: the speed record behind it.
        run: id of the speed run.
        logs: log-ratio of each process.
        interval: None with one process; a baseline has none.
        verdict: as the record has it, `unclear` where times are unstable.
        known: whether the times are steady and in more than one process, so that the interval can
            be believed.
        old: whether the baseline's time in this run is of older code of it.
    """

    record: Record
    run: str
    logs: tuple[float, ...]
    interval: Interval | None
    verdict: str | None
    known: bool = field(default=True)
    old: bool = False


def choices(board: Board) -> list[Choice]:
    """Return the kinds of times that the arms of a board have, the usual one first.

    That is the backbone's, in the set-up of the board's columns, then by how many arms have it,
    latency before throughput, small batches first.
    """
    counts: Counter[tuple[str, str, str, int]] = Counter()
    newest: dict[str, Record] = {}
    for row in board.rows:
        for record in row.speeds:
            if record.speed is None or record.speed.scope not in SCOPES:
                continue
            setup = setup_key(record)
            counts[setup, record.speed.scope, record.speed.mode, record.speed.batch] += 1
            known = newest.get(setup)
            if known is None or known.provenance.created < record.provenance.created:
                newest[setup] = record
    usual = board.setup.key if board.setup else None
    scopes, modes = list(SCOPES), list(MODES)

    def order(kind: tuple[str, str, str, int]) -> tuple[int, bool, int, int, int, str]:
        setup, scope, mode, batch = kind
        place = scopes.index(scope)
        return place, setup != usual, -counts[kind], modes.index(mode), batch, setup

    return [
        Choice(Setup(setup, newest[setup]), scope, mode, batch)
        for setup, scope, mode, batch in sorted(counts, key=order)
    ]


def in_short(kinds: Sequence[Choice]) -> dict[str, str]:
    """Return key → words of times that one chooses among; those alike have all their settings."""
    words = {choice.key: f"{choice.words}; {choice.setup.short}" for choice in kinds}
    counts = Counter(words.values())
    return {
        choice.key: words[choice.key]
        if counts[words[choice.key]] == 1
        else f"{choice.words}; {choice.where}"
        for choice in kinds
    }


def record_of(row: Row, choice: Choice) -> Record | None:
    """Return the row's speed record of this kind, failed or not."""
    return next((record for record in row.speeds if _is_of(record, choice)), None)


def _is_of(record: Record, choice: Choice) -> bool:
    speed = record.speed
    return (
        speed is not None
        and (speed.scope, speed.mode, speed.batch) == (choice.scope, choice.mode, choice.batch)
        and setup_key(record) == choice.setup.key
    )


def ratios(board: Board, choice: Choice) -> dict[str, Ratio]:
    """Return the ratio of each row that has one, by its key; the baseline's own is 1.

    A ratio is formed inside one speed run only, in which the very network of the board's baseline
    was timed. Where the run compared with another arm, the baseline's own ratio is divided out.
    """
    if board.baseline is None:
        return {}
    bases = _by_run(board.baseline, choice)
    found: dict[str, Ratio] = {}
    for row in board.rows:
        record = record_of(row, choice)
        logs = _logs(record)
        if record is None or record.speed is None or logs is None:
            continue
        base = bases.get(record.speed.run)
        if row.key == board.baseline.key:
            found[row.key] = Ratio(record, record.speed.run, (), None, "baseline")
        elif base is not None and (ratio := _ratio(record, logs, base)) is not None:
            found[row.key] = replace(ratio, old=board.baseline.is_stale(base))
    return found


def _by_run(row: Row, choice: Choice) -> dict[str, Record]:
    """Return speed run → the row's record of this kind in it."""
    return {
        record.speed.run: record
        for record in (*row.earlier, *row.speeds)
        if record.speed and _is_of(record, choice)
    }


def faster(ratios: Mapping[str, Ratio]) -> set[tuple[str, str]]:
    """Return the pairs (one, other) of rows of which the one is surely faster."""
    return {
        (one, other)
        for one, a in ratios.items()
        for other, b in ratios.items()
        if one != other and is_faster(a, b)
    }


def is_faster(one: Ratio, other: Ratio) -> bool:
    """Whether an arm is surely faster than another, at 1 %.

    Two arms are compared inside one speed run, by the processes that they share.
    """
    if one.run != other.run or not (one.known and other.known):
        return False
    count = len(one.logs or other.logs)  # the baseline has none: its own are zero
    x, y = one.logs or (0.0,) * count, other.logs or (0.0,) * count
    if len(x) != len(y):
        return False
    return verdict([i - j for i, j in zip(x, y, strict=True)], level=SURE) == "faster"


def _ratio(record: Record, logs: list[float], base: Record) -> Ratio | None:
    speed = record.speed
    assert speed is not None
    assert base.speed is not None
    known = speed.noise != "unstable" and len(logs) > 1
    if record is base:  # e.g. of a tuned recipe in the baseline's own network
        one = Interval(value=1, low=1, high=1, level=LEVEL, method="the baseline's own network")
        return Ratio(record, speed.run, tuple(logs), one, "same", known)
    if base.speed.verdict != "baseline":
        others = _logs(base)
        if others is None or len(others) != len(logs):
            return None
        known = known and base.speed.noise != "unstable"
        return _formed(record, [a - b for a, b in zip(logs, others, strict=True)], known)
    return Ratio(
        record, speed.run, tuple(logs), speed.ratio_to_baseline, Show.verdict(speed), known
    )


def _formed(record: Record, logs: Sequence[float], known: bool) -> Ratio:
    assert record.speed is not None
    formed = t_interval(logs)
    interval = None
    if formed is not None:
        value, low, high = (math.exp(v) for v in formed)
        method = f"t over {len(logs)} processes, of logarithms"
        interval = Interval(value=value, low=low, high=high, level=LEVEL, method=method)
    judged = verdict(logs) if known else formed and "unclear"
    return Ratio(record, record.speed.run, tuple(logs), interval, judged, known)


def _logs(record: Record | None) -> list[float] | None:
    """Return the log-ratio of each process to the arm that the run compared with."""
    if record is None or record.speed is None or record.status != "ok":
        return None
    times, others = record.speed.samples_ms, record.speed.baseline_samples_ms
    if not times or [len(t) for t in times] != [len(t) for t in others] or not all(times):
        return None
    return log_ratios(times, others)
