"""The site: static pages from records, the same bytes for the same records, no network needed."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.record import Metric, Record, canonical, digest, json_schema
from leaderboard import plots, published, stats
from leaderboard.board import Arm, Board, Setup, boards
from leaderboard.show import Show

TEMPLATES = Path(__file__).parent / "templates"
MANIFEST = "convboard-site.json"
"""File of the site that lists the others, by which an older build is known and cleared."""


def build(
    records: Path, site: Path, *, title: str = "ConvBoard", figures: Path = published.FOLDER
) -> None:
    """Write the site of all records below `records` into the folder `site`.

    Pages of an earlier build that are no longer made are removed; files that a build did not
    write are left alone.

    Args:
        records: folder of record files (`*.json`), searched in depth.
        site: folder to write; new, empty, or one that was built before.
        title: name of the site.
        figures: folder of published figures (`*.yaml`), shown apart from what was measured.

    Raises:
        ValueError: `records` is no folder, a record or a figure is not by its schema, or `site`
            holds files and none of them says that it was built before.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "records").mkdir()
        ...     build(Path(folder, "records"), Path(folder, "site"))
        ...     sorted(path.name for path in Path(folder, "site").glob("*.html"))
        ['index.html', 'method.html']
    """
    if not records.is_dir():
        raise ValueError(f"`records` (={str(records)!r}) must be a folder of record files.")
    if site.is_dir() and any(site.iterdir()) and not (site / MANIFEST).is_file():
        raise ValueError(
            f"`site` (={str(site)!r}) must be a new or empty folder, or one built before; "
            "this one holds other files."
        )
    files = pages(_read(records), title=title, figures=published.load(figures))
    _clear(site)
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pages(
    records: Mapping[str, Record], *, title: str, figures: Sequence[published.Figure]
) -> dict[str, bytes]:
    """Return the files of the site: path in the site → content.

    Args:
        records: name of the record's file → record.
        title: name of the site.
        figures: published figures, shown apart.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        title=title,
        total=len(records),
        css=_asset("style.css"),
        page_js=_asset("page.js"),
        plots_js=_asset("plots.js"),
    )
    made = boards(records.values())
    raw = {
        f"records/{name}": (canonical(record.model_dump(mode="json")) + "\n").encode()
        for name, record in records.items()
    }
    views = [_board_view(board) for board in made]
    texts = {
        "index.html": environment.get_template("index.html").render(
            root="",
            boards=views,
            published=figures,
            vega=Markup(plots.script()) if any(view["spec"] for view in views) else None,
        ),
        "method.html": environment.get_template("method.html").render(root=""),
        "schema-1.json": canonical(json_schema()) + "\n",
    }
    entry = environment.get_template("entry.html")
    for board in made:
        for arm in board.arms:
            texts[_page(board, arm)] = entry.render(root="../", **_entry_view(board, arm))
    files = {name: text.encode() for name, text in texts.items()} | raw
    files["records.zip"] = _zip(raw)
    files[MANIFEST] = (canonical({"files": sorted(files)}) + "\n").encode()
    return dict(sorted(files.items()))


def _read(folder: Path) -> dict[str, Record]:
    paths = sorted(folder.rglob("*.json"))
    return {record.filename: record for record in map(Record.load, paths)}


def _clear(site: Path) -> None:
    """Remove what an earlier build wrote, and nothing else."""
    manifest = site / MANIFEST
    if not manifest.is_file():
        return
    for name in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
        inside = PurePosixPath(name)
        if not inside.is_absolute() and ".." not in inside.parts:
            (site / inside).unlink(missing_ok=True)


def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _zip(files: Mapping[str, bytes]) -> bytes:
    """Pack the files without the time of packing, which would differ from build to build."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def script_json(value: Any) -> Markup:
    r"""JSON that can stand in a script element: no `<`, `>`, `&` and no line separators.

    Example:
        >>> print(script_json({"a": "</script>"}))
        {"a": "\u003c/script\u003e"}
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False)  # ASCII: U+2028 is escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _page(board: Board, arm: Arm) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", arm.label.lower()).strip("-")[:40] or "arm"
    return f"entries/{slug}-{digest([board.key, arm.key])[:10]}.html"


def _board_view(board: Board) -> dict[str, Any]:
    show = Show(board.metric)
    spec = plots.board_plot(board, show)
    rows: list[dict[str, Any]] = []
    place = None
    for arm in board.arms:
        now = arm.rank.place if arm.rank else 0
        error = None if arm.scores or not arm.failures else arm.failures[0].error
        rows.append(
            {
                "arm": arm,
                "page": _page(board, arm),
                "opens_group": bool(rows) and now != place,
                "failed": sorted(Counter(r.status for r in arm.failures).items()),
                "error": _first_line(error) if error else None,
            }
        )
        place = now
    timed = [arm for arm in board.arms if plots.plotted(arm)]
    return {
        "board": board,
        "show": show,
        "spec": script_json(spec) if spec else None,
        "plotted": timed,
        "left_out": [arm.label for arm in board.arms if arm not in timed],
        "rows": rows,
        "latency_batch": _batch(arm.latency for arm in board.arms),
        "throughput_batch": _batch(arm.throughput for arm in board.arms),
    }


def _batch(records: Iterable[Record | None]) -> int | None:
    return next((r.speed.batch for r in records if r and r.speed), None)


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 160 else f"{line[:159]}…"


