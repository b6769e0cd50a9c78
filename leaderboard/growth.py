"""How the cost of an operator grows: its exact forms against the side of the map, or the kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.hashing import canonical
from bench.record import Interval, Record

Axis = Literal["size", "kernel_size"]
NAMES: dict[Axis, str] = {"size": "side of the map", "kernel_size": "side of the kernel"}


@dataclass(frozen=True)
class Growth:
    """Times of one operator's exact forms along an axis, all else equal.

    Attributes:
        operator: its label.
        axis: what varies.
        batch: images in an inference.
        place: the rest of the layer's place, e.g. {"channels": 64, "kernel_size": 7, "stride": 1}.
        first: a record of them, for machine and settings.
        forms: form → value on the axis in pixels → time of one inference in ms. At each value the
            median of the rule's form, times the ratio to it: its interval is that of the ratio,
            since the pace of the machine, which all forms share, tells nothing of them.
    """

    operator: str
    axis: Axis
    batch: int
    place: Mapping[str, int]
    first: Record
    forms: Mapping[str, Mapping[int, Interval]]

    @property
    def values(self) -> list[int]:
        """The values on the axis, in pixels."""
        return sorted({value for points in self.forms.values() for value in points})

    def fastest(self, value: int) -> list[str]:
        """Return the forms that nothing is surely faster than, at a value; the quickest first.

        A form is surely slower where its interval lies above that of another.
        """
        times = {form: points[value] for form, points in self.forms.items() if value in points}
        least = min((time.high for time in times.values()), default=0.0)
        able = [form for form, time in times.items() if time.low <= least]
        return sorted(able, key=lambda form: times[form].value)

    @property
    def crossings(self) -> list[tuple[int, int, list[str]]]:
        """Stretches of the axis with the forms that are the fastest there: from, to, forms.

        A stretch goes on as long as one form is among the fastest at all of its values.
        """
        stretches: list[tuple[int, int, list[str]]] = []
        for value in self.values:
            able = self.fastest(value)
            if stretches and (common := [f for f in stretches[-1][2] if f in able]):
                stretches[-1] = stretches[-1][0], value, common
            else:
                stretches.append((value, value, able))
        return stretches

    @property
    def words(self) -> str:
        """The crossings in a sentence."""
        parts = []
        for start, end, forms in self.crossings:
            at = f"{start}" if start == end else f"{start} to {end}"
            parts.append(f"{' or '.join(forms)} at {at}")
        along = f"{self.operator}, batch {self.batch}, {NAMES[self.axis]}"
        return f"{along}: fastest is {', then '.join(parts)}."


def growths(records: Iterable[Record]) -> list[Growth]:
    """Return the curves of all records of exact forms that have two values or more on an axis.

    Only times of one machine and setting share a curve; of equal records the newest counts. A
    record may lie on two curves, where a range of sides and one of kernels cross.
    """
    newest: dict[str, Record] = {}
    for record in records:
        if record.entry.exact_form is not None and record.status == "ok":
            known = newest.get(record.identity)
            if known is None or record.provenance.created > known.provenance.created:
                newest[record.identity] = record
    families: dict[tuple[Axis, str], list[Record]] = defaultdict(list)
    for record in newest.values():
        for axis in NAMES:
            families[axis, canonical(_all_but(axis, record))].append(record)
    every = [_growth(family, axis) for (axis, _), family in sorted(families.items())]
    return [growth for growth in every if len(growth.values) > 1]


def _all_but(axis: Axis, record: Record) -> dict[str, Any]:
    """What the points of a curve share."""
    speed = record.speed
    assert speed is not None
    place = {k: v for k, v in record.entry.host_options.items() if k != axis}
    return {
        "operator": [record.entry.operator, record.entry.operator_options],
        "code": record.entry.operator_sha256,
        "place": place,
        "how": [speed.protocol, speed.batch, speed.dtype, speed.device, speed.threads],
        "conditions": speed.conditions and speed.conditions.known(),
        "machine": record.machine.model_dump(),
    }


def _growth(records: list[Record], axis: Axis) -> Growth:
    forms: dict[str, dict[int, Interval]] = defaultdict(dict)
    ordered = sorted(records, key=lambda r: (r.entry.host_options[axis], not r.entry.baseline))
    base: dict[str, Interval] = {}
    for record in ordered:
        speed, form = record.speed, record.entry.exact_form
        if speed is None or form is None or speed.latency_median_ms is None:
            continue
        if record.entry.baseline:
            base[speed.run] = speed.latency_median_ms
        time = _against(base.get(speed.run), speed.ratio_to_baseline, record.entry.baseline)
        if time is not None:
            forms[form][record.entry.host_options[axis]] = time
    first = ordered[0]
    place = {k: v for k, v in first.entry.host_options.items() if k != axis}
    label = first.entry.label.removesuffix(f" ({first.entry.exact_form})")
    assert first.speed is not None
    return Growth(label, axis, first.speed.batch, place, first, forms)


def _against(base: Interval | None, ratio: Interval | None, is_base: bool) -> Interval | None:
    """Return a time in ms: that of the rule's form, times the ratio to it."""
    if base is None or (ratio is None and not is_base):
        return None
    low, value, high = (1.0, 1.0, 1.0) if ratio is None else (ratio.low, ratio.value, ratio.high)
    method = "median of the rule's form, times the ratio to it"
    ms = base.value
    return Interval(value=ms * value, low=ms * low, high=ms * high, method=method)
