"""What is shown while long work goes on: bars with an estimate of the time left."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160

console = Console(width=_WIDTH, markup=False, highlight=False)
"""Prints words as they are: nothing of data or errors is markup."""


def duration(seconds: float) -> str:
    """Return a time as people say it.

    Example:
        >>> duration(42), duration(150), duration(7260)
        ('42 s', '2 min 30 s', '2 h 1 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class Bar:
    """One bar with an estimate of the time left, kept going by a clock of its own.

    Args:
        title: what is counted.
        total: how many there are.
        running: returns how much of the next ones is done, in ones; called every second.
    """

    def __init__(self, title: str, total: int, running: Callable[[], float] = lambda: 0.0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task(title, total=total, left="")
        self._running = running
        self._total, self._ended, self._before = total, 0, 0
        self._since = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        self._progress.stop()

    def print(self, text: str) -> None:
        """Print a line above the bar, as it is: nothing in it is markup."""
        console.print(text, soft_wrap=True)

    def before(self, done: int) -> None:
        """Say how many were done before this started: they say nothing of the time left."""
        self._before = self._ended = done
        self._show()

    def step(self, done: int | None = None, total: int | None = None) -> None:
        """Say that one more is done, or how many are."""
        self._ended = self._ended + 1 if done is None else done
        self._total = self._total if total is None else total
        self._show()

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self._show()

    def _show(self) -> None:
        done = self._ended - self._before + self._running()
        spent = time.monotonic() - self._since
        left = self._total - self._before - done
        rest = spent * left / done if done > 0.02 and left > 0 else None
        text = "" if rest is None else f"about {duration(rest)} left"
        self._progress.update(self._task, completed=self._ended, total=self._total, left=text)