def _entry_view(board: Board, arm: Arm) -> dict[str, Any]:
    show = Show(board.metric)
    records = (*arm.records, *arm.speeds)
    scored = [r for r in arm.records if r.status == "ok" and r.accuracy and r.recipe]
    every = [(r, False) for r in records] + [(r, True) for r in arm.superseded]
    return {
        "board": board,
        "arm": arm,
        "show": show,
        "commands": _distinct(r.provenance.reproduce for r in records),
        "scored": scored,
        "metrics": _metrics(scored, board.headline),
        "curves": _curves(scored, board.headline),
        "classes": _classes(scored),
        "speeds": [_speed_view(r, show) for r in arm.speeds],
        "identity": _identity(arm.first),
        "configs": [
            {
                "seed": r.recipe.seed,
                "text": yaml.safe_dump(r.recipe.config, allow_unicode=True, width=96),
            }
            for r in arm.records
            if r.recipe
        ],
        "records": [
            {"record": r, "file": r.filename, "rows": _provenance(r), "superseded": old}
            for r, old in every
        ],
        "machines": _distinct(
            tuple((k.replace("_", " "), v) for k, v in r.machine.model_dump().items() if v)
            for r in records
        ),
        "software": _distinct(tuple(sorted(r.software.items())) for r in records),
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _metrics(scored: Sequence[Record], headline: str | None) -> list[dict[str, Any]]:
    """Every metric by seed; the headline first."""
    known: dict[str, Metric] = {}
    for record in scored:
        assert record.accuracy is not None
        for key, metric in record.accuracy.metrics.items():
            known.setdefault(key, metric)
    rows = []
    for key in sorted(known, key=lambda k: (k != headline, k)):
        found = [r.accuracy.metrics.get(key) for r in scored if r.accuracy]
        values = [metric.value if metric else None for metric in found]
        numbers = [value for value in values if value is not None]
        rows.append(
            {
                "key": key,
                "show": Show(known[key]),
                "by_seed": values,
                "mean": sum(numbers) / len(numbers),
                "interval": stats.mean_interval(numbers),
            }
        )
    return rows


def _curves(scored: Sequence[Record], headline: str | None) -> list[dict[str, Any]]:
    """The headline and the losses by epoch; other curves are in the records."""
    by_name: dict[str, dict[int, list[float]]] = {}
    for record in scored:
        assert record.accuracy is not None
        assert record.recipe is not None
        for name, values in record.accuracy.curve.items():
            if values and (name.rsplit("/")[-1] == headline or "loss" in name):
                by_name.setdefault(name, {})[record.recipe.seed] = values
    names = sorted(by_name, key=lambda name: ("loss" in name, name))
    return [{"name": name, "svg": Markup(plots.curve_plot(by_name[name], name))} for name in names]


def _classes(scored: Sequence[Record]) -> list[tuple[str, float, list[float]]]:
    names = _distinct(name for r in scored if r.accuracy for name in r.accuracy.per_class)
    rows = []
    for name in sorted(names):
        found = [r.accuracy.per_class.get(name) for r in scored if r.accuracy]
        values = [value for value in found if value is not None]
        rows.append((name, sum(values) / len(values), values))
    return rows


def _speed_view(record: Record, show: Show) -> dict[str, Any]:
    speed = record.speed
    assert speed is not None
    rows = [
        ("Latency (ms)", _with_interval(show, speed.latency_median_ms)),
        ("Images per second", _with_interval(show, speed.images_per_second)),
        (f"Time / {speed.baseline}", show.ratio(speed.ratio_to_baseline)),
        ("Verdict", speed.verdict),
        ("Noise", speed.noise),
        ("Drift of the baseline (%)", show.number(speed.drift_pct)),
        ("Warm-up settled", {True: "yes", False: "no", None: None}[speed.steady]),
        ("Warm-up iterations", ", ".join(map(str, speed.warmup_iterations))),
        ("First call (ms)", ", ".join(map(show.number, speed.first_call_ms))),
        ("Outliers, kept", speed.outliers),
        ("Gate: largest relative error", _scientific(speed.gate_max_error)),
        ("Gate: tolerance", _scientific(speed.gate_tolerance)),
    ]
    if memory := record.memory:
        rows += [
            (name.removesuffix("_bytes").replace("_", " ").capitalize(), f"{value / 2**20:.1f} MiB")
            for name, value in memory.model_dump().items()
            if value is not None
        ]
    svg = None
    if speed.samples_ms:
        svg = Markup(
            plots.samples_plot(
                speed.samples_ms, speed.baseline_samples_ms, record.entry.label, speed.baseline
            )
        )
    return {"record": record, "setup": Setup("", record), "rows": rows, "svg": svg}


def _with_interval(show: Show, interval: Any) -> str | None:
    return f"{show.number(interval.value)} {show.interval(interval)}" if interval else None


def _scientific(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"


def _identity(record: Record) -> list[tuple[str, Any]]:
    entry, data, recipe = record.entry, record.data, record.recipe
    rows: list[tuple[str, Any]] = [
        ("Operator", entry.operator),
        ("Options", _inline(entry.operator_options)),
        ("Code of the operator", entry.operator_sha256),
        ("Host", entry.host),
        ("Options of the host", _inline(entry.host_options)),
        ("Selection of slots", _inline(entry.selection)),
        ("Mix", entry.mix),
        ("Task", entry.task),
        ("Head", entry.head),
        ("Form scored", entry.form),
    ]
    if data:
        rows += [
            ("Data", f"{data.name}, revision {data.revision}"),
            ("Hash of the files", data.files_sha256),
            ("Options of the data", _inline(data.options)),
            ("Images", f"{data.train_samples} to train on, {data.scored_samples} scored"),
            ("Split scored", data.split),
            ("Left out", _inline(data.skipped)),
        ]
    if recipe:
        rows += [
            ("Recipe", recipe.name),
            ("Epochs", recipe.epochs),
            ("Samples seen", recipe.samples_seen),
            ("Trials of tuning", recipe.tuning_trials),
        ]
    return rows


def _inline(value: Mapping[str, Any]) -> str | None:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else None


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
