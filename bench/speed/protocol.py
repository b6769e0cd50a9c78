"""The rules by which time is taken: settings, warm-up, orders, timers.

Protocol 4, as the workers follow it:

* float32 is IEEE float32 (TF32 off); denormal numbers are flushed to zero, since random weights
  meet them by chance and they cost a CPU up to a hundredfold; on a GPU cuDNN picks its algorithms
  by trial (`cudnn.benchmark`) during the warm-up.
* A sample is the time per iteration of a block of iterations that lasts at least `min_block_ms`.
  One untimed iteration precedes each block, so that an arm does not pay for the caches that the
  arm before it filled. Python's garbage collector is off.
* A warm-up is made of such blocks too: what must settle is what is sampled.
* Weights and inputs are the same in every process; the orders in which arms are built, warmed up
  and take turns are drawn anew in each.
* Operators take their fastest exact forms, and a network its fastest layout, as measured before on
  the same machine and kept in a file that all processes read (`forms: measured`); or those of the
  rule. Whichever they are, the gate comes after.
* A worker process does its share of one run after the other, so that imports are paid for once.
* The memory of an arm is measured once everything is imported that it needs.
* A training step is timed, warmed up and gated like an inference; see `bench.speed.training`.

Protocol 3 counted libraries that an arm was the first to import as its memory. Protocol 2 held a
warm-up for unsettled where times scatter by more than 1 %, as they do on any shared machine, and
classed the noise of an arm by its times, which move with the machine, in place of its ratios.
Protocol 1 built the arms in one order in all processes, which favoured some of them, and judged its
warm-ups by blocks of 2 ms, which settled by chance.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, Protocol, TypeVar, get_args

from bench.errors import UserError

PROTOCOL = "4"

T = TypeVar("T")

Scope = Literal["operator", "backbone", "end_to_end", "training"]
Layout = Literal["fastest", "contiguous", "channels_last"]
Forms = Literal["measured", "rule"]
Engine = Literal["torch", "compile", "onnxruntime", "openvino"]
EXPORTED: tuple[Engine, ...] = ("onnxruntime", "openvino")
"""Engines that run an exported form, on the CPU."""

DTYPES = ("float32", "bfloat16", "float16")
MIN_ITERATIONS = 10
SEGMENT_BLOCKS = 5
AGREEMENT = 0.01
CHANCE = 2.0
"""Standard errors by which two parts of a warm-up may differ by chance."""
PRECISION = 0.03
"""The largest such error, as a fraction, with which a warm-up may end."""
HOST_BOUND = 0.9


@dataclass(frozen=True)
class Settings:
    """What one speed run does; equal for all its arms and processes.

    Times are in milliseconds, `input_size` is (height, width) in pixels.
    """

    baseline: str
    input_size: tuple[int, int]
    batches: tuple[int, ...] = (1, 8)
    in_channels: int = 3
    device: str = "cpu"
    dtype: str = "float32"
    layout: Layout = "fastest"
    forms: Forms = "measured"
    engine: Engine = "torch"
    threads: int = 1
    processes: int = 5
    rounds: int = 20
    seed: int = 0
    scope: Scope = "backbone"
    min_block_ms: float = 10.0
    warmup_min_ms: float = 50.0
    warmup_cap_ms: float = 2000.0

    def __post_init__(self) -> None:
        """Check the values; ValueError names argument, value and rule."""
        for name in ("in_channels", "threads", "processes", "rounds"):
            _require_count(name, getattr(self, name))
        if not self.batches:
            raise UserError("`batches` (=()) must hold at least one batch size.")
        for batch in self.batches:
            _require_count("batches", batch)
        if len(set(self.batches)) < len(self.batches):
            raise UserError(f"`batches` (={self.batches}) must not hold a size twice.")
        if len(self.input_size) != 2:
            raise UserError(f"`input_size` (={self.input_size}) must be (height, width).")
        for side in self.input_size:
            _require_count("input_size", side)
        for name, known in (
            ("dtype", DTYPES),
            ("layout", get_args(Layout)),
            ("forms", get_args(Forms)),
            ("device", ("cpu", "cuda")),
            ("scope", get_args(Scope)),
            ("engine", get_args(Engine)),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"`{name}` (={getattr(self, name)!r}) must be one of {known}.")
        check_engine(self.engine, self.scope, self.dtype, self.layout, self.device)
        for name in ("min_block_ms", "warmup_min_ms", "warmup_cap_ms"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"`{name}` (={value!r}) must be a time in ms >= 0.")

    @property
    def training(self) -> bool:
        """Whether training steps are timed, in place of inference."""
        return self.scope == "training"


def check_engine(engine: Engine, scope: Scope, dtype: str, layout: Layout, device: str) -> None:
    """UserError unless an engine can run what is timed, in this form.

    Example:
        >>> check_engine("onnxruntime", "backbone", "bfloat16", "contiguous", "cpu")
        Traceback (most recent call last):
            ...
        bench.errors.UserError: `dtype` (='bfloat16') must be 'float32' for `engine` 'onnxruntime'.
    """
    if engine != "torch" and scope == "end_to_end":
        raise UserError(
            f"`engine` (={engine!r}) must be 'torch' for `scope` 'end_to_end': the gate compares "
            "the maps before boxes and labels, which are inside of what is compiled or exported."
        )
    if engine not in EXPORTED:
        return
    if scope == "training":
        raise UserError(
            f"`engine` (={engine!r}) must be 'torch' or 'compile' for `scope` 'training': it runs "
            "inference alone."
        )
    for name, value, only in (
        ("dtype", dtype, "float32"),
        ("layout", "contiguous" if layout == "fastest" else layout, "contiguous"),
        ("device", device, "cpu"),
    ):
        if value != only:
            raise UserError(f"`{name}` (={value!r}) must be {only!r} for `engine` {engine!r}.")


def _require_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"`{name}` (={value!r}) must be an integer >= 1.")


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up went: iterations run, whether it settled, ms per iteration at its end."""

    iterations: int
    steady: bool
    iteration_ms: float


