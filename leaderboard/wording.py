"""Counts and lists in plain English."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Interval

STATUS = {
    "oom": "out of memory",
    "error": "error",
    "timeout": "out of time",
    "invalid": "wrong result",
    "unsupported": "not supported",
}
"""What is said of a record that is not ok."""
SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> counted(2, "seed"), counted(1, "arm"), counted(14, "seed"), counted(0, "arm")
        ('two seeds', 'one arm', '14 seeds', 'no arms')
    """
    word = SMALL[count] if count < len(SMALL) else str(count)
    return f"{word} {noun}{'' if count == 1 else 's'}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as a list.

    Example:
        >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"], "or")
        ('a', 'a and b', 'a, b or c')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def processor(name: str) -> str:
    """Return the name of a processor or a card without what every name has.

    Example:
        >>> processor("Intel(R) Xeon(R) Processor"), processor("AMD EPYC")
        ('Intel Xeon', 'AMD EPYC')
    """
    return " ".join(_OF_EVERY_NAME.sub(" ", name).split()) or name


_OF_EVERY_NAME = re.compile(r"\((?:R|TM|C)\)|\b(?:CPU|Processor)\b")


def settings(values: Mapping[str, Any]) -> str:
    """Return settings in a line.

    Example:
        >>> settings({"kernel_size": 7, "stages": [3, 4], "name": "a", "masks": False})
        'kernel_size = 7, masks = false, name = a, stages = [3, 4]'
    """
    return ", ".join(f"{name} = {setting(value)}" for name, value in sorted(values.items()))


def setting(value: Any) -> str:
    """Return the value of a setting: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def first_line(text: str | None, length: int = 100) -> str:
    r"""Return the first line of a text, shortened.

    Example:
        >>> first_line("one\ntwo"), first_line("long", 3), first_line(None)
        ('one', 'lo…', '')
    """
    lines = (text or "").strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= length else f"{lines[0][: length - 1]}…"


def once_compared(interval: Interval | None) -> str:
    """Say why what an interval without zero would show is not sure; empty where zero is in it.

    Example:
        >>> once_compared(Interval(value=2, low=1, high=3, level=0.95, method="t"))
        ' once all pairs are compared'
    """
    zero_out = interval is not None and (interval.low > 0 or interval.high < 0)
    return " once all pairs are compared" if zero_out else ""


def moment(created: str) -> str:
    """Return the moment of a record, to the minute.

    Example:
        >>> moment("2026-11-27T05:29:14.123+00:00")
        '2026-11-27 05:29 UTC'
    """
    return f"{created[:16].replace('T', ' ')} UTC"


def capitalised(text: str) -> str:
    """Return a text with its first letter large; names of arms stay as they are written."""
    return text[:1].upper() + text[1:]
