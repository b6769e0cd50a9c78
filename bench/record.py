"""The record: one result as one JSON file, the only thing that the leaderboard reads.

A record is the result of a cell (`kind: accuracy`), of one arm of a speed run (`kind: speed`), or
what a cell's network sees (`kind: view`). Other files lie beside it, named in it with their hashes.
Units stand in the field names; what is missing is None, never imputed; failures are records too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.errors import UserError
from bench.hashing import canonical, digest
from bench.places import without_places
from bench.whole_files import write_whole

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "error", "timeout", "invalid"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(_Part):
    """An estimate and its interval, in the unit of the field that holds it."""

    value: float
    low: float
    high: float
    level: float = Field(0.95, gt=0, lt=1, description="confidence level")
    method: str = Field(description="how the interval was formed, e.g. 't over 5 processes'")


class Entry(_Part):
    """What was measured: an operator in a selection of slots of a host, for a task."""

    label: str = Field(description="the arm's short name in its suite, e.g. 'parc'")
    operator: str = Field(description="registered name of the operator, e.g. 'parc'")
    operator_options: dict[str, Any] = {}
    operator_sha256: str = Field(description="hash of the operator's source code")
    host: str
    host_options: dict[str, Any] = {}
    selection: dict[str, Any] = Field({}, description="which slots were swapped")
    mix: str | None = Field(None, description="'pointwise': followed by a 1×1 convolution")
    slots_swapped: int | None = None
    slots_refused: dict[str, str] = Field({}, description="slot → why it kept its convolution")
    task: str = Field(description="classification, detection, segmentation or backbone")
    head: str | None = None
    form: Literal["training", "fused"] = Field(description="the form of the operator measured")
    baseline: bool = Field(False, description="the arm to which the others are compared")
    ranked: bool = Field(
        True, description="False: trained on the way to something else, such as a supernet"
    )


class Data(_Part):
    """What the model was trained and scored on; a failure knows it too, once the data are built."""

    name: str
    revision: str = Field(description="version of the generator or of the set")
    files_sha256: str = Field(description="hash over the sorted list of files and their hashes")
    split: str = Field(description="the split that was scored")
    train_samples: int
    scored_samples: int
    skipped: dict[str, int] = Field({}, description="reason → files left out")
    options: dict[str, Any] = {}


class Recipe(_Part):
    """How it was trained."""

    name: str
    config: dict[str, Any] = Field(description="the resolved configuration")
    config_sha256: str
    seed: int
    epochs: int | None = None
    samples_seen: int | None = None
    train_seconds: float | None = None
    tuning_trials: int = Field(0, description="trials of the Optuna study behind it")
    untuned: dict[str, Any] = Field(
        {},
        description="dotted name in the configuration → the recipe's own value, "
        "before a study tuned it",
    )


class Metric(_Part):
    """One metric with its unit and direction."""

    value: float
    unit: str = Field(description="'fraction' for values in 0…1")
    higher_is_better: bool


class Outcomes(_Part):
    """Where the per-sample outcomes are, for later paired tests."""

    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npz$",
        description="name of the .npz file beside the record",
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: str = Field(description="what a row is, e.g. 'right or wrong, one per image'")


class Accuracy(_Part):
    """How well it scored, with this seed."""

    headline: str = Field(description="key of the metric that ranks, e.g. 'top1'")
    metrics: dict[str, Metric]
    sampling_error: float | None = Field(
        None, description="standard error of the headline from the finite scored set"
    )
    per_class: dict[str, float] = Field({}, description="class → headline metric or its like")
    outcomes: Outcomes | None = None
    curve: dict[str, list[float | None]] = Field(
        {}, description="metric → value per epoch; None where it was not a number"
    )

    @model_validator(mode="after")
    def _headline_is_a_metric(self) -> Self:
        if self.headline not in self.metrics:
            raise UserError(f"`headline` (={self.headline!r}) must be one of {list(self.metrics)}.")
        return self


class Cost(_Part):
    """What it costs by formula, on one image of the given size."""

    params: int
    params_fused: int | None = None
    macs: int
    input_size: tuple[int, int]
    status: Literal["ok", "incomplete"] = Field(
        description="incomplete: the counter and the formula could not be compared in full"
    )
    note: str = ""


class Conditions(_Part):
    """What was in force while a time was taken, beyond what the suite's arms are.

    Block and warm-up are as asked for; threads and TF32 are read in the worker.
    """

    min_block_ms: float = Field(description="the least time of one sample's block of iterations")
    warmup_min_ms: float
    warmup_cap_ms: float = Field(description="a warm-up that has not settled ends after this")
    tf32: bool = Field(description="whether float32 products may be rounded to TF32 on a GPU")
    torch_threads: int = Field(description="inside of one operation")
    torch_interop_threads: int
    omp_num_threads: int | None = Field(description="the environment's OMP_NUM_THREADS")
    mkl_num_threads: int | None = Field(description="the environment's MKL_NUM_THREADS")


class GpuState(_Part):
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


class Speed(_Part):
    """How fast it ran, in one speed run in which all arms took turns."""

    run: str = Field(description="id of the speed run; ratios are formed only inside one run")
    protocol: str = Field(description="version of the protocol, e.g. '1'")
    scope: Literal["operator", "backbone", "end_to_end"]
    mode: Literal["latency", "throughput", "training_step"]
    batch: int
    input_size: tuple[int, int]
    dtype: str
    layout: Literal["contiguous", "channels_last"]
    compiled: bool = False
    device: str = Field(description="'cpu' or 'cuda'")
    threads: int
    processes: int
    rounds: int = Field(description="rounds in each process")
    samples_ms: list[list[float]] = Field(
        description="raw times of one forward in ms: per process, per round"
    )
    baseline: str = Field(description="label of the baseline arm")
    baseline_samples_ms: list[list[float]]
    latency_median_ms: Interval | None = None
    images_per_second: Interval | None = None
    ratio_to_baseline: Interval | None = Field(
        None, description="time / baseline's time; below 1 is faster"
    )
    verdict: Literal["faster", "slower", "same", "unclear", "baseline"] | None = None
    noise: Literal["stable", "noisy", "unstable"] | None = None
    drift_pct: float | None = Field(None, description="slope of the baseline over the run")
    steady: bool | None = Field(None, description="whether the warm-up settled in every process")
    warmup_iterations: list[int] = []
    first_call_ms: list[float] = []
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
    memory_error: str | None = Field(None, description="why there is no peak memory, if it failed")

    @property
    def setting(self) -> list[Any]:
        """What two times must share, beside the machine, to stand in one column.

        Older records, without conditions, share among themselves what they know.
        """
        base: list[Any] = [self.protocol, self.scope, self.input_size, self.dtype, self.layout]
        base += [self.compiled, self.device, self.threads]
        if self.conditions is None:
            return base
        return [*base, self.processes, self.rounds, self.conditions.model_dump()]


class FieldArea(_Part):
    """The smallest centred rectangle, of the image's aspect ratio, with a share of the field."""

    share: float = Field(gt=0, le=1, description="of the effective receptive field")
    area: float = Field(gt=0, le=1, description="fraction of the image's area")
    height_px: float
    width_px: float


