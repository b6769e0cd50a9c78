"""A store that is locked or away is waited for; one that is broken is told in a line."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.store.errors import StoreError

PASSING = {
    "database is locked": "the database is locked by another process",
    "database table is locked": "the database is locked by another process",
    "failed with exception": "the tracking server does not answer",
    "connection refused": "the tracking server does not answer",
    "max retries exceeded": "the tracking server does not answer",
    "too many 50": "the tracking server does not answer",
    "error code 502": "the tracking server does not answer",
    "error code 503": "the tracking server does not answer",
    "error code 504": "the tracking server does not answer",
    "too many connections": "the database has no connection free",
}
"""Part of an error's words → what goes by itself."""
LASTING = {
    "file is not a database": "its mlflow.db is not a database",
    "database disk image is malformed": "its mlflow.db is damaged",
    "attempt to write a readonly database": "it cannot be written",
    "unable to open database file": "its mlflow.db cannot be opened",
    "read-only file system": "it cannot be written",
    "permission denied": "it cannot be written",
    "no space left on device": "the disk is full",
    "database or disk is full": "the disk is full",
    "can't locate revision": "its mlflow.db was written by a newer MLflow",
}
"""Part of an error's words → what does not."""


def _words(error: BaseException) -> str:
    """Return the words of an error and of those that caused it, in lower case."""
    parts: list[str] = []
    at: BaseException | None = error
    while at is not None and len(parts) < 10:
        parts.append(str(at).lower())
        at = at.__cause__ or at.__context__
    return "\n".join(parts)


def _known(words: str, table: dict[str, str]) -> str | None:
    return next((meaning for part, meaning in table.items() if part in words), None)


class Patient:
    """An object whose methods are called again while what fails is a matter of time.

    Args:
        inner: e.g. an MLflow client.
        place: what the store is called in words.
        wait_s: the longest wait of one call.

    Raises:
        StoreError: the wait was in vain, or the store is broken.
    """

    def __init__(self, inner: Any, place: str, wait_s: float) -> None:
        self._inner, self._place, self._wait_s = inner, place, wait_s

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return functools.partial(self.call, value) if callable(value) else value

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, patiently."""
        told = False
        until = time.monotonic() + self._wait_s
        for pause in _pauses():
            try:
                return function(*args, **kwargs)
            except StoreError:
                raise
            except Exception as error:
                words = _words(error)
                reason = _known(words, PASSING)
                if reason is None:
                    lasting = _known(words, LASTING)
                    if lasting is None:
                        raise
                    raise StoreError(f"the store {self._place} is of no use: {lasting}.") from error
                if time.monotonic() + pause > until:
                    raise StoreError(
                        f"the store {self._place} is of no use: {reason}, for {self._wait_s:g} s. "
                        "Nothing is lost; the same command goes on from here."
                    ) from error
                if not told:
                    print(f"store {self._place}: {reason}; waiting for it.", file=sys.stderr)
                    told = True
                time.sleep(pause)
        raise AssertionError("pauses have no end")


def _pauses() -> Iterator[float]:
    pause = 0.2
    while True:
        yield pause
        pause = min(2 * pause, 5.0)
