"""What the page of a machine shows: what it is, what was measured there, and how steadily."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from bench.record import Record
from leaderboard.names import machine_file, machine_name
from leaderboard.show import Show


def machine_views(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Return path of the page → the variables of `machine.html`, in the order of the paths."""
    by_page: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_page[machine_file(record)].append(record)
    return {page: _view(page, by_page[page]) for page in sorted(by_page)}


def _view(page: str, records: list[Record]) -> dict[str, Any]:
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
        "runs": _runs(records),
        "software": _software(records),
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
