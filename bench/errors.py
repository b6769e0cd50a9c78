"""What a user can get wrong, told in one line: the argument, its value, and the rule.

`UserError` with its children (status 2) and `Failure` (status 1) are the only errors that the
command prints without a traceback. User errors are `ValueError`s, so code that uses our classes as
a library catches them as such.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A user's mistake; the message names argument, value and rule."""


class ConfigError(UserError):
    """A configuration that is not there or cannot run; raised before any training."""


class DataError(UserError):
    """The data is not there, or not what its format says; raised before any training."""


class DoesNotFit(UserError):
    """An operator has no slot to stand in: a result of its own, which stops nothing else."""


class Failure(RuntimeError):
    """What was asked for ended badly, though nobody's words were wrong; told in one line too."""


def require(argument: str, value: Any, holds: bool, rule: str) -> None:
    """UserError naming argument, value and rule unless the rule holds.

    Example:
        >>> require("lr", -1.0, -1.0 > 0, "> 0")
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `lr` (=-1.0) must be > 0.
    """
    if not holds:
        raise UserError(f"`{argument}` (={value!r}) must be {rule}.")


def near(value: str, known: Iterable[str]) -> str:
    """Return the known names, those near `value` first: the tail of a message.

    Example:
        >>> near("prac", ["parc", "shift"]), near("xyz", ["parc", "shift"])
        ("did you mean 'parc'?", 'known: parc, shift.')
    """
    choices = list(known)
    close = difflib.get_close_matches(value, choices, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"known: {', '.join(sorted(choices))}."
