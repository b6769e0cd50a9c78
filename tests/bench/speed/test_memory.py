"""The memory pass in real workers: an arm's peak is its own, and a failure is told."""

import sys
from functools import partial

import pytest
import torch

from bench.operators import jit
from bench.speed import Arm, measure
from bench.speed import memory as memory_pass
from bench.speed.job import Job, Note
from bench.speed.protocol import Settings

MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


def passed(arms, quick, folder, **changes):
    results = measure(
        [Arm(label, factory) for label, factory in arms.items()],
        baseline=next(iter(arms)),
        folder=folder,
        **{**quick, "memory": True, "processes": 1, "batches": (1,), **changes},
    )
    return {result.label: result for result in results}


def test_the_peak_is_that_of_the_calls_after_the_first_and_of_no_other_arm(make, quick, tmp_path):
    arms = {
        "small": partial(make.Scratch, 1),
        "large": partial(make.Scratch, 200),
        "first": partial(make.Scratch, 50, first_mib=300),
        "importing": make.Importing,
    }
    results = passed(arms, quick, tmp_path)
    peaks = {label: r.memory.peak_rss_bytes / MIB for label, r in results.items()}
    assert peaks["small"] < 40
    assert peaks["importing"] < 40
    assert 195 < peaks["large"] < 240
    assert 45 < peaks["first"] < 100


@pytest.mark.usefixtures("forks")
def test_the_input_of_its_own_batch_counts_and_no_other(make, quick, tmp_path):
    """An image of 3 × 512 × 512 float32 takes 3 MiB."""
    arms = {"one": partial(make.Scratch, 1)}
    changes = {"input_size": (512, 512), "batches": (1, 16)}
    measured = measure(
        [Arm("one", arms["one"])],
        baseline="one",
        folder=tmp_path,
        **{**quick, "memory": True, "processes": 1, **changes},
    )
    one, sixteen = (result.memory.peak_rss_bytes / MIB for result in measured)
    # input and output
    assert 2 * 15 * 3 - 10 < sixteen - one < 2 * 15 * 3 + 20


@pytest.mark.slow
def test_half_precision_and_channels_last_after_openmp_do_not_hang(make, quick, tmp_path):
    changes = {"dtype": "bfloat16", "layout": "channels_last", "threads": 2}
    results = passed({"conv": make.Block}, quick, tmp_path, process_limit_s=60.0, **changes)
    assert results["conv"].status == "ok"
    assert results["conv"].memory.peak_rss_bytes > 0


@pytest.mark.slow
@pytest.mark.skipif(not jit.INSTALLED, reason="needs numba")
def test_what_a_compiler_takes_is_not_counted_nor_are_its_threads_missed(
    make, quick, tmp_path, monkeypatch
):
    """Both compile a kernel the first time, and read it from disk the second time."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    arms = {
        "parc": partial(make.compiled, "parc", "lines"),
        "icconv": partial(make.compiled, "icconv", "summed"),
    }
    changes = {"in_channels": 8, "threads": 2, "process_limit_s": 120.0}
    first, again = (passed(arms, quick, tmp_path / name, **changes) for name in ("a", "b"))
    for label in arms:
        assert first[label].memory_error is None
        peaks = [run[label].memory.peak_rss_bytes / MIB for run in (first, again)]
        assert abs(peaks[0] - peaks[1]) < 8, peaks


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_what_fails_in_the_memory_pass_is_told_in_the_row(make, quick, tmp_path):
    arms = {
        "conv": make.Block,
        "raising": make.raising,
        "hangs": make.Hanging,
        "dies": make.Dying,
    }
    results = passed(arms, quick, tmp_path, process_limit_s=20.0)
    errors = {label: result.memory_error for label, result in results.items()}
    assert errors["conv"] is None
    assert "cannot be built" in errors["raising"]
    assert "ended after 5 s" in errors["hangs"]
    assert "killed, as happens when memory runs out" in errors["dies"]
    assert [r.status for r in results.values()] == ["ok", "error", "timeout", "oom"]
    assert results["raising"].speed().memory_error == errors["raising"]
    assert results["raising"].memory is None


class Allocator:
    """What the pass asks of torch.cuda, with an allocator that is told what to say."""

    def __init__(self, monkeypatch):
        self.now, self.peak = 7 * MIB, 0
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda: None)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2 * self.now)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: self.peak)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2 * self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self):
        self.peak = self.now

    def take(self, mib):
        self.peak = max(self.peak, self.now + mib * MIB)


def on_a_gpu(monkeypatch, tmp_path, forms):
    """Run the pass of a GPU on the CPU: `forms` are what is timed, by label."""
    settings = Settings(baseline="a", input_size=(8, 8), batches=(1, 2), device="cuda")
    monkeypatch.setattr(memory_pass, "_model", lambda job, label, _: forms[label]())
    monkeypatch.setattr(memory_pass, "inputs", lambda job, batch: torch.zeros(batch, 3, 8, 8))
    job = Job(settings, [(label, b"") for label in forms], b"", 0, memory=True)
    cells = memory_pass.measure(job, Note(tmp_path / "note"))
    return {(cell.label, cell.batch): cell for cell in cells}


def test_on_a_gpu_the_peak_is_above_what_was_there_and_of_warm_calls(monkeypatch, tmp_path):
    allocator = Allocator(monkeypatch)

    def form():
        seen = set()

        def call(x):
            allocator.take(3 * x.shape[0] if x.shape in seen else 100)
            seen.add(x.shape)

        return call

    def failing():
        raise torch.OutOfMemoryError("CUDA out of memory")

    cells = on_a_gpu(monkeypatch, tmp_path, {"a": form, "b": failing})
    assert cells["b", 1].memory is None
    assert "CUDA out of memory" in cells["b", 2].memory_error
    assert cells["b", 2].status == "ok"
    for batch in (1, 2):
        assert cells["a", batch].memory == {
            "peak_allocated_bytes": 3 * batch * MIB,
            "peak_reserved_bytes": 2 * 3 * batch * MIB,
        }


def test_on_a_gpu_a_lost_device_ends_the_pass(monkeypatch, tmp_path, make):
    Allocator(monkeypatch)
    with pytest.raises(RuntimeError, match="CUDA error"):
        on_a_gpu(monkeypatch, tmp_path, {"a": make.Lost})


@pytest.mark.usefixtures("forks")
def test_a_batch_that_is_too_large_costs_its_own_row_alone(make, quick, tmp_path):
    """The layout is chosen over all batches, which the smaller one need not pay for."""
    changes = {"batches": (1, 2), "process_limit_s": 120.0}
    known = {**quick, "memory": True, "processes": 1, **changes}
    results = measure([Arm("a", make.Greedy)], baseline="a", folder=tmp_path, **known)
    one, two = results
    assert one.memory_error is None
    assert one.memory.peak_rss_bytes > 0
    assert "allocate memory" in two.memory_error
