"""Joining arms with speed records: by the network and the input size, whatever the task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    all_alone, all_steps, all_behind, lost, disputed = [], [], [], [], []
    for row in rows:
        size = row.cost.input_size if row.cost else common
        alone = _fitting(backbones.get(network_key(row.first), ()), size)
        behind = whole.get(arm_key(row.first), ())
        all_alone.append(_newest(alone))
        step = _fitting(steps.get(network_key(row.first), ()), size)
        all_steps.append(_newest(step))
        all_behind.append(_newest(behind))
        disputed.append(disputed_times([t.record for t in (*alone, *step, *behind)]))
        lost.append((_untimed(alone, all_alone[-1]), _untimed(behind, all_behind[-1])))
    setup = _setup(all_alone)
    latency = _column(all_alone, setup, "latency", smallest=True)
    throughput = _column(all_alone, setup, "throughput", smallest=False)
    training = _column(all_steps, _setup(all_steps), "training_step", smallest=False)
    end_to_end = _column(all_behind, _setup(all_behind), "latency", smallest=True)
    return [
        replace(
            row,
            speeds=tuple(t.record for t in (*all_alone[i], *all_steps[i], *all_behind[i])),
            disputed=disputed[i],
            untimed=lost[i][0],
            untimed_end_to_end=lost[i][1],
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


def _newest(times: Iterable[Time]) -> list[Time]:
    """Return the newest time of each setup, mode and batch."""
    newest: dict[tuple[str, str, int], Time] = {}
    for time in times:
        speed = time.record.speed
        if speed and time.setup:
            newest[time.setup, speed.mode, speed.batch] = time
    return [newest[key] for key in sorted(newest)]


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
