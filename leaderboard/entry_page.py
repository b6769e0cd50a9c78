"""What the page of an arm shows, as values for its template."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bench.intervals import bounds
from bench.record import Interval, Metric, Record
from leaderboard import stats
from leaderboard.board_page import BoardView, front_words
from leaderboard.charts import curve_chart, samples_chart
from leaderboard.families import colour
from leaderboard.names import machine_file, machine_name
from leaderboard.rows import Row, Setup
from leaderboard.show import MISSING, Show
from leaderboard.studies import study_view
from leaderboard.wording import listed, once_compared, settings

MEMORY = {
    "peak_rss_bytes": "Peak memory (resident)",
    "peak_allocated_bytes": "Peak memory (allocated)",
    "peak_reserved_bytes": "Peak memory (reserved)",
}
"""What is said of the fields of a record's memory."""


def entry_view(
    view: BoardView, row: Row, pictures: Container[str], filenames: Mapping[int, str]
) -> dict[str, Any]:
    """Return the variables of `entry.html`.

    Args:
        view: the board.
        row: the arm on it.
        pictures: the pictures that the site has.
        filenames: id of a record → name of its file.
    """
    board, show = view.board, view.show
    family = colour(row.first.entry.operator)
    recipe = next((r.recipe for r in row.records if r.recipe), None)
    records = (
        *row.records,
        *row.speeds,
        *row.views,
        *row.studies,
        *(r for r in (row.untimed, row.untimed_end_to_end) if r),
    )
    scored = [r for r in row.records if r.status == "ok" and r.accuracy and r.recipe]
    every = [(r, False) for r in (*records, *([row.decision] if row.decision else []))]
    every += [(r, True) for r in (*row.superseded, *row.earlier)]
    return {
        "view": view,
        "board": board,
        "row": row,
        "started": next((r.entry for r in row.records if r.entry.slots_carried is not None), None),
        "show": show,
        "verdicts": _verdicts(view, row),
        "commands": _commands(r.provenance.reproduce for r in records),
        "scored": scored,
        "metrics": _metrics(scored, board.headline),
        "curves": _curves(scored, board.headline, family),
        "classes": _classes(scored),
        "speeds": [_speed_view(r, show, row.is_stale(r), family) for r in row.speeds],
        "views": row.views,
        "studies": [study_view(r.study, family) for r in row.studies if r.study],
        "pictures": pictures,
        "identity": _identity(row.first),
        "config": recipe and json.dumps(recipe.config, indent=2, ensure_ascii=False),
        "recipe": recipe,
        "records": [
            {
                "record": r,
                "file": filenames[id(r)],
                "facts": _provenance(r),
                "superseded": old,
                "stale": row.is_stale(r),
            }
            for r, old in every
        ],
        "machines": _distinct((machine_name(r), machine_file(r)) for r in records),
        "forms": _distinct(
            tuple(sorted(r.recipe.forms.items())) for r in scored if r.recipe and r.recipe.forms
        ),
        "software": _distinct(tuple(sorted(r.software.items())) for r in records),
    }


def _commands(every: Iterable[str]) -> list[str]:
    """Return commands; those that differ by their cell alone are one, which names all cells.

    Example:
        >>> _commands(["convboard run a --only cell=01", "convboard speed a",
        ...            "convboard run a --only cell=02"])
        ['convboard run a --only cell=01,02', 'convboard speed a']
    """
    cells: dict[tuple[str, str], list[str]] = {}
    for command in every:
        found = _OF_A_CELL.fullmatch(command)
        start, cell, end = found.groups() if found else (command, "", "")
        named = cells.setdefault((start, end), [])
        if cell not in named:
            named.append(cell)
    return [f"{start}{','.join(named)}{end}" for (start, end), named in cells.items()]


_OF_A_CELL = re.compile(r"(convboard .*--only cell=)([0-9a-f]+)(.*)")


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _metrics(scored: Sequence[Record], headline: str | None) -> list[dict[str, Any]]:
    """Every metric by seed; the headline first."""
    known: dict[str, Metric] = {}
    for record in scored:
        assert record.accuracy is not None
        for key, metric in record.accuracy.metrics.items():
            known.setdefault(key, metric)
    lines = []
    for key in sorted(known, key=lambda k: (k != headline, k)):
        by_seed = [r.accuracy.metrics.get(key) for r in scored if r.accuracy]
        values = [metric.value for metric in by_seed if metric]
        lines.append(
            {
                "key": key,
                "show": Show(known[key]),
                "by_seed": [metric and metric.value for metric in by_seed],
                "mean": sum(values) / len(values),
                "interval": stats.mean_interval(values, bounds=stats.bounds_of(known[key])),
            }
        )
    return lines


