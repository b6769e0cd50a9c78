"""Joining arms with speed records: by the network and the input size, whatever the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.hashing import digest
from bench.record import Record
from leaderboard.rows import Row, Setup


def with_speed(
    arms: list[Row], speeds: Sequence[Record], whole: Sequence[Record]
) -> tuple[list[Row], Setup | None]:
    """Join arms with their speed; the columns show one setup for all arms.

    Args:
        arms: of one board.
        speeds: records of backbones; an arm's are those of its network and input size.
        whole: records of this board, end to end; an arm's are those of its network.
    """
    sizes = {arm.cost.input_size for arm in arms if arm.cost}
    common = next(iter(sizes)) if len(sizes) == 1 else None
    joined = []
    for arm in arms:
        size = arm.cost.input_size if arm.cost else common
        network = swap_key(arm.first)
        alone = _newest(
            r for r in speeds if r.speed and r.speed.input_size == size and swap_key(r) == network
        )
        behind = _newest(r for r in whole if swap_key(r) == network)
        untimed = _untimed(arm, speeds, alone)
        joined.append(replace(arm, speeds=(*alone, *behind), untimed=untimed))
    last = _setup(joined, "end_to_end")
    if last:
        batch = _batch(joined, last.key, "latency", smallest=True)
        joined = [replace(a, end_to_end=_pick(a, last.key, "latency", batch)) for a in joined]
    setup = _setup(joined, "backbone")
    if setup is None:
        return joined, None
    latency = _batch(joined, setup.key, "latency", smallest=True)
    throughput = _batch(joined, setup.key, "throughput", smallest=False)
    return [
        replace(
            arm,
            latency=_pick(arm, setup.key, "latency", latency),
            throughput=_pick(arm, setup.key, "throughput", throughput),
        )
        for arm in joined
    ], setup


def _newest(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the newest record of each setup, mode and batch; the newest come last."""
    newest: dict[tuple[str, str, int], Record] = {}
    for record in records:
        speed = record.speed
        if speed and speed.mode != "training_step":
            newest[setup_key(record), speed.mode, speed.batch] = record
    return tuple(newest[key] for key in sorted(newest))


def _setup(arms: Sequence[Row], scope: str) -> Setup | None:
    """Return the setup of most arms, then the newest."""
    counts: Counter[str] = Counter()
    latest: dict[str, Record] = {}
    for arm in arms:
        found = [r for r in arm.speeds if r.speed and r.speed.scope == scope]
        counts.update({setup_key(record) for record in found})
        for record in found:
            key = setup_key(record)
            if key not in latest or latest[key].provenance.created < record.provenance.created:
                latest[key] = record
    if not latest:
        return None
    chosen = max(latest, key=lambda s: (counts[s], latest[s].provenance.created, s))
    return Setup(chosen, latest[chosen])


def _untimed(arm: Row, speeds: Sequence[Record], timed: Sequence[Record]) -> Record | None:
    """Return the last failure before mode and batch were known, if no later record was timed."""
    network = swap_key(arm.first)
    lost = [r for r in speeds if r.speed is None and swap_key(r) == network]
    if not lost or any(r.provenance.created > lost[-1].provenance.created for r in timed):
        return None
    return lost[-1]


def _pick(arm: Row, setup: str, mode: str, batch: int | None) -> Record | None:
    for record in arm.speeds:
        speed = record.speed
        if speed and (speed.mode, speed.batch) == (mode, batch) and setup_key(record) == setup:
            return record
    return None


def _batch(arms: list[Row], setup: str, mode: str, *, smallest: bool) -> int | None:
    """Batch size that most arms have in this mode; of several the smallest or the largest."""
    counts = Counter(
        record.speed.batch
        for arm in arms
        for record in arm.speeds
        if record.speed and record.speed.mode == mode and setup_key(record) == setup
    )
    sign = -1 if smallest else 1
    return max(counts, key=lambda batch: (counts[batch], sign * batch), default=None)


def swap_key(record: Record) -> str:
    """Hash of the network: host, operator, options and slots, whatever the task."""
    entry = record.entry
    return digest(
        [
            entry.host,
            entry.host_options,
            entry.operator,
            entry.operator_options,
            entry.selection,
            entry.mix,
        ]
    )


def setup_key(record: Record) -> str:
    """Hash of machine and settings, which rows of one column share."""
    speed = record.speed
    assert speed is not None
    return digest([*speed.setting, record.machine.model_dump()])
