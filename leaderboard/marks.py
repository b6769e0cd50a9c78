"""What changes what can be read of a row: stale, conflicting, missing, failed or noisy results."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.record import Record
from leaderboard.show import Show
from leaderboard.wording import STATUS, capitalised, counted, first_line, listed, moment

Kind = Literal[
    "stale", "conflict", "superseded", "missing", "stopped", "failed", "unfit", "noise", "fresh"
]


@dataclass(frozen=True)
class Mark:
    """One mark of a row, with a plain sentence."""

    kind: Kind
    text: str


def disputed_scores(
    counted_: Sequence[Record], older: Sequence[Record], headline: str | None, width: float | None
) -> tuple[tuple[Record, Record], ...]:
    """Return pairs (newer, older) of one identity whose scores disagree beyond their intervals.

    Args:
        counted_: the records that count.
        older: those that they supersede.
        headline: key of the metric.
        width: how far two scores of one arm and seed may lie apart by the board's residual; None
            without one, and then nothing can be said.
    """
    if width is None:
        return ()
    pairs = []
    for new in counted_:
        value = _score(new, headline)
        for old in older:
            other = _score(old, headline)
            if (
                old.identity == new.identity
                and value is not None
                and other is not None
                and abs(value - other) > width
            ):
                pairs.append((new, old))
    return tuple(pairs)


def _score(record: Record, headline: str | None) -> float | None:
    if record.status != "ok" or record.accuracy is None or headline is None:
        return None
    metric = record.accuracy.metrics.get(headline)
    return metric.value if metric else None


def disputed_times(
    times: Sequence[Record], compared: Mapping[str, str]
) -> tuple[tuple[Record, Record], ...]:
    """Return pairs (newer, older) of one identity whose intervals of time do not meet.

    What was compared with another baseline, or with other code of it, may well differ.

    Args:
        times: speed records of one arm, from the oldest to the newest.
        compared: speed run → hash of the code of its baseline, where that is on the board.
    """
    pairs: list[tuple[Record, Record]] = []
    last: dict[Hashable, Record] = {}
    for record in times:
        if record.speed is None:
            continue
        key = record.identity, record.speed.baseline, compared.get(record.speed.run)
        before = last.get(key)
        if before is not None and _apart(record, before):
            pairs.append((record, before))
        if record.status == "ok":
            last[key] = record
    return tuple(pairs)


def _apart(one: Record, other: Record) -> bool:
    """Whether two ratios to the baseline, or for want of them two times, do not meet."""
    if one.speed is None or other.speed is None:
        return False
    a, b = one.speed.ratio_to_baseline, other.speed.ratio_to_baseline
    if a is None or b is None:
        a, b = one.speed.latency_median_ms, other.speed.latency_median_ms
    return a is not None and b is not None and (a.low > b.high or b.low > a.high)


def unclear_for_noise(record: Record | None) -> bool:
    """Whether a time leaves the verdict open because of its noise."""
    speed = record.speed if record else None
    return (
        speed is not None
        and speed.noise in ("noisy", "unstable")
        and Show.verdict(speed) == "unclear"
    )


def seeds_of(records: Sequence[Record]) -> str:
    """Name the seeds of records: 'seed 0', 'seeds 0 and 2'."""
    seeds = sorted({record.recipe.seed for record in records if record.recipe})
    return f"seed{'' if len(seeds) == 1 else 's'} {listed([str(seed) for seed in seeds])}"


def fresh_start(records: Sequence[Record]) -> str | None:
    """Say which slots of an arm start fresh where its host starts from trained weights."""
    entries = [record.entry for record in records if record.entry.slots_carried is not None]
    if not entries or not entries[0].slots_swapped:
        return None
    carried, swapped = entries[0].slots_carried, entries[0].slots_swapped
    assert carried is not None
    if carried == swapped:
        return None
    which = f"{swapped - carried} of {swapped} slots" if carried else "all of its slots"
    return (
        f"The host starts from trained weights, the operator fresh in {which}: it does not contain "
        "the convolution that was there."
    )


def of_row(
    *,
    scored: bool,
    of: int,
    stale: Sequence[Record],
    superseded: Sequence[Record],
    failures: Sequence[Record],
    disputed: Sequence[tuple[Record, Record]],
    lacking: Sequence[int],
    stopped: str | None,
    old_times: Sequence[str],
    noisy: Sequence[str],
    start: str | None = None,
) -> tuple[Mark, ...]:
    """Return the marks of a row.

    Args:
        scored: whether any seed came through.
        of: how many records count.
        stale: those of older code of the operator.
        superseded: older results of the same seeds.
        failures: seeds that did not come through.
        disputed: pairs (newer, older) that disagree.
        lacking: seeds of the board that the arm was never run with.
        stopped: why a decision left it, in words, if one did.
        old_times: the columns of times of older code of the operator.
        noisy: the columns of times whose verdict is unclear because of noise.
        start: which of its slots start fresh in a host with trained weights, in words, if any do.
    """
    marks = []
    unfit = [record for record in failures if record.status == "unsupported"]
    failed = [record for record in failures if record.status != "unsupported"]
    if unfit:
        marks.append(Mark("unfit", f"Does not fit the host: {first_line(unfit[0].error)}"))
    if failed:
        status = sorted({STATUS[record.status] for record in failed})
        which = f": {seeds_of(failed)}" if scored else ""
        words = f"Failed ({listed(status)}){which}. {first_line(failed[0].error)}"
        marks.append(Mark("failed", words))
    if disputed:
        new, old = disputed[0]
        what = "Times" if new.kind == "speed" else "Scores"
        marks.append(
            Mark(
                "conflict",
                f"{what} of the same settings disagree beyond their intervals: "
                f"of {moment(new.provenance.created)} and {moment(old.provenance.created)}.",
            )
        )
    if stale:
        part = "" if len(stale) == of else f": {seeds_of(stale)}"
        marks.append(Mark("stale", f"Made with older code of the operator{part}."))
    if old_times:
        words = f"Timed with older code of the operator: {listed(list(old_times))}."
        marks.append(Mark("stale", words))
    if stopped:
        marks.append(Mark("stopped", stopped))
    elif lacking:
        plural = "" if len(lacking) == 1 else "s"
        marks.append(
            Mark("missing", f"Not run with seed{plural} {listed([str(s) for s in lacking])}.")
        )
    if noisy:
        marks.append(Mark("noise", f"Too noisy to judge: {listed(list(noisy))}."))
    if start:
        marks.append(Mark("fresh", start))
    if superseded:
        older = capitalised(counted(len(superseded), "older result"))
        marks.append(Mark("superseded", f"{older} replaced."))
    return tuple(marks)