def _verdicts(view: BoardView, row: Row) -> list[str]:
    """What the page says first: place, gain, times, and what stands against them, as sentences."""
    board = view.board
    words: list[str] = []
    if row.rank:
        ranked = sum(other.rank is not None for other in board.rows)
        tied = [
            other.label
            for other in board.rows
            if other.rank and other is not row and set(other.rank.letters) & set(row.rank.letters)
        ]
        place = f"Rank {row.rank.place} of {ranked}"
        if row.rank.best != row.rank.worst:
            place += f"; places {row.rank.best} to {row.rank.worst} are left open"
        words.append(
            f"{place}." if not tied else f"{place}, as it can't be told from {listed(tied)}."
        )
    if row.difference and view.baseline:
        words.append(_gain(view, row))
    for stand in view.standings:
        place_of = stand.of(row)
        if stand.choice is None or place_of.ratio is None or row.baseline:
            continue
        ratio = place_of.ratio
        verdict = {
            "faster": "faster",
            "slower": "slower",
            "same": "the same within 1 %",
            "unclear": "not clear",
        }
        said = verdict.get(place_of.verdict or "", "")
        words.append(
            f"{ratio.value:.2f}× the time of {view.baseline} {bounds(ratio.low, ratio.high, 2)}"
            f"{': ' + said if said else ''} ({view.times[stand.choice.key]})."
        )
        if place_of.front and stand is view.usual:
            front = {
                "front": "On the front",
                "maybe": "Maybe on the front",
                "no": "Behind the front",
            }
            words.append(
                f"{front[place_of.front.word]}: with a probability of "
                f"{front_words(place_of.front)} no other operator here is both "
                "better and faster."
            )
    return [*words, *(mark.text for mark in row.marks)]


def _gain(view: BoardView, row: Row) -> str:
    assert row.difference is not None
    show, within = view.show, row.difference.interval
    text = f"{show.change(row.difference.value, within)} over {view.baseline}"
    if within is None:
        return f"{text}, with no interval."
    side = view.board.surely(row)
    said = f"surely {side}" if side else f"can't be told from it{once_compared(within)}"
    return f"{text} {show.change_bounds(within)}: {said}."


def _curves(scored: Sequence[Record], headline: str | None, family: int) -> list[dict[str, Any]]:
    """The headline and the losses by epoch; other curves are in the records."""
    by_name: dict[str, dict[int, list[tuple[int, float | None]]]] = {}
    for record in scored:
        assert record.accuracy is not None
        assert record.recipe is not None
        for name, values in record.accuracy.curve.items():
            key = name.rsplit("/")[-1]
            if values and (key == headline or "loss" in name):
                epochs = _epochs(len(values), record.recipe.epochs)
                show = Show(record.accuracy.metrics.get(key))
                values = [None if v is None else show.scaled(v) for v in values]
                name = f"{name} ({show.unit})" if show.unit else name
                points = list(zip(epochs, values, strict=True))
                by_name.setdefault(name, {})[record.recipe.seed] = points
    by_name = {  # of one point the table has the value
        name: by_seed
        for name, by_seed in by_name.items()
        if len({epoch for points in by_seed.values() for epoch, _ in points}) > 1
    }
    names = sorted(by_name, key=lambda name: ("loss" in name, name))
    return [
        {"name": name, "svg": Markup(curve_chart(by_name[name], name, family))} for name in names
    ]


