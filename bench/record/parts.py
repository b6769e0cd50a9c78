"""What was measured, on what data, by which recipe, how well, at what cost, and where."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.errors import UserError

Status = Literal["ok", "oom", "error", "timeout", "invalid", "unsupported"]
SETTLED: tuple[Status, ...] = ("ok", "unsupported")
"""What would come out the same once more; the others are failures."""


class Part(BaseModel):
    """A part of a record: strict, unchanging, and without numbers that JSON does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(Part):
    """An estimate and its interval, in the unit of the field that holds it."""

    value: float
    low: float
    high: float
    level: float = Field(0.95, gt=0, lt=1, description="confidence level")
    method: str = Field(description="how the interval was formed, e.g. 't over 5 processes'")


class Entry(Part):
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
    slots_carried: int | None = Field(
        None,
        description="slots in which the operator took over the weights that the host started from, "
        "the others being fresh; None where the whole host was fresh",
    )
    task: str = Field(
        description="classification, detection, segmentation or pose; of times without a task: "
        "backbone or operator"
    )
    head: str | None = None
    form: Literal["training", "fused", "published"] = Field(
        description="the form of the operator measured; published: by the calls of its public code"
    )
    exact_form: str | None = Field(
        None,
        description="the one exact form that an operator alone had to take, of those of equal "
        "value that it can be computed in; null: the fastest, or the rule's",
    )
    baseline: bool = Field(False, description="the arm to which the others are compared")
    ranked: bool = Field(
        True, description="False: trained on the way to something else, such as a supernet"
    )


class Data(Part):
    """What the model was trained and scored on; a failure knows it too, once the data are built."""

    name: str
    revision: str = Field(description="version of the generator or of the set")
    files_sha256: str = Field(description="hash over the sorted list of files and their hashes")
    split: str = Field(description="the split that was scored")
    train_samples: int
    scored_samples: int
    skipped: dict[str, int] = Field({}, description="what was left out or mended → number of times")
    options: dict[str, Any] = {}


class Recipe(Part):
    """How it was trained."""

    name: str
    config: dict[str, Any] = Field(description="the resolved configuration")
    config_sha256: str
    seed: int
    epochs: int | None = None
    samples_seen: int | None = None
    train_seconds: float | None = None
    forms: dict[str, str] = Field(
        {}, description="problem → exact form of an operator that it was trained in, if measured"
    )
    tuning_trials: int = Field(0, description="trials of the Optuna study behind it")
    untuned: dict[str, Any] = Field(
        {},
        description="dotted name in the configuration → the recipe's own value, "
        "before a study tuned it",
    )


class Metric(Part):
    """One metric with its unit and direction."""

    value: float
    unit: str = Field(description="'fraction' for values in 0…1")
    higher_is_better: bool


class Outcomes(Part):
    """Where the per-sample outcomes are, for later paired tests."""

    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npz$",
        description="name of the .npz file beside the record",
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: str = Field(description="what a row is, e.g. 'right or wrong, one per image'")


class Accuracy(Part):
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


class Cost(Part):
    """What it costs by formula, on one image of the given size."""

    params: int
    params_fused: int | None = None
    macs: int
    input_size: tuple[int, int]
    status: Literal["ok", "incomplete"] = Field(
        description="incomplete: the counter and the formula could not be compared in full"
    )
    note: str = ""


class Machine(Part):
    """What the machine is; never its name, its owner or a path."""

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    gpu: str | None = None
    gpu_count: int = 0
    driver: str | None = None


class Provenance(Part):
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