def settled(blocks: Sequence[float]) -> bool:
    """Whether times have settled: whether the last third of blocks goes on like the third before.

    The medians of both must differ by no more than 1 %, or than twice the standard error of their
    difference; and that error must be at most 3 %. Where times scatter it takes more blocks until
    a trend would show, and a scatter alone is no trend. The first third does not count.

    Example:
        >>> settled([9.0, 4.0, 4.0, 4.02] * 4), settled([1 + 0.1 * i for i in range(15)])
        (True, False)
        >>> settled([4.0, 4.2, 3.9, 4.1, 3.8] * 3), settled([4.0, 3.0, 5.0, 2.0, 6.0] * 3)
        (True, False)
    """
    third = len(blocks) // 3
    if third < SEGMENT_BLOCKS:
        return False
    before, last = blocks[-2 * third : -third], blocks[-third:]
    level = median(last)
    change = abs(level - median(before))
    error = math.hypot(_error_of_median(before), _error_of_median(last))
    return error <= PRECISION * level and change <= max(AGREEMENT * level, CHANCE * error)


def _error_of_median(values: Sequence[float]) -> float:
    """Standard error of a median, from the median absolute deviation, as if values were normal."""
    middle = median(values)
    spread = 1.4826 * median(abs(value - middle) for value in values)
    return 1.2533 * spread / math.sqrt(len(values))


