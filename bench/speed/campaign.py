"""The worker processes of one speed run, and the folder that keeps what they found."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.hashing import canonical, digest
from bench.speed.job import Job, Note

Result = dict[str, Any]
#: (label, batch) of a cell.
Place = tuple[str, int]


@dataclass(frozen=True)
class Death:
    """How and where a worker ended before it had a result; `batch` None means all."""

    status: Literal["oom", "error", "timeout"]
    why: str
    label: str | None
    batch: int | None


class Worker:
    """One fresh process. It imports what it needs, then waits, idle, to be told to go.

    Importing takes as long as measuring does in a short run, so several workers import at the
    same time; while one measures, the others are blocked and nothing else runs.
    """

    POLL_S = 0.02

    def __init__(self, folder: Path, name: str, job: Job) -> None:
        self.paths = {end: folder / f"{name}.{end}" for end in ("job", "result", "note", "log")}
        self.paths["job"].write_bytes(pickle.dumps(job))
        self.paths["note"].unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.speed.worker"]
        command += [str(self.paths[end]) for end in ("job", "result", "note")]
        threads = str(job.settings.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OMP_DYNAMIC": "FALSE",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        with self.paths["log"].open("wb") as log:
            # A session of its own: an interrupt reaches the parent alone, which ends its workers.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def wait_ready(self, limit_s: float) -> None:
        """Return when the worker has imported everything, has died, or the time is up."""
        end = time.monotonic() + limit_s
        while self.process.poll() is None and time.monotonic() < end:
            if Note.read(self.paths["note"]) is not None:
                return
            time.sleep(self.POLL_S)

    def go(self, skip: frozenset[Place], limit_s: float) -> Result | Death:
        """Let it measure everything but `skip`, and return what it found or how it died."""
        timeout = None
        try:
            self.process.communicate(json.dumps(sorted(skip)).encode(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            timeout = limit_s
        finally:
            self.end()
        if self.process.returncode != 0:
            return self._death(timeout)
        found: Result = json.loads(self.paths["result"].read_text(encoding="utf-8"))
        for path in self.paths.values():
            path.unlink()
        return found

    def end(self) -> None:
        """Kill it where it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()

    def _death(self, timeout: float | None) -> Death:
        note = Note.read(self.paths["note"]) or {"stage": "start", "label": None, "batch": None}
        lines = self.paths["log"].read_text(errors="replace").strip().splitlines()
        said = f"; it said: {lines[-1][:300]}" if lines else ""
        at, code = f"at stage {note['stage']!r}", self.process.returncode
        status: Literal["oom", "error", "timeout"] = "error"
        if timeout is not None:
            status, why = "timeout", f"the process was ended after {timeout:g} s {at}"
        elif code == -signal.SIGKILL:
            status, why = (
                "oom",
                f"the process was killed {at}, twice, as happens when memory runs out",
            )
        elif code < 0:
            why = f"the process died of {signal.Signals(-code).name} {at}, twice{said}"
        else:
            why = f"the process ended with exit code {code} {at}, twice{said}"
        return Death(status, why, note["label"], note["batch"])


class Campaign:
    """The folder of one speed run: one file per finished job, none of them measured twice.

    Args:
        folder: where the files are.
        limit_s: the time after which a worker is killed.
        ahead: how many workers import at the same time.
    """

    def __init__(self, folder: Path, limit_s: float, ahead: int) -> None:
        self.folder, self.limit_s, self.ahead = folder, limit_s, ahead
        self.waiting: dict[str, Worker] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def identify(self, key: str) -> str:
        """Return the id of the run: its key and the moment when it was begun."""
        path = self.folder / "run.json"
        if not path.exists():
            begun = datetime.now(UTC).isoformat(timespec="microseconds")
            path.write_text(canonical({"key": key, "begun": begun}) + "\n", encoding="utf-8")
        return digest(json.loads(path.read_text(encoding="utf-8")))[:16]

    def run(self, jobs: Mapping[str, Job], tell: Callable[[int, int, str], None]) -> list[Result]:
        """Return the results of the jobs, by name, in order; those in the folder are kept.

        What failed in one job is skipped in those after it.
        """
        done: list[Result] = []
        try:
            for name, job in jobs.items():
                tell(len(done), len(jobs), name)
                path = self.folder / f"{name}.json"
                if not path.exists():
                    self._start(list(jobs)[len(done) :], jobs)
                    bad = {_place(c) for r in done for c in r["cells"] if c["status"] != "ok"}
                    found = self._finish(name, replace(job, skip=frozenset(bad)))
                    partial = path.with_suffix(".partial")
                    partial.write_text(canonical(found) + "\n", encoding="utf-8")
                    partial.replace(path)
                done.append(json.loads(path.read_text(encoding="utf-8")))
            tell(len(done), len(jobs), "done")
        finally:
            for worker in self.waiting.values():
                worker.end()
            self.waiting.clear()
        return done

    def _start(self, names: list[str], jobs: Mapping[str, Job]) -> None:
        """Where none waits for its turn, start the next few and wait until all have imported."""
        if names[0] in self.waiting:
            return
        missing = [name for name in names if not (self.folder / f"{name}.json").exists()]
        for name in missing[: self.ahead]:
            self.waiting[name] = Worker(self.folder, name, jobs[name])
        for worker in self.waiting.values():
            worker.wait_ready(self.limit_s)

    def _finish(self, name: str, job: Job) -> Result:
        """Return the result of a job.

        A worker that dies is started once more; at its second death at the same place, or when
        its time is up, that arm (and batch size) becomes a row that says how it ended, and the
        others go on without it.
        """
        deaths: dict[tuple[str | None, int | None], int] = {}
        lost: list[Result] = []
        worker = self.waiting.pop(name)
        while True:
            skip = job.skip | {_place(cell) for cell in lost}
            found = worker.go(skip, self.limit_s)
            if not isinstance(found, Death):
                found["cells"] += lost
                return found
            at = (found.label, found.batch)
            deaths[at] = deaths.get(at, 0) + 1
            if deaths[at] == 2 or found.status == "timeout":
                if found.label is None:
                    raise RuntimeError(f"speed workers cannot start: {found.why}")
                lost += [
                    {"label": found.label, "batch": b, "status": found.status, "error": found.why}
                    for b in job.settings.batches
                    if found.batch in (None, b) and (found.label, b) not in skip
                ]
            worker = Worker(self.folder, name, job)


def _place(cell: Result) -> Place:
    return cell["label"], cell["batch"]
