"""How fast the operators' own forms are: against their public code, and against the machine.

Every operator alone, at the four stages of a small network: its fastest form beside the form of
its public code, and a training step beside the same step by torch's own calls, interleaved in one
run. Beside them stands what the machine can do: the time that its peak of arithmetic, or of
memory, leaves.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.speed import SpeedConfig
from bench.hashing import digest
from bench.machine import provenance
from bench.record import Entry, Interval, Record, load_all
from bench.run.code import operator_sha256
from bench.run.race import Contender, Race, Timed
from bench.run.timing import measured, record_of
from bench.run.untrained import LAYER
from bench.speed.layers import Shape
from bench.store import Store

if TYPE_CHECKING:
    from torch import nn

    from bench.speed.crew import Crew

PLACES = ((80, 56), (160, 28), (320, 14), (640, 7))
"""Channels and size of the map."""
KERNELS: dict[str, tuple[int, int, int, int]] = {
    "dwconv": (7, 7, 7, 7),
    "parc": (7, 7, 7, 7),
    "shift": (51, 49, 47, 13),
    "acb": (7, 7, 7, 7),
    "unireplk": (13, 13, 13, 13),
    "icconv": (3, 3, 3, 3),
    "replk": (31, 31, 31, 31),
    "slak": (51, 51, 51, 51),
}
"""Size of the kernel at each place; the papers' own where they differ from 7."""
DENSE = ("icconv",)
"""Operators that stand for a dense convolution; the others are depthwise."""


@dataclass(frozen=True)
class Ceiling:
    """What the machine can do with these threads: FLOP and bytes a second, both measured."""

    flops: float
    bytes: float

    def ms(self, macs: int, moved: int) -> float:
        """Return the least time of so many multiply-accumulates, and bytes that move."""
        return 1000 * max(2 * macs / self.flops, moved / self.bytes)


