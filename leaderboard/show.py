"""Numbers as text: the one place that decides digits, units and what stands for a missing value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.intervals import bounds
from bench.record import Interval, Metric, Speed
from bench.statistics.ranks import Rank

MISSING = "—"
NAMES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "mAP": "mAP",
    "map": "mAP",
    "mIoU": "mIoU",
    "ece": "ECE",
    "AP": "OKS AP",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "keypoint_ap": "OKS AP",
    "miou": "mIoU",
    "miou_ss": "mIoU, single scale",
    "miou_ms": "mIoU, multi-scale",
    "aAcc": "pixel accuracy",
    "mAcc": "class accuracy",
    "images_per_second": "images per second",
}


@dataclass(frozen=True)
class Show:
    """Shows the numbers of one board, whose headline has the unit of `metric`."""

    metric: Metric | None = None

    @property
    def unit(self) -> str:
        """Unit of the headline as shown; fractions are shown in percent."""
        if self.metric is None:
            return ""
        return "%" if self.metric.unit == "fraction" else self.metric.unit

    def scaled(self, value: float) -> float:
        """A value of the headline in the unit shown."""
        return value * 100 if self.unit == "%" else value

    def score(self, value: float | None) -> str:
        """A value of the headline, without its unit.

        Example:
            >>> Show(Metric(value=0, unit="fraction", higher_is_better=True)).score(0.8125)
            '81.25'
        """
        if value is None:
            return MISSING
        return f"{self.scaled(value):.2f}" if self.unit == "%" else self.number(value)

    def score_interval(self, interval: Interval | None) -> str:
        """Bounds of a score; empty where there is no interval."""
        if interval is None:
            return ""
        return f"[{_minus(self.score(interval.low))}, {_minus(self.score(interval.high))}]"

    def difference(self, value: float | None) -> str:
        """A difference of two scores, signed; of fractions in percentage points."""
        if value is None:
            return MISSING
        text = f"{self.scaled(value):+.2f}" if self.unit == "%" else f"{value:+.3g}"
        return _minus(text)

    def difference_interval(self, interval: Interval | None) -> str:
        """Bounds of a difference; empty where there is no interval."""
        if interval is None:
            return ""
        return f"[{self.difference(interval.low)}, {self.difference(interval.high)}]"

    def amount(self, value: float) -> str:
        """A size of a difference with its unit, to two digits, for sentences.

        Example:
            >>> show = Show(Metric(value=0, unit="fraction", higher_is_better=True))
            >>> show.amount(0.0541), show.amount(0.01), show.amount(0.0025)
            ('5.4 points', '1 point', '0.25 points')
        """
        text = self.number(self.scaled(value), 2)
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return f"{text} {self._amounts(text == '1')}".strip()

    def change(self, value: float, interval: Interval | None = None) -> str:
        """A difference with its unit, for sentences, to the digits that its interval allows.

        Example:
            >>> show = Show(Metric(value=0, unit="fraction", higher_is_better=True))
            >>> show.change(0.0451), show.change(-0.00251)
            ('+4.5 points', '−0.25 points')
        """
        size = abs(self.scaled(value))
        digits = self._decimals(interval, size)
        return f"{_minus(f'{self.scaled(value):+,.{digits}f}')} {self._amounts(size == 1)}".strip()

    def change_bounds(self, interval: Interval | None) -> str:
        """The interval of a difference, for sentences: '[0.5, 8.4]'; empty where there is none."""
        if interval is None:
            return ""
        digits = self._decimals(interval, abs(self.scaled(interval.value)))
        low, high = (self.scaled(end) for end in (interval.low, interval.high))
        return _minus(f"[{low:,.{digits}f}, {high:,.{digits}f}]")

    def _decimals(self, interval: Interval | None, size: float) -> int:
        """Decimals that show a difference, or half of its interval, to two digits."""
        if interval is not None:
            size = self.scaled(interval.high - interval.low) / 2
        decade = math.floor(math.log10(size) + 1e-9) if size > 0 else 0
        return max(0, min(8, 1 - decade))

    def _amounts(self, single: bool) -> str:
        if self.unit != "%":
            return self.unit
        return "point" if single else "points"

    @property
    def difference_unit(self) -> str:
        """Unit of a difference of scores."""
        return "points" if self.unit == "%" else self.unit

    @staticmethod
    def number(value: float | None, digits: int = 3) -> str:
        """A number with so many significant digits, never in powers of ten.

        Example:
            >>> Show.number(1234.5), Show.number(0.012345), Show.number(2.0), Show.number(None)
            ('1,234', '0.0123', '2.00', '—')
        """
        if value is None:
            return MISSING
        if value == 0:
            return "0"
        exponent = int(f"{abs(value):e}".split("e")[1])
        return _minus(f"{value:,.{max(0, min(8, digits - 1 - exponent))}f}")

    @classmethod
    def interval(cls, interval: Interval | None) -> str:
        """Bounds of a time or a rate with the digits of its value; empty where there is none."""
        if interval is None:
            return ""
        text = cls.number(interval.value)
        return bounds(interval.low, interval.high, len(text.partition(".")[2]))

    def nothing_learnt(self, scores: Iterable[Mapping[int, float]]) -> bool:
        """Whether every score of every arm is 0, and more would be better.

        Example:
            >>> Show(None).nothing_learnt([{0: 0.0}, {0: 0.0, 1: 0.0}])
            True
        """
        return self.higher and not any(any(by_seed.values()) for by_seed in scores)

    @property
    def higher(self) -> bool:
        """Whether more of the headline is better."""
        return self.metric is None or self.metric.higher_is_better

    @staticmethod
    def times(ratio: float) -> str:
        """A ratio of times, for sentences.

        Example:
            >>> [Show.times(ratio) for ratio in (1.904, 1.041, 0.8333, 1.0004, 12.3)]
            ['1.9×', '1.04×', '0.83×', '1.00×', '12×']
        """
        digits = 2 if 0.1 <= ratio < 1.1 else 1 if ratio < 9.95 else 0
        return f"{ratio:.{digits}f}×"

    @classmethod
    def ratio(cls, ratio: Interval | None) -> str:
        """A ratio of times with its interval."""
        return f"{ratio.value:.3f} {bounds(ratio.low, ratio.high, 3)}" if ratio else MISSING

    @staticmethod
    def verdict(speed: Speed) -> str | None:
        """The verdict of a time; from unstable times nothing is clear, whatever a record says."""
        if speed.noise == "unstable" and speed.verdict not in ("baseline", None):
            return "unclear"
        return speed.verdict

    @staticmethod
    def count(value: int | None) -> str:
        """A count with a unit prefix.

        Example:
            >>> Show.count(341_000), Show.count(25_557_032), Show.count(999), Show.count(None)
            ('341 k', '25.6 M', '999', '—')
        """
        if value is None:
            return MISSING
        for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{Show.number(value / size)} {prefix}"
        return str(value)

    @staticmethod
    def rank(rank: Rank | None) -> str:
        """Place of an arm by its fitted mean."""
        return MISSING if rank is None else str(rank.place)

    @staticmethod
    def rank_interval(rank: Rank | None) -> str:
        """The places that the tests leave open."""
        return f"{rank.best}–{rank.worst}" if rank and rank.best != rank.worst else ""

    @staticmethod
    def metric_name(key: str | None) -> str:
        """Name of a metric as the field writes it."""
        return MISSING if key is None else NAMES.get(key, key)


def _minus(text: str) -> str:
    return text.replace("-", "−")
