"""How fast it ran, under which conditions, and in how much memory."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bench.record.parts import Interval, Part


class Conditions(Part):
    """What was in force while a time was taken, beyond what the suite's arms are.

    Block and warm-up are as asked for; threads and TF32 are read in the worker.
    """

    min_block_ms: float = Field(description="the least time of one sample's block of iterations")
    warmup_min_ms: float
    warmup_cap_ms: float = Field(description="a warm-up that has not settled ends after this")
    forms: Literal["measured", "rule"] = Field(
        "rule", description="how the exact forms of operators were chosen"
    )
    tf32: bool = Field(description="whether float32 products may be rounded to TF32 on a GPU")
    torch_threads: int = Field(description="inside of one operation")
    torch_interop_threads: int
    omp_num_threads: int | None = Field(description="the environment's OMP_NUM_THREADS")
    mkl_num_threads: int | None = Field(description="the environment's MKL_NUM_THREADS")

    def known(self) -> dict[str, Any]:
        """Return what there is to tell; the rule is older than the word for it."""
        return self.model_dump(exclude={"forms"} if self.forms == "rule" else None)


class GpuState(Part):
    """The GPU beside the times of a row, by NVML: read after every timed block.

    A value that the driver does not tell is None.
    """

    samples: int = Field(ge=1)
    sm_clock_min_mhz: float | None = None
    sm_clock_median_mhz: float | None = None
    memory_clock_median_mhz: float | None = None
    temperature_max_celsius: float | None = None
    power_median_watts: float | None = None
    power_max_watts: float | None = None
    throttle_reasons: dict[str, float] = Field(
        {}, description="why clocks were lowered → fraction of the samples in which they were"
    )


class Speed(Part):
    """How fast it ran, in one speed run in which all arms took turns."""

    run: str = Field(description="id of the speed run; ratios are formed only inside one run")
    protocol: str = Field(description="version of the protocol, e.g. '1'")
    scope: Literal["operator", "backbone", "end_to_end", "training"]
    mode: Literal["latency", "throughput", "training_step"]
    batch: int
    input_size: tuple[int, int]
    dtype: str
    layout: Literal["fastest", "contiguous", "channels_last"] = Field(
        description="of weights and maps; fastest: each arm's own, which `forms` names"
    )
    forms: dict[str, str] = Field(
        {}, description="module → the exact form that was measured to be the fastest, and was timed"
    )
    compiled: bool = Field(False, description="engine 'compile', as older records say it")
    engine: Literal["torch", "compile", "onnxruntime", "openvino"] = Field(
        "torch", description="what runs the form; of the last two, exported to ONNX"
    )
    device: str = Field(description="'cpu' or 'cuda'")
    threads: int
    processes: int
    rounds: int = Field(description="rounds in each process")
    samples_ms: list[list[float]] = Field(
        description="raw times of one forward or training step in ms: per process, per round"
    )
    baseline: str = Field(description="label of the baseline arm")
    baseline_samples_ms: list[list[float]]
    latency_median_ms: Interval | None = None
    images_per_second: Interval | None = None
    ratio_to_baseline: Interval | None = Field(
        None, description="time / baseline's time; below 1 is faster"
    )
    verdict: Literal["faster", "slower", "same", "unclear", "baseline"] | None = None
    noise: Literal["stable", "noisy", "unstable"] | None = Field(
        None, description="of the ratios to the baseline; of the baseline itself, of its times"
    )
    drift_pct: float | None = Field(None, description="slope of the baseline over the run")
    steady: bool | None = Field(None, description="whether the warm-up settled in every process")
    warmup_iterations: list[int] = Field([], description="of every process")
    first_call_ms: list[float] = Field(
        [], description="until the first result, compiling and exporting included; of every process"
    )
    outliers: int = Field(0, description="flagged, never dropped")
    gate_max_error: float | None = Field(
        None, description="largest relative error of the timed form against the fp32 training form"
    )
    gate_tolerance: float | None = None
    conditions: Conditions | None = Field(None, description="None in records older than this field")
    block_iterations: list[int] = Field(
        [], description="iterations in one sample's block, per process"
    )
    host_bound: bool | None = Field(
        None, description="on a GPU: whether most blocks waited for the host to launch them"
    )
    throttled: bool | None = Field(
        None, description="on a GPU: whether heat or power lowered its clocks in any sample"
    )
    gpu: GpuState | None = None
    energy_per_image_joules: float | None = Field(
        None,
        description="of the whole GPU while it does nothing else, what it takes when idle "
        "included; median of the processes",
    )
    memory_error: str | None = Field(None, description="why there is no peak memory, if it failed")

    @model_validator(mode="before")
    @classmethod
    def _engine_of_older_records(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "engine" not in fields and fields.get("compiled"):
            return {**fields, "engine": "compile"}
        return fields

    @property
    def setting(self) -> list[Any]:
        """What two times must share, beside the machine, to stand in one column.

        Older records, without conditions, share among themselves what they know.
        """
        base: list[Any] = [self.protocol, self.scope, self.input_size, self.dtype, self.layout]
        base += [self.engine, self.device, self.threads]
        if self.conditions is None:
            return base
        return [*base, self.processes, self.rounds, self.conditions.known()]


class Memory(Part):
    """Peak memory at this batch, above what was there before the arm was built.

    Weights, the batch's input, activations and the library's workspaces, in training gradients and
    the optimiser's state too, after one warm-up call; measured in a pass of its own.
    """

    peak_rss_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