def _epochs(count: int, epochs: int | None) -> list[int]:
    """The epochs after which so many values were taken: every one, or every so many.

    Example:
        >>> _epochs(4, 20), _epochs(3, 3), _epochs(2, None)
        ([5, 10, 15, 20], [1, 2, 3], [1, 2])
    """
    every = max(1, (epochs or count) // count)
    return [every * (index + 1) for index in range(count)]


def _classes(scored: Sequence[Record]) -> list[tuple[str, float, list[float]]]:
    by_name: dict[str, list[float]] = {}
    for record in scored:
        for name, value in (record.accuracy.per_class if record.accuracy else {}).items():
            by_name.setdefault(name, []).append(value)
    return [(name, sum(values) / len(values), values) for name, values in sorted(by_name.items())]


def _speed_view(record: Record, show: Show, stale: bool, family: int) -> dict[str, Any]:
    speed = record.speed
    assert speed is not None
    rows = [
        ("Latency (ms)", _with_interval(show, speed.latency_median_ms)),
        ("Images per second", _with_interval(show, speed.images_per_second)),
        (f"Time / {speed.baseline}", show.ratio(speed.ratio_to_baseline)),
        ("Verdict", show.verdict(speed)),
        ("Noise", speed.noise),
        ("Drift of the baseline (%)", show.number(speed.drift_pct)),
        ("Warm-up settled", {True: "yes", False: "no", None: None}[speed.steady]),
        ("Warm-up iterations", ", ".join(map(str, speed.warmup_iterations))),
        ("First call (ms)", ", ".join(map(show.number, speed.first_call_ms))),
        ("Outliers, kept", speed.outliers),
        ("Throttled", {True: "yes", False: "no", None: None}[speed.throttled]),
        ("Host-bound", {True: "yes", False: "no", None: None}[speed.host_bound]),
        ("Fastest layout", speed.forms.get("layout")),
        ("Exact forms", _forms(speed.forms)),
        ("Energy per image (J)", _number(speed.energy_per_image_joules)),
        ("Largest relative error before timing", _scientific(speed.gate_max_error)),
        ("Error allowed", _scientific(speed.gate_tolerance)),
    ]
    if speed.memory_error is not None:
        rows.append(("No peak memory", speed.memory_error))
    if memory := record.memory:
        rows += [
            (MEMORY[name], f"{value / 2**20:.1f} MiB")
            for name, value in memory.model_dump().items()
            if value is not None
        ]
    svg = None
    if speed.samples_ms:
        svg = Markup(
            samples_chart(
                speed.samples_ms,
                speed.baseline_samples_ms,
                record.entry.label,
                speed.baseline,
                family,
            )
        )
    return {
        "record": record,
        "setup": Setup("", record),
        "facts": [(name, value) for name, value in rows if value not in (None, "", MISSING)],
        "svg": svg,
        "stale": stale,
    }


def _forms(forms: Mapping[str, str]) -> str | None:
    """How often each exact form was taken, e.g. 'direct 3×, padded 1×'."""
    taken = Counter(form for place, form in forms.items() if place != "layout")
    return ", ".join(f"{form} {count}×" for form, count in sorted(taken.items())) or None


def _with_interval(show: Show, interval: Interval | None) -> str | None:
    return f"{show.number(interval.value)} {show.interval(interval)}" if interval else None


def _number(value: float | None) -> str | None:
    return None if value is None else Show.number(value)


def _scientific(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"


def _identity(record: Record) -> list[tuple[str, Any]]:
    entry, data, recipe = record.entry, record.data, record.recipe
    rows: list[tuple[str, Any]] = [
        ("Operator", entry.operator),
        ("Options", settings(entry.operator_options)),
        ("Code of the operator", entry.operator_sha256),
        ("Host", entry.host),
        ("Options of the host", settings(entry.host_options)),
        ("Slots (convolutions replaced)", settings(entry.selection)),
        ("Mix", entry.mix),
        ("Task", entry.task),
        ("Head", entry.head),
        ("Form scored", entry.form),
    ]
    if data:
        rows += [
            ("Data", f"{data.name}, revision {data.revision}"),
            ("Hash of the files", data.files_sha256),
            ("Options of the data", settings(data.options)),
            ("Images", f"{data.train_samples} to train on, {data.scored_samples} scored"),
            ("Split scored", data.split),
            ("Left out or mended", settings(data.skipped)),
        ]
    if recipe:
        rows += [
            ("Recipe", recipe.name),
            ("Epochs", recipe.epochs),
            ("Samples seen", recipe.samples_seen),
            ("Trials of tuning", recipe.tuning_trials or None),
            ("Before tuning", settings(recipe.untuned)),
        ]
    return [(name, value) for name, value in rows if value not in (None, "")]


def _provenance(record: Record) -> list[tuple[str, Any]]:
    origin = record.provenance
    dirty = {True: "yes", False: "no", None: None}[origin.git_dirty]
    rows: list[tuple[str, Any]] = [
        ("Identity", record.identity),
        ("Commit", origin.git_commit),
        ("Changed since the commit", dirty),
        ("Hash of the change", origin.git_patch_sha256),
        ("Command", origin.command),
        ("MLflow run", origin.mlflow_run),
        ("Optuna study", origin.optuna_study),
        ("Suite", origin.suite),
        ("Cell", origin.cell),
    ]
    if record.recipe:
        rows.append(("Hash of the configuration", record.recipe.config_sha256))
        rows.append(("Training (s)", Show.number(record.recipe.train_seconds)))
    if record.accuracy and record.accuracy.outcomes:
        rows.append(("Outcomes per sample", record.accuracy.outcomes.file))
    return rows
