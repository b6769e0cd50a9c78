"""Warm-up, turns, timers and settings, with fake clocks: no test looks at real time."""

import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import files
from bench.config.schema import load_suite
from bench.speed.protocol import Block, EventTimer, Settings, WallTimer, turns, warm_up


class FakeDevice:
    """A machine whose iterations take the times of a function of how many were run before."""

    def __init__(self, ms_at):
        self.ms_at, self.done, self.calls = ms_at, 0, []

    def __call__(self, iterations):
        total = sum(self.ms_at(self.done + i) for i in range(iterations))
        self.done += iterations
        self.calls.append(iterations)
        return total / iterations


def test_a_warm_up_waits_for_the_times_to_settle():
    device = FakeDevice(lambda i: 4.0 if i >= 60 else 4.0 + (60 - i))
    found = warm_up(device, block_ms=2, min_ms=0, cap_ms=1e9)
    assert found.steady
    assert found.iterations == device.done
    assert found.iterations > 60
    assert found.iteration_ms == 4.0


def test_a_warm_up_that_never_settles_ends_at_the_cap_and_says_so():
    device = FakeDevice(lambda i: 3.0 + i * 0.1)
    found = warm_up(device, block_ms=2, min_ms=0, cap_ms=500)
    assert not found.steady
    assert 500 <= sum(device.ms_at(i) for i in range(device.done)) < 600


def test_a_warm_up_takes_ten_iterations_even_beyond_the_cap():
    device = FakeDevice(lambda i: 1000.0 + 100 * i)
    assert warm_up(device, block_ms=2, min_ms=0, cap_ms=1).iterations == 10


def test_a_warm_up_takes_its_least_time():
    device = FakeDevice(lambda i: 2.0)
    found = warm_up(device, block_ms=2, min_ms=300, cap_ms=1e9)
    assert found.steady
    assert found.iterations * 2.0 >= 300


def test_short_iterations_are_bundled_into_blocks():
    device = FakeDevice(lambda i: 0.01)
    warm_up(device, block_ms=2, min_ms=0, cap_ms=1e9)
    assert device.calls[0] == 1
    assert all(calls == 200 for calls in device.calls[1:])


def test_one_slow_first_call_does_not_set_the_length_of_all_blocks():
    device = FakeDevice(lambda i: 500.0 if i == 0 else 0.1)
    warm_up(device, block_ms=2, min_ms=0, cap_ms=1e9)
    assert device.calls[-1] == 20


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True),
    st.integers(1, 30),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 8),
)
def test_every_round_runs_each_arm_once(labels, rounds, seed, process, batch):
    order = turns(labels, rounds, seed, process, batch)
    assert len(order) == rounds * len(labels)
    for start in range(0, len(order), len(labels)):
        assert Counter(order[start : start + len(labels)]) == Counter(labels)
    assert order == turns(labels, rounds, seed, process, batch)


def test_orders_differ_by_process_and_no_arm_has_a_place_of_its_own():
    labels = list("abcde")
    assert turns(labels, 20, 0, 0, 1) != turns(labels, 20, 0, 1, 1)
    order = turns(labels, 2000, 0, 0, 1)
    first = Counter(order[::5])
    assert all(340 < first[label] < 460 for label in labels)
    after_a = Counter(b for a, b in pairwise(order) if a == "a" != b)
    assert all(after_a[label] > 300 for label in "bcde")


def test_the_wall_timer_divides_by_the_iterations():
    ticks = iter([1_000_000, 9_000_000])
    ran = []
    block = WallTimer(clock=lambda: next(ticks))(lambda: ran.append(1), 4)
    assert block == Block(2.0, 2.0, 2.0)
    assert len(ran) == 4


class FakeEvent:
    """An event of a device that needs 3 ms an iteration."""

    log: list[str] = []

    def record(self):
        self.log.append("record")

    def synchronize(self):
        self.log.append("synchronize")

    def elapsed_time(self, other):
        return 30.0


