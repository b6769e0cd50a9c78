"""What happens in and between the processes of a run: orders, lost devices, the state of a GPU."""

from collections import Counter
from functools import partial
from itertools import count

import numpy as np
import pytest
from pynvml import NVMLError_NotSupported

from bench.failures import device_lost, out_of_memory
from bench.speed import Arm, gpu_state, measure
from bench.speed.crew import Crew
from bench.speed.protocol import Block, Settings, drawn
from bench.speed.result import ArmResult


def test_the_order_in_which_arms_are_built_is_drawn_anew_in_every_process():
    labels = ["a", "b", "c", "d"]
    orders = [drawn(labels, 0, process, "build") for process in range(400)]
    assert orders == [drawn(labels, 0, process, "build") for process in range(400)]
    assert orders != [drawn(labels, 1, process, "build") for process in range(400)]
    for place in range(4):
        counts = Counter(order[place] for order in orders)
        assert all(70 < counts[label] < 130 for label in labels)


@pytest.mark.usefixtures("forks")
def test_workers_build_in_the_drawn_orders_and_stay_for_the_next_run(make, quick, tmp_path):
    log = tmp_path / "built"
    arms = [Arm(label, partial(make.logged, label, str(log))) for label in "abcd"]
    changes = {**quick, "batches": (1,), "rounds": 2}
    with Crew(ahead=2) as crew:
        for seed in (0, 1):
            measure(
                arms, baseline="a", folder=tmp_path / str(seed), seed=seed, crew=crew, **changes
            )
    built: dict[str, list[str]] = {}  # by process: two of them build at the same time
    for line in log.read_text().splitlines():
        process, label = line.split()
        built.setdefault(process, []).append(label)
    orders = ["".join(labels) for labels in built.values()]
    wanted = [
        "".join(label for seed in (0, 1) for label in drawn("abcd", seed, process, "build"))
        for process in (0, 1)
    ]
    assert sorted(orders) == sorted(wanted)
    assert len({order[i : i + 4] for order in orders for i in (0, 4)}) > 1


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_a_lost_device_costs_its_own_arm_and_process(make, quick, tmp_path):
    arms = [Arm("k3", make.Block), Arm("lost", make.Lost), Arm("k7", partial(make.Block, 7))]
    results = measure(
        arms, baseline="k3", folder=tmp_path, **{**quick, "batches": (1,), "processes": 2}
    )
    assert [r.status for r in results] == ["ok", "error", "ok"]
    assert "CUDA error: an illegal memory access" in results[1].error
    assert "at stage 'reference', twice" in results[1].error
    assert [len(samples) for samples in results[2].samples_ms] == [3, 3]


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_what_failed_is_measured_anew_once_the_run_has_ended(make, quick, tmp_path):
    marker = tmp_path / "mended"
    arms = [Arm("k3", make.Block), Arm("late", partial(make.Mended, str(marker)))]
    changes = {**quick, "folder": tmp_path / "runs", "baseline": "k3"}
    before = measure(arms, **changes)
    assert [r.status for r in before] == ["ok", "ok", "error", "error"]
    marker.touch()
    after = measure(arms, **changes)
    assert [r.status for r in after] == ["ok"] * 4
    # ratios are formed inside of one run: the whole run is a new one
    assert before[0].run != after[0].run
    assert before[0].samples_ms != after[0].samples_ms
    assert [[len(s) for s in r.samples_ms] for r in after] == [[3, 3]] * 4
    assert measure(arms, **changes) == after


@pytest.mark.usefixtures("forks")
def test_images_reach_workers_by_a_file_that_is_gone_afterwards(make, quick, tmp_path):
    images = np.ones((1, 3, 8, 8), np.float32)
    changes = {**quick, "processes": 1, "scope": "end_to_end", "images": images}
    (result, _) = measure([Arm("a", make.Deciding)], baseline="a", folder=tmp_path, **changes)
    assert result.status == "ok"
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".json"}


def test_what_torch_says_about_memory_and_the_device():
    full = RuntimeError("CUDA error: out of memory")
    stuck = RuntimeError("CUDA error: device-side assert triggered")
    assert out_of_memory(full)
    assert not device_lost(full)
    assert device_lost(stuck)
    assert not out_of_memory(stuck)
    assert not device_lost(ValueError("CUDA error"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))


@pytest.fixture
def nvml(monkeypatch):
    """A driver whose answers are set here; it has no sensor of the memory clock."""
    answers = {"temperature": 71, "power": 350_500, "reasons": 0, "sm": 1980}

    def clock(handle, kind):
        if kind == gpu_state_constants().NVML_CLOCK_MEM:
            raise NVMLError_NotSupported
        return answers["sm"]

    monkeypatch.setattr("pynvml.nvmlDeviceGetClockInfo", clock)
    monkeypatch.setattr(
        "pynvml.nvmlDeviceGetTemperature", lambda handle, kind: answers["temperature"]
    )
    monkeypatch.setattr("pynvml.nvmlDeviceGetPowerUsage", lambda handle: answers["power"])
    monkeypatch.setattr(
        "pynvml.nvmlDeviceGetCurrentClocksThrottleReasons", lambda handle: answers["reasons"]
    )
    return answers


def gpu_state_constants():
    import pynvml

    return pynvml


