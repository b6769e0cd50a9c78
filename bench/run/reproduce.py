"""A record's cell run once more: does its score come out again, and what is not as it was?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from bench import machine
from bench.config.cell import Cell
from bench.errors import Failure, UserError
from bench.hashing import digest
from bench.intervals import LEVEL
from bench.places import by_name
from bench.record import Data, Interval, Record
from bench.run import suite
from bench.run.code import code_of
from bench.run.processes import LocalProcesses
from bench.store import Store
from bench.store.embedded import server

SAME = 1e-6
"""Scores that differ by no more are equal: a sum in another order rounds differently."""
TIMEOUT_MINUTES = 7 * 24 * 60


@dataclass(frozen=True)
class Difference:
    """Something that is not now as it was when the record was made."""

    what: str
    before: str
    now: str


@dataclass(frozen=True)
class Reproduced:
    """The headline score of a record and of its cell's new run.

    Attributes:
        metric: its name.
        before: the record's.
        now: the new run's.
        interval: around the record's, from the finite scored set; None where it isn't known.
        differences: what is not as it was.
    """

    metric: str
    before: float
    now: float
    interval: Interval | None
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether the scores are the same but for rounding."""
        return abs(self.now - self.before) <= SAME

    @property
    def within(self) -> bool:
        """Whether the new score lies within the record's interval."""
        return self.interval is not None and self.interval.low <= self.now <= self.interval.high


def cell_of(record: Record) -> Cell:
    """Return the cell that a record is the score of, from its own configuration.

    Data, weights and code whose folder the record does not tell are looked for by name, below
    $CONVBOARD_DATA too.

    Raises:
        UserError: it is no score of a cell.
    """
    recipe = record.recipe
    scored = record.kind == "accuracy" and record.status == "ok"
    # of no epochs: a public checkpoint's
    if not scored or recipe is None or recipe.epochs == 0:
        what = record.kind if record.status == "ok" else f"{record.kind}, {record.status}"
        raise UserError(
            f"`record` (={record.filename!r}: {what}) must be the score of a trained cell; this "
            f"one's own command is `{record.provenance.reproduce}`."
        )
    config = by_name(recipe.config)
    return Cell(
        suite=record.provenance.suite or "reproduced",
        task=record.entry.task,
        host=record.entry.host,
        operator=record.entry.label,
        recipe=recipe.name,
        baseline=record.entry.baseline,
        config=config,
        untuned=recipe.untuned,
        ranked=record.entry.ranked,
        words=_words(record.provenance.reproduce),
    )


def _words(command: str) -> str:
    """Return the suite with what was laid over it, of a command that runs one cell of it.

    Example:
        >>> _words("convboard run quick --seeds 3 --only cell=3f2a")
        'quick --seeds 3'
    """
    beginning = "convboard run "
    if not command.startswith(beginning):
        return ""
    return command.removeprefix(beginning).rpartition(" --only cell=")[0]


def known_before(record: Record, cell: Cell, data: Data | None) -> tuple[Difference, ...]:
    """Return what is known to differ before anything is trained.

    Args:
        record: the old one.
        cell: as it would be run now.
        data: what the cell's data are now.
    """
    git = machine.git_state()
    provenance = record.provenance
    then: dict[str, Any] = {
        "operator's code": record.entry.operator_sha256,
        "configuration": provenance.cell,
        "commit": provenance.git_commit,
        "uncommitted changes": provenance.git_patch_sha256,
    }
    now: dict[str, Any] = {
        "operator's code": code_of(cell),
        "configuration": cell.hash,
        "commit": git["git_commit"],
        "uncommitted changes": git["git_patch_sha256"],
    }
    return tuple(
        difference
        for prefix, old, new in (
            ("", then, now),
            ("data: ", _fields(record.data), _fields(data)),
            ("", record.software, machine.software()),
            ("machine: ", _fields(record.machine), _fields(machine.machine())),
        )
        for difference in _differing(prefix, old, new)
    )


def _fields(part: Any) -> dict[str, Any]:
    return {} if part is None else part.model_dump()


def _differing(
    prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[Difference]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old != new:
            yield Difference(prefix + name.replace("_", " "), _said(old), _said(new))


def _said(value: Any) -> str:
    """Return a value in a few letters; of a hash its beginning.

    Example:
        >>> _said("0123456789abcdef" * 4), _said(None), _said(2)
        ('0123456789ab', '—', '2')
    """
    text = "—" if value is None else str(value)
    is_hash = len(text) in (40, 64) and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if is_hash else text


def reproduce(cell: Cell, runs: Path, command: str, workers: int, data: Data | None) -> Record:
    """Run a cell from scratch and return its new record; one that was, as all is now, isn't again.

    It has a store of its own below `runs`, for each state of code, data, software, machine and
    workers: what is kept of the first run stays as it is, and one that was cut off goes on.

    Args:
        cell: what to run.
        runs: the runs folder.
        command: the command line that asked for it, for the record.
        workers: processes among which a run of its suite would share the cores out, as the order
            of sums hangs on the number of threads.
        data: what its data are.

    Raises:
        Failure: it came to no score.
    """
    if server() is not None:
        raise UserError(
            "`MLFLOW_TRACKING_URI` must not be set: a server would take the first run for the new "
            "one, which is kept in a store of its own below the runs folder."
        )
    state: list[Any] = [cell.hash, code_of(cell), machine.git_state()]
    state += [machine.software(), machine.machine().model_dump(), workers, _fields(data)]
    folder = runs / "reproduced" / digest(state)[:12]
    for step in suite.run_cells(
        [cell],
        folder,
        command,
        executor=LocalProcesses(workers, TIMEOUT_MINUTES * 60),
        data={} if data is None else {cell.hash: data},
    ):
        if step.kind == "ended" and step.failed:
            why = step.record.error if step.record is not None else step.words
            raise Failure(f"{cell.title}: no score came out: {why}")
    store = Store(folder)
    run = store.of_cell(cell.hash)
    assert run is not None
    return store.record(run)


def compare(before: Record, now: Record, known: tuple[Difference, ...] = ()) -> Reproduced:
    """Compare a record with that of its cell's new run.

    Args:
        before: the record.
        now: the new one.
        known: what is known to differ; the exact forms that were trained in are looked at here.
    """
    assert before.accuracy is not None
    assert now.accuracy is not None
    assert before.recipe is not None
    assert now.recipe is not None
    metric = before.accuracy.headline
    forms = _differing("form: ", before.recipe.forms, now.recipe.forms)
    return Reproduced(
        metric=metric,
        before=before.accuracy.metrics[metric].value,
        now=now.accuracy.metrics[metric].value,
        interval=_interval(before),
        differences=(*known, *forms),
    )


def _interval(record: Record) -> Interval | None:
    """Return the score ± its sampling error times the normal quantile."""
    accuracy = record.accuracy
    assert accuracy is not None
    if accuracy.sampling_error is None:
        return None
    value = accuracy.metrics[accuracy.headline].value
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * accuracy.sampling_error
    method = "normal, sampling error of the scored set"
    return Interval(value=value, low=value - half, high=value + half, level=LEVEL, method=method)
