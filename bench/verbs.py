"""The verbs of the command line: what each does, with its progress and its words."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from bench import overlays, pace, suite
from bench.cell import Cell
from bench.overlays import OverlayError
from bench.record import Record
from bench.suite import Choice
from bench.track import CELL, Kept, Store

console = Console()


def default_workers() -> int:
    """One process a core on a CPU, up to four; one on a machine with a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else min(4, os.cpu_count() or 1)


def run_suite(
    name: str, choice: Choice, folder: Path, command: str, workers: int | None = None
) -> int:
    """Run the cells of a suite that are not done; return how many failed."""
    chosen = overlays.load_suite(name)
    cells = suite.plan(name, choice)
    kept = Store(folder).kept()
    states = {cell.hash: suite.state(cell, kept) for cell in cells}
    left = [cell for cell in cells if states[cell.hash] not in ("done", "absent")]
    done = sum(state == "done" for state in states.values())
    console.print(f"{chosen.name}: {len(cells)} cells, {done} done before.")
    _tell_absent(cells)
    if not left:
        return 0
    suite.preflight(left)
    records: dict[str, Record] = {}
    running: dict[str, Cell] = {}
    failed = 0
    with _progress() as progress:
        bar = progress.add_task("cells", total=len(left), left="")
        steps = suite.run(
            left,
            folder,
            command,
            workers=workers or default_workers(),
            timeout_minutes=chosen.timeout_minutes,
        )
        clock = _Clock(progress, bar, len(left), folder, running)
        with clock:
            for step in steps:
                if step.record is None:
                    running[step.cell.hash] = step.cell
                    continue
                running.pop(step.cell.hash, None)
                records[step.cell.hash] = step.record
                failed += step.failed
                clock.ended += 1
                progress.console.print(_line(step.cell, step.record))
    kept = Store(folder).kept()
    _print_means(cells, kept)
    _print_learnt(cells, kept)
    return failed


def _tell_absent(cells: Sequence[Cell]) -> None:
    """Say which cells are left out because their data are not there, and what would help."""
    for task, where in sorted({(cell.task, cell.absent) for cell in cells if cell.absent}):
        console.print(
            f"{task} is left out: its data are not in {where}; --data says where sets lie.",
            soft_wrap=True,
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
    )


class _Clock:
    """Keeps the bar and its estimate of the time left going while cells run."""

    def __init__(
        self, progress: Progress, bar: TaskID, total: int, folder: Path, running: dict[str, Cell]
    ) -> None:
        self.progress, self.bar, self.total = progress, bar, total
        self.folder, self.running = folder, running
        self.ended = 0
        self._since = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self._show()

    def _show(self) -> None:
        part = sum(suite.fraction(cell, self.folder) for cell in list(self.running.values()))
        done = self.ended + part
        spent = time.monotonic() - self._since
        rest = spent * (self.total - done) / done if done > 0.02 else None
        text = "" if rest is None else f"about {_duration(rest)} left"
        self.progress.update(self.bar, completed=self.ended, left=text)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {seconds} s"
        if minutes
        else f"{seconds} s"
    )


def _line(cell: Cell, record: Record) -> str:
    if record.accuracy is None:
        return f"[red]{record.status}[/red] {cell.label}: {record.error}"
    name = record.accuracy.headline
    value = record.accuracy.metrics[name].value
    seconds = record.recipe.train_seconds if record.recipe else None
    after = f" in {seconds:.0f} s" if seconds is not None else ""
    return f"[green]ok[/green] {cell.label}: {name} {value:.4f}{after}"


