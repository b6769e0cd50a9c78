"""Measure arms against a baseline: hand the work to fresh processes and gather their samples."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from bench.machine import machine, usable_cores
from bench.record import Memory, Status, canonical, digest
from bench.speed.job import Job, Note
from bench.speed.protocol import PROTOCOL, Layout, Scope, Settings
from bench.speed.result import ArmResult

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Arm:
    """One thing to time: `factory` returns its fp32 training form in eval mode.

    The factory must be picklable (a function of a module, or functools.partial of one), and make
    equal weights whenever torch's seed is equal.
    """

    label: str
    factory: Callable[[], nn.Module]


def measure(
    arms: Sequence[Arm],
    *,
    baseline: str,
    input_size: tuple[int, int],
    folder: Path,
    prepare: Callable[[nn.Module], nn.Module] | None = None,
    batches: Sequence[int] = (1, 8),
    in_channels: int = 3,
    device: str = "cpu",
    dtype: str = "float32",
    layout: Layout = "contiguous",
    compiled: bool = False,
    threads: int | None = None,
    processes: int = 5,
    rounds: int = 20,
    seed: int = 0,
    scope: Scope = "backbone",
    min_block_ms: float = 10.0,
    warmup_min_ms: float = 50.0,
    warmup_cap_ms: float = 2000.0,
    memory: bool = True,
    process_limit_s: float = 3600.0,
    fingerprint: str = "",
    progress: Progress | None = None,
) -> list[ArmResult]:
    """Time all arms together by the protocol and return a result per arm and batch size.

    Args:
        arms: what to time; labels are unique.
        baseline: label of the arm to which the others are compared.
        input_size: (height, width) of the images in pixels.
        folder: keeps the raw samples of finished processes, below a folder named by what the run
            is; a run that was interrupted goes on, one that is finished is not measured again.
        prepare: makes the timed form of the training form, e.g. `bench.backbones.fuse`; it is
            pickled as well. None times the training form.
        batches: batch sizes; 1 is latency, larger ones throughput.
        in_channels: channels of the input.
        device: 'cpu' or 'cuda'.
        dtype: 'float32', 'bfloat16' or 'float16'; weights and input are cast.
        layout: 'contiguous' or 'channels_last'.
        compiled: time the form under torch.compile.
        threads: CPU threads; by default every core that this process may use.
        processes: fresh processes; a published row takes at least 5. With 1 there are no
            intervals.
        rounds: turns of each arm in each process and batch size; a published row takes 20.
        seed: of weights, inputs and the order of turns.
        scope: what the arms are: 'operator', 'backbone' or 'end_to_end'.
        min_block_ms: the least time of a sample's block of iterations.
        warmup_min_ms: the least time of a warm-up.
        warmup_cap_ms: the time after which a warm-up that has not settled is ended.
        memory: take the memory pass too (not under `compiled`).
        process_limit_s: the time after which a process is killed.
        fingerprint: anything else that must be equal for kept samples to count, such as a hash
            of the operators' code.
        progress: called with (finished processes, all processes, what is next).

    Raises:
        ValueError: for a wrong argument.
        RuntimeError: where worker processes die before they reach an arm.
    """
    settings = Settings(
        baseline=baseline,
        input_size=(input_size[0], input_size[1]),
        batches=tuple(batches),
        in_channels=in_channels,
        device=device,
        dtype=dtype,
        layout=layout,
        compiled=compiled,
        threads=usable_cores() if threads is None else threads,
        processes=processes,
        rounds=rounds,
        seed=seed,
        scope=scope,
        min_block_ms=min_block_ms,
        warmup_min_ms=warmup_min_ms,
        warmup_cap_ms=warmup_cap_ms,
    )
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("`device` (='cuda') must be present: torch sees no GPU here.")
    pickled = _pickled(arms, baseline)
    prepared = _pickle("prepare", prepare)
    key = digest(
        {
            "protocol": PROTOCOL,
            "settings": asdict(settings),
            "arms": [[label, data.hex()] for label, data in pickled],
            "prepare": prepared.hex(),
            "memory": memory,
            "fingerprint": fingerprint,
            "torch": torch.__version__,
            "machine": machine().model_dump(),
        }
    )
    campaign = Campaign(Path(folder) / f"run-{key[:12]}", process_limit_s)
    run_id = campaign.identify(key)
    tell = progress or _silent
    wanted = memory and not compiled
    alone = wanted and device == "cuda"
    total = processes + alone
    job = partial(Job, settings, pickled, prepared)
    done: list[dict[str, Any]] = []
    if alone:
        tell(0, total, "memory")
        done.append(campaign.finish(job(process=0, memory=True), "memory"))
    for process in range(processes):
        tell(process + alone, total, f"process {process + 1} of {processes}")
        first = wanted and not alone and process == 0
        skip = frozenset((c["label"], c["batch"]) for r in done for c in r["cells"] if _failed(c))
        todo = job(process=process, memory=first, skip=skip)
        done.append(campaign.finish(todo, f"process-{process}"))
    tell(total, total, "done")
    return _results([arm.label for arm in arms], settings, run_id, done)


def _silent(done: int, total: int, what: str) -> None:
    """Tell nobody."""


def _failed(cell: dict[str, Any]) -> bool:
    return bool(cell["status"] != "ok")


def _pickled(arms: Sequence[Arm], baseline: str) -> list[tuple[str, bytes]]:
    labels = [arm.label for arm in arms]
    if len(set(labels)) < len(labels):
        raise ValueError(f"`arms` (={labels}) must have unlike labels.")
    if baseline not in labels:
        raise ValueError(f"`baseline` (={baseline!r}) must be one of {labels}.")
    return [(arm.label, _pickle(f"factory of {arm.label}", arm.factory)) for arm in arms]


def _pickle(what: str, value: Any) -> bytes:
    inner = value
    while isinstance(inner, partial):
        inner = inner.func
    reason = "it is defined in the script that runs"
    try:
        if getattr(inner, "__module__", None) != "__main__":
            return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = str(error)
    raise ValueError(
        f"`{what}` (={inner!r}) must be a function of a module that fresh processes can import, "
        f"or functools.partial of one: {reason}."
    )


class Campaign:
    """The folder of one speed run and the worker processes that fill it."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self.folder, self.limit_s = folder, limit_s
        folder.mkdir(parents=True, exist_ok=True)

    def identify(self, key: str) -> str:
        """Return the id of the run: its key and the moment when it was begun."""
        path = self.folder / "run.json"
        if not path.exists():
            begun = datetime.now(UTC).isoformat(timespec="microseconds")
            path.write_text(canonical({"key": key, "begun": begun}) + "\n", encoding="utf-8")
        return digest(json.loads(path.read_text(encoding="utf-8")))[:16]

    def finish(self, job: Job, name: str) -> dict[str, Any]:
        """Return the result of a job, from its file where it is finished.

        A worker that dies is started once more; at its second death at the same place that arm
        (and batch size) becomes a row that says how it died, and the others go on without it.
        """
        path = self.folder / f"{name}.json"
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        deaths: dict[tuple[str | None, int | None], int] = {}
        lost: list[dict[str, Any]] = []
        while True:
            gone = frozenset((cell["label"], cell["batch"]) for cell in lost)
            attempt = Job(**{**vars(job), "skip": job.skip | gone})
            found = self._start(attempt, name)
            if not isinstance(found, _Death):
                found["cells"] += lost
                path.write_text(canonical(found) + "\n", encoding="utf-8")
                return found
            place = (found.label, found.batch)
            deaths[place] = deaths.get(place, 0) + 1
            if deaths[place] < 2:
                continue
            if found.label is None:
                raise RuntimeError(f"speed workers cannot start: {found.error}")
            lost += [
                {"label": found.label, "batch": b, "status": found.status, "error": found.error}
                for b in job.settings.batches
                if found.batch in (None, b) and (found.label, b) not in attempt.skip
            ]

    def _start(self, job: Job, name: str) -> dict[str, Any] | _Death:
        paths = {end: self.folder / f"{name}.{end}" for end in ("job", "result", "note", "log")}
        paths["job"].write_bytes(pickle.dumps(job))
        paths["note"].unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.speed.worker"]
        command += [str(paths[end]) for end in ("job", "result", "note")]
        threads = str(job.settings.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OMP_DYNAMIC": "FALSE",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        with paths["log"].open("wb") as log:
            # A session of its own: an interrupt reaches this process alone, which ends the worker.
            worker = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            timeout = False
            try:
                worker.wait(self.limit_s)
            except subprocess.TimeoutExpired:
                timeout = True
            finally:
                if worker.poll() is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                    worker.wait()
        if worker.returncode == 0:
            found: dict[str, Any] = json.loads(paths["result"].read_text(encoding="utf-8"))
            for path in paths.values():
                path.unlink()
            return found
        return _death(paths, worker.returncode, self.limit_s if timeout else None)


@dataclass(frozen=True)
class _Death:
    """How and where a worker ended before it had a result."""

    status: Literal["oom", "error", "timeout"]
    error: str
    label: str | None
    batch: int | None


def _death(paths: dict[str, Path], code: int, limit_s: float | None) -> _Death:
    note = Note.read(paths["note"]) or {"stage": "start", "label": None, "batch": None}
    lines = paths["log"].read_text(errors="replace").strip().splitlines()
    said = f"; it said: {lines[-1][:300]}" if lines else ""
    at = f"at stage {note['stage']!r}, twice"
    if limit_s is not None:
        status, why = "timeout", f"the process was ended after {limit_s:g} s {at}"
    elif code == -signal.SIGKILL:
        status, why = "oom", f"the process was killed {at}, as happens when memory runs out"
    elif code < 0:
        status, why = "error", f"the process died of {signal.Signals(-code).name} {at}{said}"
    else:
        status, why = "error", f"the process ended with exit code {code} {at}{said}"
    return _Death(status, why, note["label"], note["batch"])  # type: ignore[arg-type]


def _results(
    labels: list[str], settings: Settings, run_id: str, done: list[dict[str, Any]]
) -> list[ArmResult]:
    timed = {
        (label, batch): [
            c for r in done for c in r["cells"] if (c["label"], c["batch"]) == (label, batch)
        ]
        for label in labels
        for batch in settings.batches
    }
    return [
        _result(label, batch, settings, run_id, cells, timed[settings.baseline, batch])
        for (label, batch), cells in timed.items()
    ]


def _result(
    label: str,
    batch: int,
    settings: Settings,
    run_id: str,
    cells: list[dict[str, Any]],
    baseline: list[dict[str, Any]],
) -> ArmResult:
    def values(name: str) -> list[Any]:
        return [cell[name] for cell in cells if cell.get(name) not in (None, [])]

    bad = next((cell for cell in cells if _failed(cell)), None)
    status: Status = bad["status"] if bad else "ok"
    memory = next(iter(values("memory")), None)
    blocks = sum(len(samples) for samples in values("samples_ms"))
    return ArmResult(
        label=label,
        batch=batch,
        settings=settings,
        run=run_id,
        status=status,
        error=bad["error"] if bad else None,
        samples_ms=values("samples_ms"),
        baseline_samples_ms=[c["samples_ms"] for c in baseline if c.get("samples_ms")],
        wall_ms=values("wall_ms"),
        host_bound=2 * sum(values("host_bound_blocks")) > blocks if blocks else None,
        first_call_ms=values("first_call_ms"),
        warmup_iterations=values("warmup_iterations"),
        steady=all(values("steady")) if values("steady") else None,
        gate_error=max(values("gate_error"), default=None),
        memory=Memory(**memory) if memory else None,
    )
