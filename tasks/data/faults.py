"""How faults of a set are told: by kind, with their number and the first few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.errors import DataError
from tasks.data.locations import shortened

Fault = tuple[str, str]
"""The kind of a fault, and what has it."""


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are.

    Example:
        >>> some(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def count_faults(faults: Iterable[str]) -> dict[str, int]:
    """Return fault → number, sorted.

    Example:
        >>> count_faults(["truncated", "empty file", "truncated"])
        {'empty file': 1, 'truncated': 2}
    """
    return dict(sorted(Counter(faults).items()))


def require_none(faults: Iterable[Fault], hint: str = "") -> None:
    """DataError with the number and the first few files of each kind, if there are any.

    Args:
        faults: what is wrong.
        hint: what would help, said behind them.

    Example:
        >>> require_none([("can't be read", "a.png"), ("can't be read", "b.png")])
        Traceback (most recent call last):
            ...
        bench.errors.DataError: 2 file(s) can't be read: a.png, b.png.
    """
    kinds: dict[str, list[str]] = {}
    for kind, name in faults:
        kinds.setdefault(kind, []).append(name)
    if kinds:
        lines = (
            f"{len(names)} file(s) {kind}: {some([_shown(name) for name in names])}."
            for kind, names in kinds.items()
        )
        raise DataError(" ".join([*lines, *([hint] if hint else [])]))


def _shown(name: str) -> str:
    """Return what a terminal can show."""
    return name if name.isprintable() else shortened(name)


def allowed(max_skipped: float) -> str:
    """Say how many images may be left out.

    Example:
        >>> allowed(0.01)
        '`max_skipped` (=0.01) is the share of images that may be unreadable.'
    """
    return f"`max_skipped` (={max_skipped}) is the share of images that may be unreadable."


def few_enough(unreadable: int, images: int, max_skipped: float) -> bool:
    """Say whether so many images may be left out: no set is refused for one damaged file.

    Args:
        unreadable: images that cannot be used.
        images: of the set, in all.
        max_skipped: largest share of them that may be unreadable; unless it is 0, one may be
            however small the set is.

    Example:
        >>> few_enough(1, 40, 0.01), few_enough(1, 40, 0)
        (True, False)
    """
    return unreadable <= (max(1, max_skipped * images) if max_skipped else 0)