def _print_learnt(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> None:
    """Say of each board whether its baseline has learnt the task; else the board says little."""
    for board in suite.learnt(cells, kept):
        word = "learnt" if board.mean >= board.wanted else "[red]not learnt[/red]"
        console.print(
            f"{word}: {board.task} · {board.host},",
            f"{board.metric} of the baseline {board.mean:.4f}, at least {board.wanted:g} wanted",
        )


def _print_means(cells: Sequence[Cell], kept: Mapping[str, Kept]) -> None:
    """Print the mean over seeds of each arm's headline, board by board."""
    table = Table("task", "host", "operator", "headline", "mean over seeds", "seeds", box=None)
    groups: dict[tuple[str, str, str], list[tuple[str, float]]] = {}
    for cell in cells:
        run = kept.get(cell.hash)
        name = run.tags.get("headline") if run is not None and run.done else None
        if run is not None and name is not None:
            key = (cell.task, cell.host, cell.arm.label)
            groups.setdefault(key, []).append((name, run.metrics[f"final/{name}"]))
    for (task, host, arm), values in groups.items():
        mean = sum(value for _, value in values) / len(values)
        table.add_row(task, host, arm, values[0][0], f"{mean:.4f}", str(len(values)))
    console.print(table)


def speed_suite(name: str, choice: Choice, folder: Path, command: str) -> None:
    """Measure the speed of a suite's arms, unless that was done on this machine before."""
    chosen = overlays.load_suite(name)
    if chosen.speed is None:
        console.print(f"{chosen.name}: no speed run is asked for.")
        return
    kept = Store(folder).kept()
    present = [cell for cell in suite.plan(name, choice) if not cell.absent]
    if "end_to_end" in chosen.speed.scopes and (left := pace.waiting(present, kept)):
        console.print(
            f"{len(left)} arms are not trained yet and not timed end to end; "
            "`convboard run` trains them."
        )
    for race in pace.races(present, chosen.speed, kept):
        if race.hash in kept and kept[race.hash].done:
            console.print(f"{race.title}: done before.")
            continue
        _print_speed(_timed(race, folder, command))


def _timed(race: pace.Race, folder: Path, command: str) -> list[Record]:
    with _progress() as progress:
        bar = progress.add_task(race.title, total=race.plan.processes, left="")
        since = time.monotonic()

        def tell(done: int, total: int, what: str) -> None:
            spent = time.monotonic() - since
            left = f"about {_duration(spent * (total - done) / done)} left" if done else ""
            progress.update(bar, completed=done, total=total, left=left)

        return pace.run(race, folder, command, tell)


def _print_speed(records: Sequence[Record]) -> None:
    table = Table("operator", "batch", "median ms", "time / baseline", "verdict", "noise", box=None)
    for record in records:
        speed = record.speed
        if speed is None or record.status != "ok":
            table.add_row(record.entry.label, "", f"[red]{record.status}[/red]", str(record.error))
            continue
        ms, ratio = speed.latency_median_ms, speed.ratio_to_baseline
        table.add_row(
            record.entry.label,
            str(speed.batch),
            f"{ms.value:.3f} [{ms.low:.3f}, {ms.high:.3f}]" if ms else "",
            f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "",
            speed.verdict or "",
            speed.noise or "",
        )
    console.print(table)


def show(folder: Path, beginning: str) -> str:
    """Return what is known of the cell whose hash begins so, as YAML."""
    store = Store(folder)
    run = store.find(beginning)
    told = {
        "cell": run.cell,
        "suite": run.experiment,
        "state": run.status.lower(),
        "mlflow_run": run.run_id,
        "tags": {
            k: v for k, v in sorted(run.tags.items()) if not k.startswith("mlflow.") and k != CELL
        },
        "metrics": {k: round(v, 6) for k, v in sorted(run.metrics.items())},
        "config": store.config(run),
    }
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip()


def listing(kind: str) -> str:
    """Return the names of a kind, one a line, each with its description."""
    if kind == "networks":
        return _networks()
    if kind == "operators":
        from bench import operators

        lines = [f"{name:12} {_first_line(operators.get(name))}" for name in operators.names()]
        extra = [name for name in overlays.known("operators") if name not in operators.names()]
        for name in extra:
            arm = overlays.load_arm(name)
            lines.append(f"{name:12} {arm.description or arm.operator}")
        return "\n".join(lines)
    lines = []
    shipped = cast(overlays.Kind, kind)
    for name in overlays.known(shipped):
        text = overlays.read(overlays.find(shipped, name)).get("description", "")
        lines.append(f"{name:28} {text}".rstrip())
    if kind == "hosts":
        lines.append("… and any timm model by its name")
    return "\n".join(lines)


def _networks() -> str:
    """Return the papers' networks with their costs, beside what was published of them."""
    from bench.backbones import networks
    from leaderboard.published import load

    figures = load()
    lines = [f"{'network':24}{'params M':>10}{'fused M':>10}{'GMACs':>8}  at     published"]
    sources: dict[str, int] = {}
    for network in networks():
        h, w = network.input_size
        told = []
        for figure in (f for f in figures if f.network == network.name):
            number = sources.setdefault(figure.source, len(sources) + 1)
            without = f"{figure.without_operator:g}→" if figure.without_operator else ""
            unit = "" if figure.unit == "%" else f" {figure.unit}"
            told.append(f"{figure.metric} {without}{figure.value:g}{unit} [{number}]")
        lines.append(
            f"{network.name:24}{network.params / 1e6:10.3f}{network.params_fused / 1e6:10.3f}"
            f"{network.gmacs:8.3f}  {f'{h}×{w}':6} {', '.join(told) or '—'}"
        )
    lines += ["", "counted here: params, fused params, GMACs of the fused form; sources:"]
    lines += [f"[{number}] {source}" for source, number in sources.items()]
    return "\n".join(lines)


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def fit_once(arguments: Sequence[str], folder: Path, command: str) -> bool:
    """Run one Lightning configuration with its bar; return whether it ended well."""
    from bench import fit
    from bench.cell import run

    if not arguments:
        fit.parser().print_help()
        return True
    config = fit.resolve(fit.from_arguments(arguments))
    build = config["model"]["init_args"]["backbone"].get("init_args") or {}
    arm = overlays.Arm(
        label=build.get("operator") or "host",
        operator=build.get("operator"),
        options=build.get("options") or {},
        where=build.get("where"),
        mix=build.get("mix"),
    )
    cell = Cell(
        suite="fit",
        task=config["model"]["class_path"].rpartition(".")[2].lower(),
        host=str(build.get("host", "own")),
        arm=arm,
        recipe="fit",
        seed=config["seed_everything"],
        baseline=False,
        config=config,
    )
    record = run(cell, folder, command, progress_bar=True)
    console.print(_line(cell, record))
    console.print(f"MLflow run {record.provenance.mlflow_run} in {folder.name}/")
    return record.status == "ok"


def write_site(records: Path, out: Path) -> Path:
    """Write the site of all records in a folder; return its first page."""
    from leaderboard.build import build

    if not records.is_dir() or not any(records.rglob("*.json")):
        raise OverlayError(
            f"`--records` (={str(records)!r}): no record there; "
            "run a suite, then `convboard export`."
        )
    build(records, out)
    return out / "index.html"
