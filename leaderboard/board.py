"""Boards: accuracy records grouped into what may be compared, joined with their speed.

One board holds the arms that share task, data, host, head and recipe. One entry of it is an arm:
an operator with its options in a selection of slots, with a score per seed. Nothing is imputed:
what was not measured is None, and a failure is a row with its status and error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from bench.hashing import digest
from bench.record import Metric, Record
from leaderboard import stats
from leaderboard.join import swap_key, with_speed
from leaderboard.rows import Board, Row


def boards(records: Iterable[Record]) -> list[Board]:
    """Group records into boards, in a fixed order whatever the order of the records."""
    ordered = sorted(records, key=lambda r: (r.provenance.created, r.filename))
    scored = [r for r in ordered if r.kind == "accuracy"]
    views = [r for r in ordered if r.kind == "view"]
    speeds = [
        r
        for r in ordered
        if r.kind == "speed" and (r.speed.scope == "backbone" if r.speed else r.status != "ok")
    ]
    whole: dict[str, list[Record]] = defaultdict(list)
    for record in ordered:
        if record.speed and record.speed.scope == "end_to_end":
            whole[_board_key(record)].append(record)
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
    made = [
        _board(key, group, speeds, whole[key], [view for view in views if _board_key(view) == key])
        for key, group in groups.items()
    ]
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
    return digest([entry.label, entry.form, swap_key(record)])


def _board(
    key: str,
    records: list[Record],
    speeds: list[Record],
    whole: list[Record],
    views: list[Record],
) -> Board:
    ok = [r for r in records if r.status == "ok"]
    best_known = ok[-1] if ok else records[-1]
    headline = best_known.accuracy.headline if ok and best_known.accuracy else None
    metric = best_known.accuracy.metrics[headline] if headline and best_known.accuracy else None

    by_arm: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_arm[_arm_key(record)].append(record)
    seen: dict[str, list[Record]] = defaultdict(list)
    for view in views:
        seen[_arm_key(view)].append(view)
    arms = [
        replace(_arm(arm_key, group, headline), views=_views(seen[arm_key], group))
        for arm_key, group in sorted(by_arm.items())
    ]

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
    arms, setup = with_speed(arms, speeds, whole)
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


def _arm(key: str, records: list[Record], headline: str | None) -> Row:
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
    return Row(
        key=key,
        records=tuple(kept),
        superseded=tuple(r for r in records if not any(r is k for k in kept)),
        scores=scores,
        mean=sum(values) / len(values) if values else None,
        interval=stats.mean_interval(values),
    )


def _views(views: list[Record], records: list[Record]) -> tuple[Record, ...]:
    """Take the newest view of each seed and kind of weights, of the newest code of the operator."""
    code = records[-1].entry.operator_sha256
    newest: dict[tuple[bool, int], Record] = {}
    for record in views:  # the newest come last
        if record.view and record.recipe and record.entry.operator_sha256 == code:
            newest[record.view.weights == "fresh", record.recipe.seed] = record
    return tuple(newest[key] for key in sorted(newest))


def _order(arm: Row, metric: Metric | None) -> tuple[float, float, float, str, str]:
    """By place, inside a tie group by speed, then by score; failures come last."""
    place = float(arm.rank.place) if arm.rank else float("inf")
    speed = arm.latency.speed if arm.latency else None
    time = speed.latency_median_ms.value if speed and speed.latency_median_ms else float("inf")
    sign = -1.0 if metric and metric.higher_is_better else 1.0
    score = sign * arm.mean if arm.mean is not None else float("inf")
    return place, time, score, arm.label, arm.key
