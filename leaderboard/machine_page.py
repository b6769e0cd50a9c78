"""What the page of a machine shows: what it is, what was measured there, and how steadily."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from bench.record import Record
from leaderboard.names import machine_file, machine_name
from leaderboard.show import Show


def machine_views(
    records: Iterable[Record], filenames: Mapping[int, str]
) -> dict[str, dict[str, Any]]:
    """Return path of the page → the variables of `machine.html`, in the order of the paths.

    Args:
        records: of all machines.
        filenames: id of a record → name of its file.
    """
    by_page: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_page[machine_file(record)].append(record)
    return {page: _view(page, by_page[page], filenames) for page in sorted(by_page)}


def _view(page: str, records: list[Record], filenames: Mapping[int, str]) -> dict[str, Any]:
    machine = records[0].machine
    memory = machine.memory_bytes / 2**30
    facts = [
        ("Processor", machine.cpu),
        ("Cores", machine.cores),
        ("Memory", f"{memory:.1f} GiB"),
        ("GPU", f"{machine.gpu_count} × {machine.gpu}" if machine.gpu else "none"),
        ("Driver", machine.driver),
        ("System", machine.os),
    ]
    days = sorted({record.provenance.created[:10] for record in records})
    return {
        "page": page,
        "name": machine_name(records[0]),
        "facts": [(name, value) for name, value in facts if value is not None],
        "kinds": sorted(Counter(record.kind for record in records).items()),
        "days": days,
        "times": _alone(records, filenames),
        "runs": _runs(records),
        "software": _software(records),
    }


def _alone(records: Iterable[Record], filenames: Mapping[int, str]) -> list[dict[str, Any]]:
    """The times of networks and operators that stand on no board, the newest run first.

    What was timed in a suite is on its boards; forms against each other, on operators' pages.
    """
    by_table: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        alone = record.provenance.suite is None and record.entry.exact_form is None
        if record.speed and alone and record.entry.form != "published":
            by_table[record.speed.run, record.speed.scope, record.speed.batch].append(record)
    tables = []
    for of_table in by_table.values():
        first = of_table[0]
        speed = first.speed
        assert speed is not None
        height, width = speed.input_size
        device = "GPU" if speed.device == "cuda" else f"{speed.threads} threads"
        step = "training step" if speed.scope == "training" else "inference"
        what = first.entry.host
        if speed.scope == "operator":
            what = "one layer of {channels} channels, kernel {kernel_size}, stride {stride}".format(
                **first.entry.host_options
            )
        tables.append(
            {
                "title": f"{what}, {height}×{width}, {step}, batch {speed.batch}",
                "setting": f"{speed.dtype}, {device}, {speed.processes} processes of "
                f"{speed.rounds} rounds, {first.provenance.created[:10]}",
                "baseline": speed.baseline,
                "command": first.provenance.reproduce,
                "created": max(record.provenance.created for record in of_table),
                "rows": [
                    _time(record, filenames[id(record)])
                    for record in sorted(of_table, key=_by_time)
                ],
            }
        )
    return sorted(tables, key=lambda table: (table["created"], table["title"]), reverse=True)


def _by_time(record: Record) -> tuple[bool, float, str]:
    """The baseline first, then the fastest; what has no time last."""
    assert record.speed is not None
    time = record.speed.latency_median_ms
    ratio = record.speed.ratio_to_baseline
    lead = record.speed.verdict != "baseline"
    return lead, ratio.value if ratio else 0 if time else math.inf, record.entry.label


def _time(record: Record, file: str) -> dict[str, Any]:
    speed, memory = record.speed, record.memory
    assert speed is not None
    peak = (memory.peak_allocated_bytes or memory.peak_rss_bytes) if memory else None
    joules = speed.energy_per_image_joules
    marks = {
        speed.noise: speed.noise not in ("stable", None),
        "waits for the host": speed.host_bound,
        "throttled": speed.throttled,
    }
    return {
        "operator": record.entry.label,
        "file": file,
        "status": None if record.status == "ok" else f"{record.status}: {record.error}",
        "ms": Show.number(speed.latency_median_ms.value if speed.latency_median_ms else None),
        "ms_interval": Show.interval(speed.latency_median_ms),
        "ratio": Show.ratio(speed.ratio_to_baseline),
        "verdict": Show.verdict(speed),
        "rate": Show.number(speed.images_per_second.value if speed.images_per_second else None),
        "peak": Show.number(peak / 2**20 if peak else None),
        "energy": Show.number(1000 * joules if joules is not None else None),
        "marks": ", ".join(str(mark) for mark, holds in marks.items() if holds),
    }


def _runs(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Every speed run, the newest first: its setting, and how steady its times were."""
    by_run: dict[tuple[str, str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        if speed := record.speed:
            by_run[speed.run, speed.scope, speed.mode, speed.batch].append(record)
    runs = []
    for (run, scope, mode, batch), of_run in by_run.items():
        speeds = [record.speed for record in of_run if record.speed]
        first = speeds[0]
        drifts = [abs(s.drift_pct) for s in speeds if s.drift_pct is not None]
        settled = [s.steady for s in speeds if s.steady is not None]
        noise = Counter(s.noise for s in speeds if s.noise)
        runs.append(
            {
                "created": max(record.provenance.created for record in of_run),
                "run": run,
                "what": f"{scope.replace('_', ' ')}, {mode.replace('_', ' ')}, batch {batch}",
                "host": of_run[0].entry.host,
                "threads": first.threads,
                "protocol": first.protocol,
                "arms": len(of_run),
                "stable": noise["stable"],
                "noisy": noise["noisy"],
                "unstable": noise["unstable"],
                "drift": Show.number(max(drifts), 2) if drifts else None,
                "settled": f"{sum(settled)} of {len(settled)}" if settled else None,
            }
        )
    return sorted(runs, key=lambda r: (r["created"], r["run"], r["what"], r["host"]), reverse=True)


def _software(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Package → the versions that were used."""
    versions: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, version in record.software.items():
            versions[name].add(version)
    return [(name, ", ".join(sorted(versions[name]))) for name in sorted(versions)]
