"""What a board is made of: rows, one per arm, with their records and numbers; its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from bench.record import Cost, Interval, Metric, Record
from bench.statistics.blocks import Difference
from bench.statistics.ranks import Pairs, Rank
from leaderboard.keys import code_key
from leaderboard.marks import Mark
from leaderboard.wording import STATUS, processor

ENGINES = {"compile": "compiled", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""What is said of a time by which it was run, unless that was torch as it is."""


def status_words(record: Record) -> str:
    """Return what is said of a record that is not ok: an arm without a slot is no failure."""
    unfit = record.kind == "accuracy" and record.status == "unsupported"
    return "does not fit" if unfit else STATUS.get(record.status, record.status)


@dataclass(frozen=True)
class Row:
    """One arm of a board with all its records, and what is shown of it."""

    key: str
    """Hash of what defines the arm on its board; part of the page's name."""
    code: Mapping[str, str]
    """`code_key` → hash of the newest code of the operator; what has another is stale."""
    records: tuple[Record, ...]
    """The newest accuracy record of each seed, failures included, in the order of seeds."""
    superseded: tuple[Record, ...]
    """Older results of the same seeds."""
    scores: dict[int, float]
    """Seed → headline metric, of the records that are ok."""
    mean: float | None = None
    """The fitted mean of the block design."""
    interval: Interval | None = None
    """Of the fitted mean, by the residual of the board."""
    linked: bool = True
    """Whether shared seeds link the arm with those that are ranked."""
    difference: Difference | None = None
    """To the baseline, in the block design of the board."""
    paired: Interval | None = None
    """To the baseline, by the shared seeds of these two arms alone."""
    rank: Rank | None = None
    p_best: float | None = None
    """Probability that its true score is the best of the arms that are linked with it."""
    speeds: tuple[Record, ...] = ()
    """The speed record of each setup, mode and batch that counts: see `leaderboard.join`."""
    earlier: tuple[Record, ...] = ()
    """The speed records that do not."""
    latency: Record | None = None
    throughput: Record | None = None
    end_to_end: Record | None = None
    """Latency from image to result, on images of the board with trained weights."""
    training: Record | None = None
    """Training steps of the backbone, as samples per second."""
    views: tuple[Record, ...] = ()
    """The newest view of each seed and kind of weights, trained before fresh."""
    decision: Record | None = None
    """Why it got no more seeds, where seeds were added until the board was decided."""
    studies: tuple[Record, ...] = ()
    """The newest record of each study that tuned it, or that it comes from."""
    untimed: Record | None = None
    """A failed time of the backbone without mode and batch, newer than any other of the arm."""
    untimed_end_to_end: Record | None = None
    """The same, end to end."""
    disputed: tuple[tuple[Record, Record], ...] = ()
    """Pairs of results, the newer first, of one identity that disagree beyond their intervals."""
    marks: tuple[Mark, ...] = ()
    """What changes what can be read of the row."""

    @cached_property
    def first(self) -> Record:
        """A record that stands for the arm: one that is ok and not stale, where there is one."""

        def worth(record: Record) -> tuple[bool, bool]:
            return record.status == "ok", not self.is_stale(record)

        return max(self.records, key=worth)  # of equals the first

    @property
    def label(self) -> str:
        """The arm's short name."""
        return self.first.entry.label

    @property
    def tuned(self) -> bool:
        """Whether a study chose some of its settings."""
        recipe = self.first.recipe
        return recipe is not None and bool(recipe.untuned or recipe.tuning_trials)

    @property
    def trials(self) -> int:
        """Trials of the study behind it: the budget of the tuning."""
        return self.first.recipe.tuning_trials if self.first.recipe else 0

    @property
    def stands_after(self) -> int:
        """Trials of the newest study of an arm as it was, if none was better; else 0."""
        if self.tuned or not self.studies or (study := self.studies[-1].study) is None:
            return 0
        found_better = any(trial.best and not trial.default for trial in study.trials)
        return 0 if found_better else len(study.trials)

    @property
    def baseline(self) -> bool:
        """Whether the other arms are compared with this one; a tuned arm never is the baseline."""
        records = (*self.records, *self.superseded)
        return not self.tuned and any(record.entry.baseline for record in records)

    @property
    def cost(self) -> Cost | None:
        """Parameters and MACs."""
        return next((r.cost for r in (self.first, *self.records) if r.cost), None)

    @property
    def failures(self) -> tuple[Record, ...]:
        """The seeds that did not come through."""
        return tuple(r for r in self.records if r.status != "ok")

    @property
    def unfit(self) -> bool:
        """Whether it has no score because it takes no slot of the host: that is no failure."""
        return not self.scores and all(r.status == "unsupported" for r in self.failures)

    def is_stale(self, record: Record) -> bool:
        """Whether a record of this arm is of older code of the operator.

        What nothing was measured with since, such as a study whose process saw no GPU, is not.
        """
        mine = record.entry.operator_sha256
        return self.code.get(code_key(record), mine) != mine

    @property
    def stale(self) -> tuple[Record, ...]:
        """The accuracy records that count and are of older code of the operator."""
        return tuple(r for r in self.records if self.is_stale(r))

    @property
    def columns(self) -> dict[str, Record | None]:
        """The times that stand in the columns of the board, by what they are."""
        return {
            "latency": self.latency,
            "throughput": self.throughput,
            "end to end": self.end_to_end,
            "training step": self.training,
        }

    @property
    def old_times(self) -> list[str]:
        """The columns whose times are of older code of the operator."""
        return [name for name, time in self.columns.items() if time and self.is_stale(time)]

    def lost_time(self, scope: str) -> Record | None:
        """Return the failed time of a scope that is newer than any other, if there is one."""
        return {"backbone": self.untimed, "end_to_end": self.untimed_end_to_end}.get(scope)

    @property
    def plain_mean(self) -> float | None:
        """The mean of the arm's own seeds."""
        return sum(self.scores.values()) / len(self.scores) if self.scores else None

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
        """The setup in a line, e.g. 'AMD EPYC, 2 threads, float32, channels last'."""
        return ", ".join(self._parts())

    @property
    def short(self) -> str:
        """The machine and its threads, e.g. 'AMD EPYC, 2 threads'."""
        return ", ".join(self._parts()[:2])

    def _parts(self) -> list[str]:
        speed, machine = self.speed.speed, self.speed.machine
        assert speed is not None
        where = machine.cpu if speed.device == "cpu" else (machine.gpu or speed.device)
        layout = {"fastest": "the faster layout"}.get(speed.layout, speed.layout.replace("_", " "))
        height, width = speed.input_size
        parts = [
            processor(where),
            f"{speed.threads} thread{'s' * (speed.threads != 1)}",
            speed.dtype,
            layout,
            *([] if speed.engine == "torch" else [ENGINES.get(speed.engine, speed.engine)]),
            *(["unfused"] if self.speed.entry.form == "training" else []),
            f"input {height}×{width}",
            f"{speed.processes} processes of {speed.rounds} rounds",
            f"protocol {speed.protocol}",
        ]
        if conditions := speed.conditions:
            parts += [
                *(["forms by the rule"] if conditions.forms == "rule" else []),
                f"blocks of {conditions.min_block_ms:g} ms",
                f"warm-up of {conditions.warmup_min_ms:g} to {conditions.warmup_cap_ms:g} ms",
                *(["TF32"] if conditions.tf32 else []),
            ]
        return parts