def ceiling(
    threads: int, seconds: float = 0.5, *, device: str = "cpu", dtype: str = "float32"
) -> Ceiling:
    """Measure the machine: one large matrix product, and one copy larger than its caches.

    Args:
        threads: of both, on a CPU.
        seconds: how long each is repeated; the best counts.
        device: "cpu" or "cuda".
        dtype: of the factors; float32 is multiplied as such, not as TF32.

    Raises:
        UserError: torch sees no GPU, and one is asked for.

    Example:
        >>> ceiling(1, 0.01).flops > 0
        True
    """
    import torch

    from bench.speed.arms import require_device

    require_device(device)
    on_gpu = device == "cuda"
    products = torch.backends.cuda.matmul
    before = torch.get_num_threads(), products.allow_tf32
    torch.set_num_threads(threads)
    products.allow_tf32 = False

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    try:
        side, size = (8192, 1 << 28) if on_gpu else (1536, 1 << 26)
        a, b, c = (
            torch.randn(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(3)
        )
        source, target = torch.ones(size, device=device), torch.ones(size, device=device)
        product = _best(functools.partial(torch.mm, a, b, out=c), wait, seconds)
        copy = _best(functools.partial(target.copy_, source), wait, seconds)
    finally:
        torch.set_num_threads(before[0])
        products.allow_tf32 = before[1]
    return Ceiling(2 * side**3 / product, 2 * 4 * size / copy)


def _best(call: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> float:
    call()
    wait()
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def races(operators: Sequence[str], plan: SpeedConfig, words: str) -> list[Race]:
    """Return the races of operators against their public code, in each scope of the plan.

    Args:
        operators: of KERNELS.
        plan: how they are timed; its scopes are "operator" (inference) and "training".
        words: the command line behind `convboard`, for the records.
    """
    return [
        _race(name, Shape(channels, size, kernel), scope, plan, words)
        for scope in ("operator", "training")
        if scope in plan.scopes
        for name in operators
        for (channels, size), kernel in zip(PLACES, KERNELS[name], strict=True)
    ]


def _race(name: str, place: Shape, scope: Any, plan: SpeedConfig, words: str) -> Race:
    def entry(published: bool) -> Entry:
        learning = scope == "training"
        return Entry(
            label=f"{name}, published" if published else name,
            operator=name,
            operator_options={"groups": 1} if name in DENSE else {},
            operator_sha256=operator_sha256(name),
            host=LAYER,
            host_options=place.to_json(),
            task="operator",
            form="published" if published else "training" if learning else "fused",
            baseline=published,
        )

    entries = [entry(False), entry(True)]
    return Race(
        title=f"perf · {scope} · {name} · {place}",
        words=words,
        scope=scope,
        plan=plan,
        contenders=tuple(Contender(e, [name, str(place), e.form]) for e in entries),
        input_size=place.input_size,
        load=functools.partial(_load, name, place),
        in_channels=place.channels,
    )


def _load(name: str, place: Shape, store: Store | None, folder: Path) -> Timed:
    from bench.speed import Arm

    arms = [
        Arm(label, functools.partial(_layer, name, place, published))
        for label, published in ((name, False), (f"{name}, published", True))
    ]
    return Timed(arms, prepare=_inference_form)


def _layer(name: str, place: Shape, published: bool) -> nn.Module:
    from torch import nn

    from bench.speed.layers import layer
    from bench.speed.published import Published

    model = layer(name, place, {"groups": 1} if name in DENSE else {})
    return nn.Sequential(Published(model[0])) if published else model  # type: ignore[index]


def _inference_form(model: nn.Module) -> nn.Module:
    from torch import nn

    from bench.backbones import fuse
    from bench.speed.published import Published

    first = next(model.children())
    return nn.Sequential(first.timed()) if isinstance(first, Published) else fuse(model)


@dataclass(frozen=True)
class Row:
    """One operator at one place and batch size: our record, and that of the public form."""

    ours: Record
    published: Record

    @property
    def key(self) -> tuple[Any, ...]:
        """What two rows of different commits share."""
        entry, speed = self.ours.entry, self.ours.speed
        assert speed is not None
        place = tuple(sorted(entry.host_options.items()))
        how = (speed.batch, speed.threads, speed.dtype, speed.device)
        return speed.scope, entry.operator, place, *how

    @property
    def gain(self) -> Interval | None:
        """Time of the public form / time of ours."""
        ratio = self.ours.speed.ratio_to_baseline if self.ours.speed else None
        if ratio is None:
            return None
        inverse = {"value": 1 / ratio.value, "low": 1 / ratio.high, "high": 1 / ratio.low}
        return ratio.model_copy(update=inverse)

    def share(self, ceiling: Ceiling) -> float | None:
        """Return the least time that the machine leaves / our time, of inference."""
        speed, entry = self.ours.speed, self.ours.entry
        if speed is None or speed.latency_median_ms is None or speed.scope != "operator":
            return None
        width = 4 if speed.dtype == "float32" else 2
        macs, moved = _work(entry.operator, Shape(**entry.host_options), speed.batch, width)
        return ceiling.ms(macs, moved) / speed.latency_median_ms.value


@functools.cache
def _work(name: str, place: Shape, batch: int, width: int) -> tuple[int, int]:
    """MACs of the fused form, and the bytes of its weights, its input and its output."""
    import torch

    from bench.operators import Operator

    with torch.device("meta"):
        operator = next(_layer(name, place, False).children())
    assert isinstance(operator, Operator)
    fused = operator.fuse()
    h, w = place.input_size
    maps = batch * (operator.spec.in_channels * h * w) * 2
    return batch * fused.macs(h, w), width * (maps + fused.params())


def run(
    race: Race,
    folder: Path,
    command: str,
    progress: Callable[[int, int, str], None] | None = None,
    crew: Crew | None = None,
) -> list[Row]:
    """Time a race, write its records into a folder, and return its rows.

    Args:
        race: one of `races`.
        folder: of the commit; samples of finished processes are kept beside it, by commit and
            by what was changed since.
        command: the command line, for the records.
        progress: see `bench.speed.measure`.
        crew: workers that go on to the next race.
    """
    timed = race.load(None, folder)  # type: ignore[arg-type]
    code = provenance(command=command, reproduce="")
    samples = folder.parent / "samples" / digest([code.git_commit, code.git_patch_sha256])[:12]
    results = measured(race, timed, samples, progress, crew)
    again = f"convboard {race.words}"
    records = [record_of(race, timed, result, command, again) for result in results]
    for record in records:
        record.save(folder)
    return rows(records)


def rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of records: ours and the public ones of the same speed run and batch."""
    timed = [record for record in records if record.speed is not None]
    published = {
        (record.speed.run, record.speed.batch): record
        for record in timed
        if record.speed is not None and record.entry.form == "published"
    }
    return [
        Row(record, published[record.speed.run, record.speed.batch])
        for record in timed
        if record.speed is not None
        and record.entry.form != "published"
        and (record.speed.run, record.speed.batch) in published
    ]


def kept_rows(folder: Path) -> dict[tuple[Any, ...], Row]:
    """Return the newest row of each key in a folder of records."""
    records = sorted(load_all(folder), key=lambda record: record.provenance.created)
    return {row.key: row for row in rows(records)}


def change(now: Row, before: Row) -> Interval | None:
    """Return our time / our time before, both against the public form of their own run.

    The public form stands for the machine of the day; the intervals of both runs add up.
    """
    new, old = now.gain, before.gain
    if new is None or old is None:
        return None
    centre = math.log(old.value) - math.log(new.value)
    spread = math.hypot(*(math.log(i.high / i.low) / 2 for i in (new, old)))
    return new.model_copy(
        update={
            "value": math.exp(centre),
            "low": math.exp(centre - spread),
            "high": math.exp(centre + spread),
            "method": "ratio of two runs, each against the public form",
        }
    )


def summary(gains: Sequence[Interval]) -> tuple[float, float]:
    """Return the geometric mean of gains, and the least."""
    values = [gain.value for gain in gains]
    return statistics.geometric_mean(values), min(values)