def test_the_state_of_a_gpu_is_read_by_nvml(nvml):
    cool = gpu_state.read(object())
    assert cool == {
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": None,
        "temperature_celsius": 71,
        "power_watts": 350.5,
        "throttle_reasons": [],
    }
    # idle (1) and clocks set by the user (2) are no throttling; the cap of power (4) is
    nvml |= {"reasons": 1 | 2 | 4, "sm": 1500}
    capped = gpu_state.read(object())
    assert capped["throttle_reasons"] == ["power cap"]
    state = gpu_state.summary([cool, capped, cool, cool])
    assert state["throttle_reasons"] == {"power cap": 0.25}
    assert state["memory_clock_median_mhz"] is None
    result = ArmResult("a", 1, Settings("a", (8, 8)), "run", gpu=state)
    assert result.speed().throttled is True
    assert result.speed().gpu.sm_clock_min_mhz == 1500
    calm = ArmResult("a", 1, Settings("a", (8, 8)), "run", gpu=gpu_state.summary([cool]))
    assert calm.speed().throttled is False
    assert ArmResult("a", 1, Settings("a", (8, 8)), "run").speed().throttled is None


class Meter:
    """A GPU of 200 W whose counter of energy moves every 70 ms; blocks take 10 ms."""

    def __init__(self, stuck=False):
        self.ms, self.stuck = 0.0, stuck

    def block(self):
        self.ms += 10

    def clock(self):
        return self.ms / 1000

    def counter(self):
        return 0 if self.stuck else int(200 * (self.ms // 70 * 70))


def test_energy_is_counted_from_one_step_of_the_counter_to_another():
    meter = Meter()
    joules = gpu_state.energy_joules(meter.block, meter.counter, meter.clock)
    assert joules == pytest.approx(200 * 0.010)
    assert 300 <= meter.ms <= 300 + 3 * 70
    stuck = Meter(stuck=True)
    assert gpu_state.energy_joules(stuck.block, stuck.counter, stuck.clock) is None
    assert 2000 <= stuck.ms <= 2010


def test_the_counter_of_energy_is_nvmls_where_there_is_one(monkeypatch):
    import pynvml

    def none(handle):
        raise NVMLError_NotSupported

    monkeypatch.setattr(gpu_state, "_handle", object)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: 1234)
    assert gpu_state.energy_counter()() == 1234
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", none)
    assert gpu_state.energy_counter() is None
    monkeypatch.setattr(gpu_state, "_handle", lambda: None)
    assert gpu_state.energy_counter() is None


def test_energy_of_a_row_is_the_median_of_its_processes_per_image():
    from bench.speed.arms import _results

    def process(joules):
        cell = {"label": "a", "batch": 8, "status": "ok", "energy_per_image_joules": joules}
        return {"cells": [cell]}

    settings = Settings("a", (8, 8), batches=(8,))
    (result,) = _results(["a"], settings, "run", [process(j) for j in (0.5, 0.2, 0.3, None)])
    assert result.speed().energy_per_image_joules == 0.3
    (result,) = _results(["a"], settings, "run", [process(None)])
    assert result.speed().energy_per_image_joules is None


def test_without_a_driver_there_is_no_state(monkeypatch):
    import pynvml

    def missing():
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert gpu_state.reader() is None
    assert gpu_state.energy_counter() is None
    assert gpu_state.summary([]) is None


def test_on_a_gpu_the_state_is_read_after_every_block(make, tmp_path, monkeypatch):
    """Stage as on a GPU, with a timer and a device that are not there."""
    import pickle

    import torch

    from bench.speed import stage
    from bench.speed.job import Job, Note

    readings = iter(range(100))
    monkeypatch.setattr(gpu_state, "reader", lambda: lambda: {"sm_clock_mhz": next(readings)})
    monkeypatch.setattr(gpu_state, "energy_counter", lambda: count(0, 3000).__next__)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(stage, "timer_for", lambda device: lambda step, n: Block(1.0, 1.0, 0.95))
    monkeypatch.setattr(gpu_state, "ENERGY_S", 0.0)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: self)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *a, **k: self)
    settings = Settings("k3", (8, 8), batches=(2,), device="cuda", rounds=4, min_block_ms=2)
    job = Job(settings, [("k3", pickle.dumps(make.Block))], pickle.dumps(make.fuse), 0)
    work = stage.Stage(job, Note(tmp_path / "note"))
    work.run()
    (cell,) = work.cells
    assert cell.error is None
    assert [sample["sm_clock_mhz"] for sample in cell.gpu] == [0, 1, 2, 3]
    assert cell.host_bound_blocks == 4
    # 3 J a block of two iterations of two images
    assert cell.energy_per_image_joules == 0.75


def test_a_worker_says_what_its_stages_took(tmp_path, monkeypatch):
    from bench.speed import job

    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(job.time, "monotonic", clock.__next__)
    note = job.Note(tmp_path / "note")
    for stage in ("build", "rounds", "build", "end"):
        note(stage, "arm", 1)
    assert note.taken() == {"build": 4.0, "rounds": 2.0}
    note("import")
    note("end")
    assert note.taken() == {"end": 4.0, "import": 1.0}
    assert job.Note.read(tmp_path / "note")["stage"] == "end"
