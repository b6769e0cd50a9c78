"""Joining arms with speed records: by the network and the input size, whatever the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bench.record import Record, digest
from leaderboard.arm import Arm, Setup


def with_speed(arms: list[Arm], speeds: Sequence[Record]) -> tuple[list[Arm], Setup | None]:
    """Join speed records by network and input size; the columns show one setup for all arms."""
    sizes = {arm.cost.input_size for arm in arms if arm.cost}
    common = next(iter(sizes)) if len(sizes) == 1 else None
    joined: list[Arm] = []
    counts: Counter[str] = Counter()
    latest: dict[str, Record] = {}
    for arm in arms:
        size = arm.cost.input_size if arm.cost else common
        newest: dict[tuple[str, str, int], Record] = {}
        for record in speeds:
            speed = record.speed
            if (
                speed
                and speed.input_size == size
                and speed.mode != "training_step"
                and swap_key(record) == swap_key(arm.first)
            ):
                newest[setup_key(record), speed.mode, speed.batch] = record
        counts.update({setup for setup, _, _ in newest})
        for (setup, _, _), record in newest.items():
            if setup not in latest or latest[setup].provenance.created < record.provenance.created:
                latest[setup] = record
        found = tuple(newest[k] for k in sorted(newest))
        joined.append(replace(arm, speeds=found, untimed=_untimed(arm, speeds, found)))
    if not latest:
        return joined, None
    # the setup of most arms, then the newest
    chosen = max(latest, key=lambda s: (counts[s], latest[s].provenance.created, s))
    latency = _batch(joined, chosen, "latency", smallest=True)
    throughput = _batch(joined, chosen, "throughput", smallest=False)
    return [
        replace(
            arm,
            latency=_pick(arm, chosen, "latency", latency),
            throughput=_pick(arm, chosen, "throughput", throughput),
        )
        for arm in joined
    ], Setup(chosen, latest[chosen])


def _untimed(arm: Arm, speeds: Sequence[Record], timed: Sequence[Record]) -> Record | None:
    """Return the last failure before mode and batch were known, if no later record was timed."""
    network = swap_key(arm.first)
    lost = [r for r in speeds if r.speed is None and swap_key(r) == network]
    if not lost or any(r.provenance.created > lost[-1].provenance.created for r in timed):
        return None
    return lost[-1]


def _pick(arm: Arm, setup: str, mode: str, batch: int | None) -> Record | None:
    for record in arm.speeds:
        speed = record.speed
        if speed and (speed.mode, speed.batch) == (mode, batch) and setup_key(record) == setup:
            return record
    return None


def _batch(arms: list[Arm], setup: str, mode: str, *, smallest: bool) -> int | None:
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
    return digest(
        [
            speed.protocol,
            speed.scope,
            speed.input_size,
            speed.dtype,
            speed.layout,
            speed.compiled,
            speed.device,
            speed.threads,
            record.machine.model_dump(),
        ]
    )