@dataclass(frozen=True)
class Board:
    """Arms that may be compared, in the order of their fitted means."""

    key: str
    first: Record
    """A record that stands for task, data, host, head and recipe."""
    headline: str | None
    metric: Metric | None
    """Unit and direction of the headline; its value means nothing here."""
    rows: tuple[Row, ...]
    setup: Setup | None = None
    seeds: tuple[int, ...] = ()
    baseline: Row | None = None
    pairs: Pairs = field(default_factory=Pairs)
    """The ranked arms, the best first, and which of them are told apart."""
    detectable: float | None = None
    """Difference of two arms that would be found four times out of five."""
    detectable_words: str = ""
    """What difference is found, and how many seeds would find less; empty without a test."""
    settings: tuple[tuple[str, str], ...] = ()
    """Settings, with their values, by which boards of the same task, data and host differ."""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """E.g. 'Classification on scenes'."""
        entry, data = self.first.entry, self.first.data
        task = entry.task[:1].upper() + entry.task[1:]
        return f"{task} on {data.name}" if data else task

    @property
    def looks(self) -> int:
        """How often its scores may have been looked at before seeds were no longer added."""
        most = [
            r.decision.decision.seeds_max for r in self.rows if r.decision and r.decision.decision
        ]
        return max(most, default=2) - 1

    def surely(self, row: Row) -> Literal["better", "worse"] | None:
        """Say whether an arm is told apart from the baseline, with all pairs compared."""
        if self.baseline is None:
            return None
        if (row.key, self.baseline.key) in self.pairs.apart:
            return "better"
        return "worse" if (self.baseline.key, row.key) in self.pairs.apart else None

    @property
    def whole(self) -> bool:
        """Whether every arm has every seed, so that fitted means are plain ones."""
        return all(row.scores.keys() == set(self.seeds) for row in self.rows if row.scores)