def warm_up(
    block: Callable[[int], float], *, block_ms: float, min_ms: float, cap_ms: float
) -> WarmUp:
    """Run until the time has settled: see `settled`.

    It is asked after every fifth block. It takes at least 10 iterations and `min_ms`; it ends
    unsettled after `cap_ms` (but never before 10 iterations).

    Args:
        block: runs the given number of iterations and returns the ms of one.
        block_ms: the least time of a block.
        min_ms: the least time to run.
        cap_ms: the time after which to give up.

    Example:
        >>> warm_up(lambda n: 4.0, block_ms=2, min_ms=20, cap_ms=1000)
        WarmUp(iterations=16, steady=True, iteration_ms=4.0)
    """
    last = block(1)
    iterations, elapsed = 1, last
    blocks: list[float] = []
    while True:
        length = block_length(last, block_ms)
        for _ in range(SEGMENT_BLOCKS):
            blocks.append(block(length))
            iterations += length
            elapsed += length * blocks[-1]
            enough = iterations >= MIN_ITERATIONS
            if enough and elapsed >= cap_ms:
                break
        last = median(blocks[-SEGMENT_BLOCKS:])
        steady = enough and elapsed >= min_ms and settled(blocks)
        if steady or (enough and elapsed >= cap_ms):
            return WarmUp(iterations, steady, last)


def block_length(iteration_ms: float, block_ms: float) -> int:
    """Iterations that a block needs to last at least `block_ms`.

    Example:
        >>> block_length(3.0, 10.0), block_length(25.0, 10.0)
        (4, 1)
    """
    return max(1, math.ceil(block_ms / max(iteration_ms, 1e-6)))


def drawn(values: Sequence[T], *key: object) -> list[T]:
    """Return the values in an order drawn at random by the key: an equal key, an equal order.

    Example:
        >>> drawn("abc", 0, 1, "build") == drawn("abc", 0, 1, "build")
        True
    """
    return random.Random("/".join(map(str, key))).sample(list(values), len(values))


def turns(labels: Sequence[str], rounds: int, seed: int, process: int, batch: int) -> list[str]:
    """Return the order of turns: in every round each arm once, in an order drawn at random.

    Example:
        >>> order = turns(["a", "b", "c"], rounds=2, seed=0, process=0, batch=1)
        >>> sorted(order[:3]), sorted(order[3:])
        (['a', 'b', 'c'], ['a', 'b', 'c'])
    """
    draw = random.Random(f"{seed}/{process}/{batch}")
    return [label for _ in range(rounds) for label in draw.sample(list(labels), len(labels))]


@dataclass(frozen=True)
class Block:
    """Times of one block in ms per iteration; `host_ms` is what the host spent on launching."""

    ms: float
    wall_ms: float
    host_ms: float

    @property
    def host_bound(self) -> bool:
        """Whether launching took most of the time, so that the device had to wait."""
        return self.host_ms >= HOST_BOUND * self.wall_ms


class Timer(Protocol):
    """Runs a block of iterations and says how long one took."""

    def __call__(self, step: Callable[[], object], iterations: int) -> Block:
        """Time `iterations` calls of `step`."""


class WallTimer:
    """The clock on the wall: for a CPU, where a call returns when its work is done."""

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.clock = clock

    def __call__(self, step: Callable[[], object], iterations: int) -> Block:
        """Time `iterations` calls of `step`."""
        start = self.clock()
        for _ in range(iterations):
            step()
        ms = (self.clock() - start) / iterations / 1e6
        return Block(ms, ms, ms)


class EventTimer:
    """Device events around the block, synchronised at its end only, with the wall clock beside.

    Args:
        event: makes an event with `record`, `synchronize` and `elapsed_time` (ms), such as
            `partial(torch.cuda.Event, enable_timing=True)`.
        clock: the wall clock in ns.
    """

    def __init__(
        self, event: Callable[[], Any], clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self.event = event
        self.clock = clock

    def __call__(self, step: Callable[[], object], iterations: int) -> Block:
        """Time `iterations` calls of `step`."""
        first, last = self.event(), self.event()
        start = self.clock()
        first.record()
        for _ in range(iterations):
            step()
        last.record()
        launched = self.clock()
        last.synchronize()
        end = self.clock()
        return Block(
            first.elapsed_time(last) / iterations,
            (end - start) / iterations / 1e6,
            (launched - start) / iterations / 1e6,
        )
