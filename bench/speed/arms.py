"""Measure arms against a baseline: hand the work to fresh processes and gather their samples."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.errors import UserError
from bench.hashing import digest
from bench.machine import machine, usable_cores, usable_threads
from bench.record import Conditions, Memory, Status
from bench.speed import gpu_state
from bench.speed.campaign import Campaign
from bench.speed.crew import Crew
from bench.speed.job import Job
from bench.speed.protocol import PROTOCOL, Engine, Forms, Layout, Scope, Settings
from bench.speed.result import ArmResult

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Arm:
    """One thing to time: `factory` returns its fp32 training form.

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
    images: NDArray[np.float32] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    layout: Layout = "fastest",
    forms: Forms = "measured",
    engine: Engine = "torch",
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
    imports: Sequence[str] = (),
    crew: Crew | None = None,
    progress: Progress | None = None,
) -> list[ArmResult]:
    """Time all arms together by the protocol and return a result per arm and batch size.

    Args:
        arms: what to time; labels are unique.
        baseline: label of the arm to which the others are compared.
        input_size: (height, width) of the images in pixels.
        folder: keeps the raw samples of finished processes, below a folder named by what the run
            is; a run that was interrupted goes on, one that is finished is not measured again,
            unless anything failed in it.
        prepare: makes the timed form of the training form, e.g. `bench.backbones.fuse`; it is
            pickled as well. None times the training form.
        batches: batch sizes; 1 is latency, larger ones throughput.
        in_channels: channels of the input.
        images: (N, in_channels, *input_size), timed on in place of noise from N(0, 1).
        device: 'cpu' or 'cuda'.
        dtype: 'float32', 'bfloat16' or 'float16'; weights and input are cast.
        layout: 'contiguous', 'channels_last', or the 'fastest' of both for each arm.
        forms: take the exact forms of operators that are 'measured' to be the fastest, or those
            of the 'rule'.
        engine: what runs the form: 'torch', 'compile' (torch.compile), or on a CPU 'onnxruntime'
            or 'openvino', for which it is exported to ONNX.
        threads: CPU threads; by default as many as this process may compute with: its cores, or
            fewer where OMP_NUM_THREADS says so.
        processes: fresh processes; a published row takes at least 5. With 1 there are no
            intervals.
        rounds: turns of each arm in each process and batch size; a published row takes 20.
        seed: of weights, inputs and the order of turns.
        scope: what is timed: 'operator', 'backbone' or 'end_to_end' inference, or 'training'
            steps; end to end weights are timed as they are, else constant ones are drawn anew
            before forms are compared. A module with a method `compared(x)` is compared by what
            that returns, a training step by its loss and gradients.
        min_block_ms: the least time of a sample's block of iterations.
        warmup_min_ms: the least time of a warm-up.
        warmup_cap_ms: the time after which a warm-up that has not settled is ended.
        memory: take the memory pass too (of engine 'torch' alone).
        process_limit_s: the time after which a process is killed.
        fingerprint: anything else that must be equal for kept samples to count, such as a hash
            of the operators' code.
        imports: modules that arms import as they are built: workers do so before, side by side.
        crew: workers that go on to the next run; by default workers of this run alone.
        progress: called with (finished processes, all processes, name of the next).

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
        forms=forms,
        engine=engine,
        threads=usable_threads() if threads is None else threads,
        processes=processes,
        rounds=rounds,
        seed=seed,
        scope=scope,
        min_block_ms=min_block_ms,
        warmup_min_ms=warmup_min_ms,
        warmup_cap_ms=warmup_cap_ms,
    )
    require_device(device)
    if images is not None:
        images = _checked(images, settings)
    pickled = _pickled(arms, baseline)
    prepared = _pickle("prepare", prepare)
    key = digest(
        {
            "protocol": PROTOCOL,
            "settings": asdict(settings),
            "arms": [[label, data.hex()] for label, data in pickled],
            "prepare": prepared.hex(),
            "images": None if images is None else sha256(images.tobytes()).hexdigest(),
            "memory": memory,
            "fingerprint": fingerprint,
            "torch": torch.__version__,
            "machine": machine().model_dump(),
        }
    )
    wanted = memory and engine == "torch"
    names = ["memory"] * wanted + [f"process-{process:03}" for process in range(processes)]
    run_folder = Path(folder) / f"run-{key[:12]}"
    with (
        Crew(usable_cores()) if crew is None else nullcontext(crew) as workers,
        _as_file(images, run_folder) as file,
    ):
        campaign = Campaign(run_folder, process_limit_s, workers)
        run_id = campaign.begin(key, names)
        job = partial(
            Job,
            settings,
            pickled,
            prepared,
            images=file,
            imports=tuple(imports),
            limit_s=process_limit_s / (len(arms) * len(batches)),
        )
        jobs = {"memory": job(process=0, memory=True)} if wanted else {}
        jobs |= {name: job(process=k) for k, name in enumerate(names[-processes:])}
        done = campaign.run(jobs, progress or _silent)
    return _results([arm.label for arm in arms], settings, run_id, done)


def require_device(device: str) -> None:
    """Raise a UserError where a GPU is asked for and torch sees none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("`device` (='cuda') must be present: torch sees no GPU here.")


