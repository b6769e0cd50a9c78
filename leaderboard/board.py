"""Boards: accuracy records grouped into what may be compared, joined with their speed.

One board holds the arms that share task, data, host, head and recipe. One entry of it is an arm:
an operator with its options in a selection of slots, with a score per seed. Nothing is imputed:
what was not measured is None, and a failure is a row with its status and error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bench.record import Cost, Interval, Metric, Record, digest
from leaderboard import stats


@dataclass(frozen=True)
class Arm:
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
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    baseline: Arm | None
    detectable: float | None
    """Difference of two arms that would be found four times out of five."""
    setup: Setup | None
    notes: tuple[str, ...] = field(default=())

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


def boards(records: Iterable[Record]) -> list[Board]:
    """Group records into boards, in a fixed order whatever the order of the records."""
    ordered = sorted(records, key=lambda r: (r.provenance.created, r.filename))
    scored = [r for r in ordered if r.kind == "accuracy"]
    speeds = [r for r in ordered if r.kind == "speed" and r.speed and r.speed.scope == "backbone"]
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in scored:
        if record.data and record.recipe:
            groups[_board_key(record)].append(record)
    for record in scored:
        if not (record.data and record.recipe):  # it failed before its data were known
            place = _place(record)
            homes = [key for key, group in groups.items() if _place(group[0]) == place]
            for key in homes or [_board_key(record)]:
                groups[key].append(record)
    made = [_board(key, group, speeds) for key, group in groups.items()]
    return sorted(made, key=lambda b: (b.title, b.first.entry.host, b.key))


def _place(record: Record) -> list[Any]:
    entry = record.entry
    return [entry.task, entry.host, entry.host_options, entry.head]


def _board_key(record: Record) -> str:
    data, recipe = record.data, record.recipe
    return digest(
        [
            _place(record),
            # a seed in the options is what the replicates differ by
            data
            and [
                data.name,
                data.revision,
                data.files_sha256,
                data.split,
                {key: value for key, value in data.options.items() if key != "seed"},
            ],
            recipe and recipe.name,
        ]
    )


def _arm_key(record: Record) -> str:
    entry = record.entry
    return digest([entry.label, entry.form, _swap_key(record)])


def _swap_key(record: Record) -> str:
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


def _setup_key(record: Record) -> str:
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


def _board(key: str, records: list[Record], speeds: list[Record]) -> Board:
    ok = [r for r in records if r.status == "ok"]
    best_known = ok[-1] if ok else records[-1]
    headline = best_known.accuracy.headline if ok and best_known.accuracy else None
    metric = best_known.accuracy.metrics[headline] if headline and best_known.accuracy else None

    by_arm: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_arm[_arm_key(record)].append(record)
    arms = [_arm(arm_key, group, headline) for arm_key, group in sorted(by_arm.items())]

    notes = []
    baselines = [arm for arm in arms if arm.baseline]
    baseline = baselines[0] if len(baselines) == 1 else None
    if baseline is None:
        notes.append(
            f"{len(baselines) or 'No'} baseline{'s' * (len(baselines) != 1)} among the arms: "
            "no contrasts."
        )
    scores = {arm.key: arm.scores for arm in arms}
    fit = stats.Blocks(scores)
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    if fit.sd is None and fit.arms:
        notes.append("Too few seeds for a test: every arm is tied.")
    if metric:
        places = stats.ranks(
            scores,
            {arm.key: arm.mean for arm in arms if arm.mean is not None},
            metric.higher_is_better,
        )
        arms = [
            replace(
                arm,
                rank=places.get(arm.key),
                difference=fit.difference(arm.key, baseline.key) if baseline else None,
                paired=stats.paired_interval(arm.scores, baseline.scores)
                if baseline and arm is not baseline
                else None,
            )
            for arm in arms
        ]
    arms, setup = _with_speed(arms, speeds)
    arms.sort(key=lambda arm: _order(arm, metric))
    return Board(
        key=key,
        first=best_known,
        headline=headline,
        metric=metric,
        arms=tuple(arms),
        seeds=tuple(seeds),
        baseline=next((arm for arm in arms if baseline and arm.key == baseline.key), None),
        detectable=fit.detectable(),
        setup=setup,
        notes=tuple(notes),
    )


def _arm(key: str, records: list[Record], headline: str | None) -> Arm:
    """Take the newest record of each seed, of the newest code of the operator."""
    code = records[-1].entry.operator_sha256
    newest: dict[str, Record] = {}
    for record in records:  # the newest come last
        if record.entry.operator_sha256 == code:
            newest["" if record.recipe is None else str(record.recipe.seed)] = record
    if len(newest) > 1 and "" in newest and newest[""].status != "ok":
        # a failure without a seed is kept unless later results took its place
        later = [r for seed, r in newest.items() if seed]
        if max(r.provenance.created for r in later) >= newest[""].provenance.created:
            del newest[""]
    kept = sorted(newest.values(), key=lambda r: r.recipe.seed if r.recipe else -1)
    scores = {
        record.recipe.seed: record.accuracy.metrics[headline].value
        for record in kept
        if record.status == "ok"
        and record.accuracy
        and record.recipe
        and headline in record.accuracy.metrics
    }
    values = list(scores.values())
    return Arm(
        key=key,
        records=tuple(kept),
        superseded=tuple(r for r in records if not any(r is k for k in kept)),
        scores=scores,
        mean=sum(values) / len(values) if values else None,
        interval=stats.mean_interval(values),
    )


def _with_speed(arms: list[Arm], speeds: list[Record]) -> tuple[list[Arm], Setup | None]:
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
                and _swap_key(record) == _swap_key(arm.first)
            ):
                newest[_setup_key(record), speed.mode, speed.batch] = record
        counts.update({setup for setup, _, _ in newest})
        for (setup, _, _), record in newest.items():
            if setup not in latest or latest[setup].provenance.created < record.provenance.created:
                latest[setup] = record
        joined.append(replace(arm, speeds=tuple(newest[k] for k in sorted(newest))))
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


def _pick(arm: Arm, setup: str, mode: str, batch: int | None) -> Record | None:
    for record in arm.speeds:
        speed = record.speed
        if speed and (speed.mode, speed.batch) == (mode, batch) and _setup_key(record) == setup:
            return record
    return None


def _batch(arms: list[Arm], setup: str, mode: str, *, smallest: bool) -> int | None:
    """Batch size that most arms have in this mode; of several the smallest or the largest."""
    counts = Counter(
        record.speed.batch
        for arm in arms
        for record in arm.speeds
        if record.speed and record.speed.mode == mode and _setup_key(record) == setup
    )
    sign = -1 if smallest else 1
    return max(counts, key=lambda batch: (counts[batch], sign * batch), default=None)


def _order(arm: Arm, metric: Metric | None) -> tuple[float, float, float, str, str]:
    """By place, inside a tie group by speed, then by score; failures come last."""
    place = float(arm.rank.place) if arm.rank else float("inf")
    speed = arm.latency.speed if arm.latency else None
    time = speed.latency_median_ms.value if speed and speed.latency_median_ms else float("inf")
    sign = -1.0 if metric and metric.higher_is_better else 1.0
    score = sign * arm.mean if arm.mean is not None else float("inf")
    return place, time, score, arm.label, arm.key