@pytest.mark.parametrize(("launched_ms", "host_bound"), [(2, False), (30, True)])
def test_the_event_timer_synchronises_once_at_the_end(launched_ms, host_bound):
    FakeEvent.log = []
    ticks = iter([0, launched_ms * 1_000_000, 31_000_000])
    timer = EventTimer(FakeEvent, clock=lambda: next(ticks))
    block = timer(lambda: FakeEvent.log.append("step"), 10)
    assert FakeEvent.log == ["record", *["step"] * 10, "record", "synchronize"]
    assert (block.ms, block.wall_ms) == (3.0, 3.1)
    assert block.host_bound is host_bound


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"processes": 0}, r"`processes` \(=0\) must be an integer >= 1"),
        ({"rounds": 1.5}, r"`rounds` \(=1.5\)"),
        ({"batches": ()}, "`batches`"),
        ({"batches": (1, 1)}, "must not hold a size twice"),
        ({"batches": (0,)}, r"`batches` \(=0\)"),
        ({"input_size": (64,)}, r"must be \(height, width\)"),
        ({"dtype": "int8"}, r"`dtype` \(='int8'\) must be one of"),
        ({"layout": "nhwc"}, "channels_last"),
        ({"device": "tpu"}, "`device`"),
        ({"scope": "all"}, "`scope`"),
        ({"engine": "tensorrt"}, r"`engine` \(='tensorrt'\) must be one of"),
        ({"scope": "end_to_end", "engine": "compile"}, r"`engine` \(='compile'\) must be 'torch'"),
        ({"scope": "training", "engine": "openvino"}, "`engine` .* must be 'torch' or 'compile'"),
        ({"dtype": "bfloat16", "engine": "onnxruntime"}, r"`dtype` .* must be 'float32' for"),
        ({"layout": "channels_last", "engine": "openvino"}, "`layout` .* must be 'contiguous' for"),
        ({"device": "cuda", "engine": "onnxruntime"}, "`device` .* must be 'cpu' for `engine`"),
        ({"min_block_ms": -1}, "`min_block_ms`"),
        ({"warmup_cap_ms": float("inf")}, "`warmup_cap_ms`"),
    ],
)
def test_wrong_settings_name_argument_value_and_rule(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{"baseline": "a", "input_size": (8, 8), **wrong})


class QuietMachine:
    """Iterations of `ms`; blocks scatter as on a quiet machine, by 3 % where they last 2 ms."""

    def __init__(self, rng, ms):
        self.rng, self.ms = rng, ms

    def __call__(self, iterations):
        spread = 0.03 * (2 / max(2, iterations * self.ms)) ** 0.5
        return self.ms * math.exp(self.rng.gauss(0, spread))


@pytest.mark.parametrize("suite", sorted(files.known("suites")))
def test_the_warm_ups_of_our_suites_settle_on_a_quiet_machine(suite):
    """In all five processes of a row. With blocks of 2 ms and a cap of 150 ms 1 row in 50 did."""
    plan = load_suite(suite).speed
    default = Settings(baseline="a", input_size=(8, 8))
    rng = random.Random(0)
    rows, spent = [], []
    for ms in (0.5, 2.0, 5.0, 15.0):
        for _ in range(50):
            warm = [
                warm_up(
                    QuietMachine(rng, ms),
                    block_ms=plan.min_block_ms,
                    min_ms=default.warmup_min_ms,
                    cap_ms=plan.warmup_cap_ms,
                )
                for _ in range(plan.processes)
            ]
            rows.append(all(w.steady for w in warm))
            spent += [w.iterations * ms for w in warm]
    assert sum(rows) / len(rows) > 0.95
    assert sum(spent) / len(spent) < 400


def test_a_warm_up_settles_where_times_scatter_and_not_where_they_fall():
    """On a shared machine blocks scatter by several per cent; a trend shows through the scatter."""
    rng = random.Random(0)
    settled = {0.0: [], 2.0: []}
    for rise, outcomes in settled.items():
        for _ in range(200):
            done = 0

            def block(iterations, rise=rise):
                nonlocal done
                done += iterations
                return 5.0 * (1 + rise * math.exp(-done / 20)) * math.exp(rng.gauss(0, 0.04))

            found = warm_up(block, block_ms=10, min_ms=50, cap_ms=2000)
            outcomes.append((found.steady, found.iterations))
    assert sum(steady for steady, _ in settled[0.0]) > 190
    steady = [iterations for steady, iterations in settled[2.0] if steady]
    assert steady
    early = [n for n in steady if 2.0 * math.exp(-n / 20) > 0.1]
    assert len(early) < 20  # while it still takes 10 % too long