class Picture(_Part):
    """A picture of a view."""

    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.png$",
        description="name of the .png file beside the record",
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    caption: str


class View(_Part):
    """What a network sees: its effective receptive field, and for classifiers Grad-CAM."""

    method: str = Field(description="version of the method, e.g. '1'")
    weights: Literal["trained", "fresh"]
    images: int = Field(ge=1, description="images of the scored split over which it is the mean")
    input_size: tuple[int, int] = Field(description="height and width of those images")
    map_size: tuple[int, int] = Field(description="height and width of the last map")
    field: list[FieldArea] = Field(description="effective receptive field, by share")
    pictures: list[Picture]


class Memory(_Part):
    """Peak memory of inference at this batch, above what was there before the arm was built.

    Weights, the batch's input, activations and the library's workspaces, after one warm-up call;
    measured in a pass of its own.
    """

    peak_rss_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None


class Machine(_Part):
    """What the machine is; never its name, its owner or a path."""

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    gpu: str | None = None
    gpu_count: int = 0
    driver: str | None = None


class Provenance(_Part):
    """Where the numbers come from."""

    git_commit: str | None = None
    git_dirty: bool | None = None
    git_patch_sha256: str | None = None
    command: str = Field(description="the command that produced it")
    reproduce: str = Field(description="the one command that reproduces it")
    mlflow_run: str | None = None
    optuna_study: str | None = None
    suite: str | None = None
    cell: str | None = Field(None, description="hash of the cell")
    created: str = Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.:+Z-]*$", description="UTC time, ISO 8601"
    )


