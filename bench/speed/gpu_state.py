"""Clocks, temperature, power, throttling and energy of the timed GPU, as NVML tells them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

ENERGY_S, ENERGY_CAP_S = 0.3, 2.0
"""The least time over which energy is counted, and the time after which it is given up, in s."""
Sample = dict[str, Any]
"""sm_clock_mhz, memory_clock_mhz, temperature_celsius, power_watts (None where the driver does
not tell) and throttle_reasons."""


def reader() -> Callable[[], Sample] | None:
    """Return what reads the state of torch's GPU, or None where no driver answers.

    A reading takes well under a millisecond; it is taken after a block, never inside of one.
    """
    handle = _handle()
    return None if handle is None else partial(read, handle)


def energy_counter() -> Callable[[], int] | None:
    """Return what reads the energy of torch's GPU in mJ since its driver was loaded, if it tells.

    GPUs older than Volta do not.
    """
    import pynvml

    handle = _handle()
    if handle is None:
        return None
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)


def _handle() -> Any | None:
    """Return NVML's handle of torch's GPU, or None where no driver answers."""
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None


def energy_joules(
    block: Callable[[], object],
    counter: Callable[[], int],
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Return the energy of one block in J: of the whole GPU, what it takes when idle included.

    The counter moves in steps of some 10 ms, longer than a block. Blocks are therefore repeated,
    and counted from one step of it to another, at least ENERGY_S later.

    Args:
        block: runs a block of iterations, and returns when they are done.
        counter: reads the energy in mJ.
        clock: in seconds.

    Returns:
        None where the counter does not move within ENERGY_CAP_S.

    Example:
        >>> from itertools import count
        >>> energy_joules(lambda: None, count(0, 3000).__next__)  # 3 J a block
        3.0
    """
    begun = clock()
    first: tuple[int, int, float] | None = None
    before, blocks = counter(), 0
    while clock() - begun < ENERGY_CAP_S:
        block()
        blocks += 1
        now = counter()
        if now == before:
            continue
        before = now
        if first is None:
            first = now, blocks, clock()
        elif clock() - first[2] >= ENERGY_S:
            return (now - first[0]) / 1000 / (blocks - first[1])
    return None


def read(handle: Any) -> Sample:
    """Read the state of a GPU by its NVML handle."""
    import pynvml as nvml

    def ask(question: Callable[..., int], *arguments: int) -> int | None:
        try:
            return question(handle, *arguments)
        except nvml.NVMLError:  # not every GPU has every sensor
            return None

    power_mw = ask(nvml.nvmlDeviceGetPowerUsage)
    bits = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
    lowered = {
        "power cap": nvml.nvmlClocksThrottleReasonSwPowerCap,
        "hardware slowdown": nvml.nvmlClocksThrottleReasonHwSlowdown,
        "software thermal slowdown": nvml.nvmlClocksThrottleReasonSwThermalSlowdown,
        "hardware thermal slowdown": nvml.nvmlClocksThrottleReasonHwThermalSlowdown,
        "power brake": nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    }
    return {
        "sm_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
        "temperature_celsius": ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        "power_watts": None if power_mw is None else power_mw / 1000,
        "throttle_reasons": [name for name, bit in lowered.items() if bits & bit],
    }


def summary(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Sum up the readings beside a row's blocks as fields of `bench.record.GpuState`.

    None without any reading.

    Example:
        >>> state = summary([
        ...     {"sm_clock_mhz": 1980, "throttle_reasons": []},
        ...     {"sm_clock_mhz": 1500, "throttle_reasons": ["power cap"]},
        ... ])
        >>> state["sm_clock_min_mhz"], state["sm_clock_median_mhz"], state["throttle_reasons"]
        (1500.0, 1740.0, {'power cap': 0.5})
    """
    if not samples:
        return None

    def of(name: str, statistic: Callable[[list[float]], float]) -> float | None:
        values = [float(s[name]) for s in samples if s.get(name) is not None]
        return statistic(values) if values else None

    reasons = [reason for sample in samples for reason in sample["throttle_reasons"]]
    return {
        "samples": len(samples),
        "sm_clock_min_mhz": of("sm_clock_mhz", min),
        "sm_clock_median_mhz": of("sm_clock_mhz", median),
        "memory_clock_median_mhz": of("memory_clock_mhz", median),
        "temperature_max_celsius": of("temperature_celsius", max),
        "power_median_watts": of("power_watts", median),
        "power_max_watts": of("power_watts", max),
        "throttle_reasons": {
            name: reasons.count(name) / len(samples) for name in sorted(set(reasons))
        },
    }