@contextmanager
def _as_file(images: NDArray[np.float32] | None, folder: Path) -> Iterator[Path | None]:
    """Keep images in a file for as long as the workers need them."""
    if images is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.absolute() / "images.npy"
    np.save(path, images)
    try:
        yield path
    finally:
        path.unlink()


def _checked(images: NDArray[np.float32], settings: Settings) -> NDArray[np.float32]:
    wanted = (settings.in_channels, *settings.input_size)
    if images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        raise UserError(f"`images` (of shape {images.shape}) must be (N, {wanted}), N >= 1.")
    return np.ascontiguousarray(images, dtype=np.float32)


def _silent(done: int, total: int, what: str) -> None:
    """Tell nobody."""


def _pickled(arms: Sequence[Arm], baseline: str) -> list[tuple[str, bytes]]:
    labels = [arm.label for arm in arms]
    if len(set(labels)) < len(labels):
        raise UserError(f"`arms` (={labels}) must have unlike labels.")
    if baseline not in labels:
        raise UserError(f"`baseline` (={baseline!r}) must be one of {labels}.")
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
    raise UserError(
        f"`{what}` (={inner!r}) must be a function of a module that fresh processes can import, "
        f"or functools.partial of one: {reason}."
    )


def _results(
    labels: list[str], settings: Settings, run_id: str, done: list[dict[str, Any]]
) -> list[ArmResult]:
    conditions = next((r["conditions"] for r in done if "conditions" in r), None)
    run = partial(
        ArmResult,
        settings=settings,
        run=run_id,
        conditions=Conditions(**conditions) if conditions else None,
    )
    timed = {
        (label, batch): [
            c for r in done for c in r["cells"] if (c["label"], c["batch"]) == (label, batch)
        ]
        for label in labels
        for batch in settings.batches
    }
    return [
        _result(partial(run, label=label, batch=batch), cells, timed[settings.baseline, batch])
        for (label, batch), cells in timed.items()
    ]


def _result(
    result: Callable[..., ArmResult], cells: list[dict[str, Any]], baseline: list[dict[str, Any]]
) -> ArmResult:
    def values(name: str) -> list[Any]:
        return [cell[name] for cell in cells if cell.get(name) not in (None, [], {})]

    bad = next((cell for cell in cells if cell["status"] != "ok"), None)
    status: Status = bad["status"] if bad else "ok"
    memory = next(iter(values("memory")), None)
    energies = values("energy_per_image_joules")
    blocks = sum(len(samples) for samples in values("samples_ms"))
    return result(
        status=status,
        error=bad["error"] if bad else None,
        samples_ms=values("samples_ms"),
        baseline_samples_ms=[c["samples_ms"] for c in baseline if c.get("samples_ms")],
        wall_ms=values("wall_ms"),
        host_bound=2 * sum(values("host_bound_blocks")) > blocks if values("wall_ms") else None,
        first_call_ms=values("first_call_ms"),
        warmup_iterations=values("warmup_iterations"),
        block_iterations=values("block_iterations"),
        forms=next(iter(values("forms")), {}),
        steady=all(values("steady")) if values("steady") else None,
        gate_error=max(values("gate_error"), default=None),
        gpu=gpu_state.summary([sample for samples in values("gpu") for sample in samples]),
        energy_per_image_joules=median(energies) if energies else None,
        memory=Memory(**memory) if memory else None,
        memory_error=next(iter(values("memory_error")), None),
    )