class Record(_Part):
    """One result.

    Accuracy records have data, recipe and accuracy; speed records have speed; views have data,
    recipe and view.
    """

    schema_version: Literal[1] = 1
    kind: Literal["accuracy", "speed", "view"]
    identity: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="hash of what defines the result; filled in",
    )
    status: Status
    error: str | None = Field(None, description="why the status is not ok")
    entry: Entry
    data: Data | None = None
    recipe: Recipe | None = None
    accuracy: Accuracy | None = None
    cost: Cost | None = None
    speed: Speed | None = None
    view: View | None = None
    memory: Memory | None = None
    machine: Machine
    software: dict[str, str] = Field(description="package → version")
    provenance: Provenance

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """Return a record of what was measured here: no folder, user or host is named in it."""
        given = {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in fields.items()}
        return cls.model_validate(without_places(given))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        wanted = {
            "accuracy": ("accuracy", "data", "recipe"),
            "speed": ("speed",),
            "view": ("view", "data", "recipe"),
        }[self.kind]
        missing = [name for name in wanted if getattr(self, name) is None]
        if self.status == "ok" and missing:
            raise UserError(f"an ok record of kind {self.kind!r} needs {', '.join(missing)}.")
        if self.status != "ok" and not self.error:
            raise UserError(f"`error` must say why the status is {self.status!r}.")
        if not self.identity:
            object.__setattr__(self, "identity", self._identity())
        return self

    def _identity(self) -> str:
        speed, view = self.speed, self.view
        return digest(
            {
                "kind": self.kind,
                "entry": self.entry.model_dump(
                    exclude={"label", "slots_swapped", "slots_refused", "ranked"}
                ),
                "data": self.data and self.data.model_dump(),
                "recipe": self.recipe and [self.recipe.config_sha256, self.recipe.seed],
                "speed": speed
                and [
                    speed.protocol,
                    speed.scope,
                    speed.mode,
                    speed.batch,
                    speed.input_size,
                    speed.dtype,
                    speed.layout,
                    speed.compiled,
                    speed.device,
                    speed.threads,
                    # only where there are: other records' identities are older than conditions
                    *([speed.conditions.model_dump()] if speed.conditions else []),
                ],
                "machine": speed and self.machine.model_dump(),
                # only where there is one: other records' identities are older than views
                **({"view": [view.method, view.weights, view.input_size]} if view else {}),
            }
        )

    @property
    def beside(self) -> dict[str, str]:
        """Files that lie beside the record: name → SHA-256."""
        files = {}
        if self.accuracy and self.accuracy.outcomes:
            files[self.accuracy.outcomes.file] = self.accuracy.outcomes.sha256
        if self.view:
            files |= {picture.file: picture.sha256 for picture in self.view.pictures}
        return files

    @property
    def filename(self) -> str:
        """Name of the record's file: unlike for any other result, so nothing is overwritten."""
        moment = self.provenance.created.replace(":", "").replace("-", "").split(".")[0]
        return f"{self.kind}-{self.identity[:16]}-{moment}-{digest(self.model_dump())[:8]}.json"

    def save(self, folder: Path) -> Path:
        """Write the record into `folder` under its own name; the same record is written once."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        if not path.exists():
            write_whole(path, canonical(self.model_dump(mode="json")) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check one record; ValueError names the file and the fields that are wrong."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            faults = "; ".join(
                f"`{'.'.join(map(str, e['loc'])) or 'record'}`: {e['msg']}" for e in error.errors()
            )
            raise UserError(
                f"{path.name} is not a record of schema {SCHEMA_VERSION}: {faults}"
            ) from None


def load_all(folder: Path) -> list[Record]:
    """Read every record below `folder`, in the order of their file names."""
    return [Record.load(path) for path in sorted(folder.rglob("*.json"), key=lambda p: p.name)]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a record, as committed in leaderboard/schema-1.json."""
    return Record.model_json_schema()
