"""How arguments are refused."""

from __future__ import annotations

from typing import Any


def require(argument: str, value: Any, holds: bool, rule: str) -> None:
    """ValueError naming argument, value and rule unless the rule holds.

    Example:
        >>> require("lr", -1.0, -1.0 > 0, "> 0")
        Traceback (most recent call last):
            ...
        ValueError: `lr` (=-1.0) must be > 0.
    """
    if not holds:
        raise ValueError(f"`{argument}` (={value!r}) must be {rule}.")
