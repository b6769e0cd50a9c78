"""Counts and lists in plain English."""

from __future__ import annotations

from collections.abc import Sequence

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


def capitalised(text: str) -> str:
    """Return a text with its first letter large; names of arms stay as they are written."""
    return text[:1].upper() + text[1:]
