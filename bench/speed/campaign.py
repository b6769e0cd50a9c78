"""The folder of one speed run, and the jobs that fill it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import Failure
from bench.hashing import canonical, digest
from bench.record import SETTLED
from bench.speed.crew import Crew, Death, Result
from bench.speed.job import Job, Place
from bench.whole_files import write_whole


class Campaign:
    """One speed run: one file per finished job, none of them measured twice.

    A run in which anything failed is not done: once it has come to its end, the next call begins
    it anew. It is measured whole, not only where it failed, since a ratio is formed inside of one
    process only.

    Args:
        folder: where the files are.
        limit_s: the time after which a worker is killed.
        crew: the workers.
    """

    def __init__(self, folder: Path, limit_s: float, crew: Crew) -> None:
        self.folder, self.limit_s, self.crew = folder, limit_s, crew
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, key: str, names: list[str]) -> str:
        """Return the id of the run: its key and the moment when it was begun.

        Args:
            key: hash of what the run is.
            names: of all its jobs.
        """
        path = self.folder / "run.json"
        files = [self._file(name) for name in names]
        if all(file.exists() for file in files) and any(map(_failed, map(_read, files))):
            for file in (path, *files):
                file.unlink(missing_ok=True)
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
            for name in jobs:
                tell(len(done), len(jobs), name)
                if not self._file(name).exists():
                    failed = frozenset(place for result in done for place in _without_times(result))
                    self._do(name, jobs, failed)
                done.append(_read(self._file(name)))
        finally:
            self.crew.unload()
        tell(len(done), len(jobs), "done")
        return done

    def _do(self, name: str, jobs: Mapping[str, Job], failed: frozenset[Place]) -> None:
        """Do a job and keep its result; where its worker is not loaded, load the next few."""
        if not self.crew.is_loaded(name):
            left = [(n, job) for n, job in jobs.items() if not self._file(n).exists()]
            self.crew.load(left, self.limit_s)
        text = canonical(self._finish(name, jobs[name], failed))
        write_whole(self._file(name), text + "\n")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _finish(self, name: str, job: Job, failed: frozenset[Place]) -> Result:
        """Return the result of a job.

        A worker that dies is started once more; at its second death at the same place, or when
        its time is up, that arm (and batch size) becomes a row that says how it ended, and the
        others go on without it.
        """
        deaths: dict[tuple[str | None, int | None], int] = {}
        lost: list[Result] = []
        while True:
            skip = failed | {_place(cell) for cell in lost}
            # one that is loaded again builds nothing of what has failed
            answer = self.crew.go(name, replace(job, skip=job.skip | skip), skip, self.limit_s)
            if not isinstance(answer, Death):
                answer["cells"] += lost
                return answer
            at = (answer.label, answer.batch)
            deaths[at] = deaths.get(at, 0) + 1
            if deaths[at] == 2 or answer.status == "timeout":
                if answer.label is None:
                    raise Failure(f"speed workers cannot start: {answer.why}")
                lost += [
                    {
                        "label": answer.label,
                        "batch": b,
                        "status": answer.status,
                        "error": answer.why,
                    }
                    for b in job.settings.batches
                    if answer.batch in (None, b) and (answer.label, b) not in skip
                ]


def _read(path: Path) -> Result:
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result


def _failed(result: Result) -> bool:
    return any(cell["status"] not in SETTLED for cell in result["cells"])


def _without_times(result: Result) -> list[Place]:
    return [_place(cell) for cell in result["cells"] if cell["status"] != "ok"]


def _place(cell: Result) -> Place:
    return cell["label"], cell["batch"]
