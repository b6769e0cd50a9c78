"""The verb perf: the operators' own forms against their public code and the machine's ceiling."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import Verbs, runs_of, split
from bench.errors import UserError, near

if TYPE_CHECKING:
    from bench.run.perf import Ceiling, Row

DTYPES = ("float32", "bfloat16", "float16")


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    text = "time the operators' exact forms beside their public code, and the machine's ceiling"
    verb = verbs.add("perf", perf, text)
    verb.add_argument("--operators", help="comma-separated; default: all that have a public form")
    verb.add_argument("--scope", choices=("operator", "training"), help="default: both")
    verb.add_argument("--batch", help="comma-separated; default: 1,8, in training 1")
    verb.add_argument("--threads", type=int, help="default: every core, or OMP_NUM_THREADS")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    verb.add_argument("--dtype", choices=DTYPES, default="float32", help="of weights and maps")
    verb.add_argument("--processes", type=int, default=3, help="intervals are over them")
    verb.add_argument("--rounds", type=int, default=10, help="turns in each process")
    verb.add_argument(
        "--against", metavar="REV", help="compare with the records of an earlier commit, kept here"
    )


def perf(options: argparse.Namespace) -> None:
    """Time, print the tables, keep the records; status 1 where a form failed."""
    from rich.table import Table

    from bench.cli.progress import Bar, console
    from bench.config.speed import SpeedConfig, speed_plan
    from bench.machine import provenance, usable_cores, usable_threads
    from bench.run import perf
    from bench.speed.crew import Crew

    names = list(perf.KERNELS) if options.operators is None else split(options.operators)
    for name in names:
        if name not in perf.KERNELS:
            raise UserError(f"`--operators` (={name!r}): {near(name, perf.KERNELS)}")
    scopes: dict[str, list[int]] = {"operator": [1, 8], "training": [1]}
    default = {"layout": "contiguous", "warmup_cap_ms": 500, "memory": False}
    plan = speed_plan(
        SpeedConfig.model_validate({"scopes": scopes, **default}),
        options.scope,
        options.batch,
        threads=options.threads,
        device=options.device,
        dtype=options.dtype,
        processes=options.processes,
        rounds=options.rounds,
    )
    home = runs_of(options) / "perf"
    before = _before(home, options.against)
    commit = provenance(command=options.line, reproduce="").git_commit or "none"
    planned = perf.races(names, plan, options.line.removeprefix("convboard "))
    threads = plan.threads or usable_threads()
    limit = perf.ceiling(threads, device=options.device, dtype=options.dtype)
    console.print(
        f"The machine, {'its GPU' if options.device == 'cuda' else f'{threads} threads'}, "
        f"{options.dtype}: {limit.flops / 1e9:.0f} GFLOP/s in a matrix product, "
        f"{limit.bytes / 1e9:.1f} GB/s in a copy."
    )
    rows: list[Row] = []
    with Crew(usable_cores()) as crew, Bar("perf", len(planned) * plan.processes) as bar:
        for number, race in enumerate(planned):

            def step(done: int, total: int, what: str, first: int = number) -> None:
                bar.step(first * plan.processes + done, len(planned) * plan.processes)

            rows += perf.run(race, home / commit, options.line, step, crew)
    for scope in plan.scopes:
        of_scope = [row for row in rows if row.ours.speed and row.ours.speed.scope == scope]
        console.print(_table(scope, of_scope, limit, before))
        totals = Table("operator", "geometric mean", "worst", title=_title(scope), box=None)
        for name in names:
            gains = [r.gain for r in of_scope if r.ours.entry.operator == name and r.gain]
            if gains:
                mean, worst = perf.summary(gains)
                totals.add_row(name, f"{mean:.2f}×", f"{worst:.2f}×")
        console.print(totals)
    timed = [record for row in rows for record in (row.ours, row.published)]
    bad = [record for record in timed if record.status != "ok"]
    for record in bad:
        console.print(f"{record.entry.label}: {record.status}: {record.error}", markup=False)
    if bad:
        sys.exit(1)


def _title(scope: str) -> str:
    if scope == "training":
        return "training step: torch's own time / ours"
    return "inference: time of the public code's calls / ours"


def _table(
    scope: str, rows: Sequence[Row], limit: Ceiling, before: Mapping[tuple[Any, ...], Row]
) -> Any:
    from rich.table import Table

    from bench.run import perf

    table = Table(
        "operator", "place", "batch", "public ms", "ours ms", title=_title(scope), box=None
    )
    table.add_column("public / ours")
    if scope == "operator":
        table.add_column("of ceiling")
    if before:
        table.add_column("ours / before")
    table.add_column("forms")
    for row in rows:
        speed, public = row.ours.speed, row.published.speed
        assert speed is not None
        assert public is not None
        place = row.ours.entry.host_options
        cells = [
            row.ours.entry.operator,
            f"{place['channels']}×{place['size']}² k{place['kernel_size']}",
            str(speed.batch),
            f"{public.latency_median_ms.value:.3f}" if public.latency_median_ms else "",
            f"{speed.latency_median_ms.value:.3f}" if speed.latency_median_ms else row.ours.status,
            _interval(row.gain),
        ]
        if scope == "operator":
            share = row.share(limit)
            cells.append("" if share is None else f"{100 * share:.0f} %")
        if before:
            old = before.get(row.key)
            cells.append("" if old is None else _interval(perf.change(row, old)))
        forms = [form for name, form in speed.forms.items() if name != "layout"]
        table.add_row(*cells, "; ".join(forms))
    return table


def _interval(interval: Any) -> str:
    from bench.intervals import bounds

    if interval is None:
        return ""
    return f"{interval.value:.2f} {bounds(interval.low, interval.high, 2)}"


def _before(home: Path, revision: str | None) -> Mapping[tuple[Any, ...], Row]:
    """Return the rows that were kept for an earlier commit."""
    from bench.run.perf import kept_rows

    if revision is None:
        return {}
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit = found.stdout.strip() or revision
    if not (home / commit).is_dir():
        known = sorted(f.name[:12] for f in home.glob("*") if f.is_dir() and f.name != "samples")
        raise UserError(
            f"`--against` (={revision!r}) must be a commit that `convboard perf` has measured "
            f"here: {', '.join(known) or 'none so far'}."
        )
    return kept_rows(home / commit)
