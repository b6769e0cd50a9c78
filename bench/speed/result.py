"""What a speed run says about one arm at one batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.intervals import LEVEL, t_interval
from bench.record import Conditions, Interval, Memory, Speed, Status
from bench.speed import stats
from bench.speed.gate import tolerance
from bench.speed.protocol import PROTOCOL, Settings
from bench.statistics import ratios


@dataclass(frozen=True)
class ArmResult:
    """Raw samples and what follows from them; times in ms, samples as [process][round].

    `status` is not ok where the arm failed in any process; `error` then says why, samples taken
    before stay, and there is no summary. Intervals are None with one process; ratio and verdict
    are None too where the baseline failed. `gate_error` is the largest of all processes.
    `wall_ms` (the wall clock beside the device's events) and `host_bound` (most blocks waited
    for the host to launch them) are there on a GPU only, `gpu` (its state beside the times) and
    `energy_per_image_joules` (the median of the processes) where NVML answers too. `memory_error`
    says why there is no `memory`, if that pass failed.
    """

    label: str
    batch: int
    settings: Settings
    run: str
    status: Status = "ok"
    error: str | None = None
    samples_ms: list[list[float]] = field(default_factory=list)
    baseline_samples_ms: list[list[float]] = field(default_factory=list)
    wall_ms: list[list[float]] = field(default_factory=list)
    host_bound: bool | None = None
    conditions: Conditions | None = None
    block_iterations: list[int] = field(default_factory=list)
    gpu: dict[str, Any] | None = None
    energy_per_image_joules: float | None = None
    forms: dict[str, str] = field(default_factory=dict)
    first_call_ms: list[float] = field(default_factory=list)
    warmup_iterations: list[int] = field(default_factory=list)
    steady: bool | None = None
    gate_error: float | None = None
    memory: Memory | None = None
    memory_error: str | None = None

    @property
    def _timed(self) -> bool:
        return self.status == "ok" and bool(self.samples_ms) and all(self.samples_ms)

    @property
    def _paired(self) -> bool:
        lengths = [len(s) for s in self.samples_ms]
        return self._timed and lengths == [len(s) for s in self.baseline_samples_ms]

    @property
    def is_baseline(self) -> bool:
        """Whether the others are compared to this arm."""
        return self.label == self.settings.baseline

    @cached_property
    def log_ratios(self) -> list[float]:
        """Per process the median paired log-ratio to the baseline; empty where not comparable."""
        if self.is_baseline or not self._paired:
            return []
        return ratios.log_ratios(self.samples_ms, self.baseline_samples_ms)

    @property
    def ratio_to_baseline(self) -> Interval | None:
        """Time / baseline's time: geometric mean over processes, with its interval."""
        return self._interval(self.log_ratios)

    @property
    def latency_median_ms(self) -> Interval | None:
        """Time of one batch: geometric mean of the processes' medians, with its interval."""
        return self._interval(stats.log_medians(self.samples_ms) if self._timed else [])

    @property
    def images_per_second(self) -> Interval | None:
        """Batch size / time of one batch, with its interval."""
        log_batch = math.log(1000 * self.batch)
        times = stats.log_medians(self.samples_ms) if self._timed else []
        return self._interval([log_batch - t for t in times])

    @property
    def mode(self) -> str:
        """A training step, or else the latency of one image or the throughput of more."""
        if self.settings.training:
            return "training_step"
        return "latency" if self.batch == 1 else "throughput"

    @property
    def noise(self) -> stats.Noise | None:
        """Stable, noisy or unstable: of the baseline its times, of another arm its ratios.

        On shared machines all times of a process move together; what is compared does not.
        """
        if not self._timed:
            return None
        if self.is_baseline or not self._paired:
            return stats.noise_class(self.samples_ms, self.drift_pct)
        return stats.noise_class(stats.ratios(self.samples_ms, self.baseline_samples_ms))

    @property
    def verdict(self) -> str | None:
        """Faster, slower, same or unclear against the baseline, which is 'baseline' itself.

        A row that is unstable says nothing for certain, however narrow its interval is.
        """
        if self.is_baseline:
            return "baseline" if self._timed else None
        verdict = ratios.verdict(self.log_ratios)
        return "unclear" if verdict and self.noise == "unstable" else verdict

    @property
    def drift_pct(self) -> float | None:
        """Drift of the baseline from end to end of the run, in per cent."""
        return stats.drift_pct(self.baseline_samples_ms)

    def _interval(self, logs: Sequence[float]) -> Interval | None:
        interval = t_interval(logs)
        if interval is None:
            return None
        value, low, high = (math.exp(v) for v in interval)
        method = f"t over {len(logs)} processes, of logarithms"
        return Interval(value=value, low=low, high=high, level=LEVEL, method=method)

    def speed(self) -> Speed:
        """Return the `speed` part of this arm's record."""
        s = self.settings
        return Speed.model_validate(
            {
                "run": self.run,
                "protocol": PROTOCOL,
                "scope": s.scope,
                "mode": self.mode,
                "batch": self.batch,
                "input_size": s.input_size,
                "dtype": s.dtype,
                "layout": s.layout,
                "forms": self.forms,
                "compiled": s.engine == "compile",
                "engine": s.engine,
                "device": s.device,
                "threads": s.threads,
                "processes": s.processes,
                "rounds": s.rounds,
                "samples_ms": self.samples_ms,
                "baseline": s.baseline,
                "baseline_samples_ms": self.baseline_samples_ms,
                "latency_median_ms": self.latency_median_ms,
                "images_per_second": self.images_per_second,
                "ratio_to_baseline": self.ratio_to_baseline,
                "verdict": self.verdict,
                "noise": self.noise,
                "drift_pct": self.drift_pct,
                "steady": self.steady,
                "warmup_iterations": self.warmup_iterations,
                "first_call_ms": self.first_call_ms,
                "outliers": stats.outliers(self.samples_ms) if self._timed else 0,
                "gate_max_error": self.gate_error,
                "gate_tolerance": tolerance(s.dtype, gradients=s.training),
                "conditions": self.conditions,
                "block_iterations": self.block_iterations,
                "host_bound": self.host_bound,
                "throttled": None if self.gpu is None else bool(self.gpu["throttle_reasons"]),
                "gpu": self.gpu,
                "energy_per_image_joules": self.energy_per_image_joules,
                "memory_error": self.memory_error,
            }
        )
