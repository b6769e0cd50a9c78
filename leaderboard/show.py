"""Numbers as text: the one place that decides digits, units and what stands for a missing value."""

from __future__ import annotations

from dataclasses import dataclass

from bench.record import Interval, Metric, Speed
from leaderboard.ranks import Rank

MISSING = "—"
NAMES = {"top1": "Top-1", "top5": "Top-5", "mAP": "mAP", "map": "mAP", "mIoU": "mIoU", "ece": "ECE"}


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

    @property
    def difference_unit(self) -> str:
        """Unit of a difference of scores."""
        return "pp" if self.unit == "%" else self.unit

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
        """Bounds of an interval with the digits of its value; empty where there is none."""
        if interval is None:
            return ""
        text = cls.number(interval.value)
        places = len(text.split(".")[1]) if "." in text else 0
        return _minus(f"[{interval.low:,.{places}f}, {interval.high:,.{places}f}]")

    @classmethod
    def ratio(cls, ratio: Interval | None) -> str:
        """A ratio of times with its interval."""
        return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else MISSING

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
        """Place of an arm, with '=' where it is shared."""
        if rank is None:
            return MISSING
        return f"{rank.place}=" if rank.tied else str(rank.place)

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
