"""What a board is made of: arms with their records and numbers, and how speed was measured."""

from __future__ import annotations

from dataclasses import dataclass

from bench.record import Cost, Interval, Metric, Record
from leaderboard import stats


@dataclass(frozen=True)
class Row:
    """One arm of a board with all its records, and what is shown of it."""

    key: str
    """Hash of what defines the arm on its board; part of the page's name."""
    records: tuple[Record, ...]
    """The accuracy record that counts for each seed, failures included, in the order of seeds."""
    superseded: tuple[Record, ...]
    """Older results of the same seeds, or of older code of the operator."""
    scores: dict[int, float]
    """Seed → headline metric, of the records that are ok."""
    mean: float | None = None
    interval: Interval | None = None
    difference: stats.Difference | None = None
    """To the baseline, in the block design of the board."""
    paired: Interval | None = None
    """To the baseline, by the shared seeds of these two arms alone."""
    rank: stats.Rank | None = None
    speeds: tuple[Record, ...] = ()
    """The newest speed record of each setup, mode and batch."""
    latency: Record | None = None
    throughput: Record | None = None
    end_to_end: Record | None = None
    """Latency from image to result, on images of the board with trained weights."""
    views: tuple[Record, ...] = ()
    """The newest view of each seed and kind of weights, trained before fresh."""
    untimed: Record | None = None
    """A failed speed record that has no mode and batch, newer than any other of the arm."""

    @property
    def first(self) -> Record:
        """A record that stands for the arm: an ok one where there is one."""
        return next((r for r in self.records if r.status == "ok"), self.records[0])

    @property
    def label(self) -> str:
        """The arm's short name."""
        return self.first.entry.label

    @property
    def baseline(self) -> bool:
        """Whether the other arms are compared with this one."""
        return self.first.entry.baseline

    @property
    def cost(self) -> Cost | None:
        """Parameters and MACs."""
        return next((r.cost for r in (self.first, *self.records) if r.cost), None)

    @property
    def failures(self) -> tuple[Record, ...]:
        """The seeds that did not come through."""
        return tuple(r for r in self.records if r.status != "ok")

    @property
    def sampling_error(self) -> float | None:
        """Standard error of the headline from the finite scored set, the mean over seeds.

        More seeds on the same images do not make it smaller.
        """
        errors = [
            r.accuracy.sampling_error
            for r in self.records
            if r.accuracy and r.accuracy.sampling_error is not None
        ]
        return sum(errors) / len(errors) if errors else None


@dataclass(frozen=True)
class Setup:
    """How speed was measured: the machine and the settings that rows of one column share."""

    key: str
    speed: Record

    @property
    def words(self) -> str:
        """The setup in a line, e.g. 'CPU X, 2 threads, float32, channels_last'."""
        speed, machine = self.speed.speed, self.speed.machine
        assert speed is not None
        where = machine.cpu if speed.device == "cpu" else (machine.gpu or speed.device)
        height, width = speed.input_size
        parts = [
            where,
            f"{speed.threads} thread{'s' * (speed.threads != 1)}",
            speed.dtype,
            speed.layout,
            *(["compiled"] if speed.compiled else []),
            f"input {height}×{width}",
            f"{speed.processes} processes of {speed.rounds} rounds",
            f"protocol {speed.protocol}",
        ]
        if conditions := speed.conditions:
            parts += [
                f"blocks of {conditions.min_block_ms:g} ms",
                f"warm-up of {conditions.warmup_min_ms:g} to {conditions.warmup_cap_ms:g} ms",
                *(["TF32"] if conditions.tf32 else []),
            ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Board:
    """Arms that may be compared, in the order of their rank."""

    key: str
    first: Record
    """A record that stands for task, data, host, head and recipe."""
    headline: str | None
    metric: Metric | None
    """Unit and direction of the headline; its value means nothing here."""
    arms: tuple[Row, ...]
    seeds: tuple[int, ...]
    baseline: Row | None
    detectable: float | None
    """Difference of two arms that would be found four times out of five."""
    setup: Setup | None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """E.g. 'Classification on scenes'."""
        entry, data = self.first.entry, self.first.data
        task = entry.task[:1].upper() + entry.task[1:]
        return f"{task} on {data.name}" if data else task

    @property
    def slug(self) -> str:
        """Anchor of the board in the page."""
        return f"board-{self.key[:8]}"
