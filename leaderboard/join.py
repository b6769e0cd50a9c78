"""Joining arms with speed records: by the network and the input size, whatever the task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.record import Record
from leaderboard.keys import arm_key, network_key, setup_key
from leaderboard.marks import disputed_times
from leaderboard.rows import Row, Setup


@dataclass(frozen=True)
class Time:
    """A speed record with the key of its set-up; None for a failure before that was known."""

    record: Record
    setup: str | None


Times = Mapping[str, Sequence[Time]]
"""Network, or arm of a board → its speed records, from the oldest to the newest."""


def network_times(ordered: Iterable[Record], scope: str) -> Times:
    """Return the speed records of one scope, 'backbone' or 'training', by their network.

    A failure before anything was known of its time is one of the backbone.
    """
    times: dict[str, list[Time]] = defaultdict(list)
    for record in ordered:
        of = record.speed.scope if record.speed else "backbone"
        if record.kind == "speed" and record.recipe is None and of == scope:
            times[network_key(record)].append(_time(record))
    return times


def board_times(ordered: Iterable[Record]) -> Times:
    """Return the speed records of one board, end to end, by their arm."""
    times: dict[str, list[Time]] = defaultdict(list)
    for record in ordered:
        times[arm_key(record)].append(_time(record))
    return times


def _time(record: Record) -> Time:
    return Time(record, setup_key(record) if record.speed else None)


def with_speed(
    rows: Sequence[Row], backbones: Times, steps: Times, whole: Times
) -> tuple[list[Row], Setup | None]:
    """Join rows with their speed; the columns show one setup for all rows.

    Args:
        rows: of one board.
        backbones: times of backbones; a row's are those of its network and input size.
        steps: training steps of backbones, likewise.
        whole: times of this board, end to end; a row's are those of its arm.
    """
    sizes = {row.cost.input_size for row in rows if row.cost}
    common = next(iter(sizes)) if len(sizes) == 1 else None
    found = []
    for row in rows:
        size = row.cost.input_size if row.cost else common
        alone = _fitting(backbones.get(network_key(row.first), ()), size)
        step = _fitting(steps.get(network_key(row.first), ()), size)
        found.append((alone, step, whole.get(arm_key(row.first), ())))
    every = [[t.record for times in of_row for t in times] for of_row in found]
    shared = {
        record.speed.run
        for row, records in zip(rows, every, strict=True)
        for record in records
        if row.baseline and record.speed
    }
    compared = {
        record.speed.run: record.entry.operator_sha256
        for records in every
        for record in records
        if record.speed and record.speed.verdict == "baseline"
    }
    counting = [
        [_counting(times, row, shared) for times in of_row]
        for row, of_row in zip(rows, found, strict=True)
    ]
    all_alone, all_steps, all_behind = (list(of_scope) for of_scope in zip(*counting, strict=True))
    setup = _setup(all_alone)
    latency = _column(all_alone, setup, "latency", smallest=True)
    throughput = _column(all_alone, setup, "throughput", smallest=False)
    training = _column(all_steps, _setup(all_steps), "training_step", smallest=False)
    end_to_end = _column(all_behind, _setup(all_behind), "latency", smallest=True)
    return [
        replace(
            row,
            speeds=(speeds := tuple(t.record for times in counting[i] for t in times)),
            earlier=tuple(r for r in every[i] if r.speed and all(r is not s for s in speeds)),
            disputed=disputed_times(every[i], compared),
            untimed=_untimed(found[i][0], all_alone[i]),
            untimed_end_to_end=_untimed(found[i][2], all_behind[i]),
            latency=latency[i],
            throughput=throughput[i],
            training=training[i],
            end_to_end=end_to_end[i],
        )
        for i, row in enumerate(rows)
    ], setup


def _fitting(times: Sequence[Time], size: tuple[int, int] | None) -> list[Time]:
    """Return the times at an input size, and those that failed before it was known."""
    return [t for t in times if not t.record.speed or t.record.speed.input_size == size]


def _counting(times: Iterable[Time], row: Row, shared: Container[str]) -> list[Time]:
    """Return the time of each setup, mode and batch that counts, given from the oldest on.

    That is the newest; but rather one of the operator's newest code, and of those rather one of a
    run in which the board's baseline was timed too: another has no ratio to it.
    """
    counting: dict[tuple[str, str, int], tuple[tuple[bool, bool], Time]] = {}
    for time in times:
        speed = time.record.speed
        if speed and time.setup:
            key = time.setup, speed.mode, speed.batch
            worth = not row.is_stale(time.record), speed.run in shared
            if key not in counting or worth >= counting[key][0]:
                counting[key] = worth, time
    return [counting[key][1] for key in sorted(counting)]


def _setup(by_row: Iterable[Sequence[Time]]) -> Setup | None:
    """Return the setup of most rows, then the newest."""
    counts: Counter[str] = Counter()
    latest: dict[str, Record] = {}
    for times in by_row:
        counts.update({time.setup for time in times if time.setup})
        for time in times:
            key, record = str(time.setup), time.record
            if key not in latest or latest[key].provenance.created < record.provenance.created:
                latest[key] = record
    if not latest:
        return None
    chosen = max(latest, key=lambda s: (counts[s], latest[s].provenance.created, s))
    return Setup(chosen, latest[chosen])


def _untimed(times: Sequence[Time], timed: Sequence[Time]) -> Record | None:
    """Return the last failure before mode and batch were known, if no later record was timed."""
    lost = [time.record for time in times if time.setup is None]
    if not lost or any(t.record.provenance.created > lost[-1].provenance.created for t in timed):
        return None
    return lost[-1]


def _column(
    by_row: Sequence[Sequence[Time]], setup: Setup | None, mode: str, *, smallest: bool
) -> list[Record | None]:
    """Return each row's time in this setup and mode, at the batch size that most rows have."""
    times = [
        {
            time.record.speed.batch: time.record
            for time in times
            if setup
            and time.setup == setup.key
            and time.record.speed
            and time.record.speed.mode == mode
        }
        for times in by_row
    ]
    counts = Counter(batch for records in times for batch in records)
    sign = -1 if smallest else 1  # of several the smallest, or the largest
    batch = max(counts, key=lambda batch: (counts[batch], sign * batch), default=None)
    return [None if batch is None else records.get(batch) for records in times]
