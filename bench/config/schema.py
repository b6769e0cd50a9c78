"""What a suite's YAML may say: every key with its type, default and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from bench.config import files
from bench.errors import ConfigError, near
from bench.speed.protocol import COMPILED_END_TO_END

SuiteScope = Literal["backbone", "end_to_end"]
Batches = Annotated[list[PositiveInt], Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchSpace(_Model):
    """The values that a study may draw: a list, or a range (whole numbers if both ends are)."""

    values: list[Any] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        ranged = self.low is not None and self.high is not None and self.low < self.high
        if bool(self.values) == ranged:
            raise ValueError("a space has `values`, or `low` < `high`.")
        return self


class Tuning(_Model):
    """The study behind a board's settings."""

    study: str
    trials: int = Field(ge=1)


class OperatorConfig(_Model):
    """One operator of a suite (configs/operators): a registered name, options, a selection."""

    label: str = ""
    operator: str | None = Field(None, description="registered name; None leaves the host as it is")
    options: dict[str, Any] = {}
    where: dict[str, Any] | None = None
    mix: Literal["pointwise"] | None = None
    tune: dict[str, SearchSpace] = Field({}, description="own options that a study searches")
    description: str = ""


class HostConfig(_Model):
    """One host (configs/hosts): a timm model and its options."""

    label: str = ""
    host: str
    host_options: dict[str, Any] = {}
    pretrained: bool = False
    description: str = ""


class SpeedConfig(_Model):
    """How a suite's speed run is made."""

    scopes: dict[SuiteScope, Batches] = Field(
        {"backbone": [1, 8], "end_to_end": [1]}, min_length=1, description="scope → batch sizes"
    )
    processes: int = Field(5, ge=1)
    rounds: int = Field(20, ge=2)
    min_block_ms: float = Field(10, gt=0, description="the least time of one sample")
    warmup_cap_ms: float = Field(2000, gt=0, description="the longest warm-up")
    threads: PositiveInt | None = Field(
        None, description="CPU threads; none given: every core that the process may use"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    compiled: bool = False
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU, if there is")

    @model_validator(mode="after")
    def _compiled_before_decisions(self) -> Self:
        if self.compiled and "end_to_end" in self.scopes:
            raise ValueError(COMPILED_END_TO_END)
        return self


class BoardConfig(_Model):
    """One board of a suite: a task, hosts and operators under one recipe."""

    task: str
    hosts: list[str | HostConfig] = Field(min_length=1)
    operators: list[str | OperatorConfig] = Field(min_length=1)
    recipe: str
    baseline: str = Field(description="label of the arm to which the others are compared")
    seeds: list[int] | None = None
    where: dict[str, Any] | None = Field(None, description="slots, unless the arm says otherwise")
    tuned: Tuning | None = None
    set: dict[str, Any] = Field({}, description="laid over the task and the recipe")
    learnt: dict[str, float] = Field(
        {}, description="metric → what the baseline's mean must reach for the board to say anything"
    )
    optional: bool = Field(False, description="left out, with a word, where its data are not there")


class Suite(_Model):
    """A suite (configs/suites): boards, seeds, and the speed run that goes with them."""

    name: str
    description: str = ""
    seeds: list[int] = Field(min_length=1)
    boards: list[BoardConfig] = Field(min_length=1)
    speed: SpeedConfig | None = SpeedConfig()
    timeout_minutes: float = Field(24 * 60, gt=0, description="of one cell")

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"`seeds` (={seeds}) must differ.")
        return seeds


def check(model: type[BaseModel], value: dict[str, Any], where: str) -> Any:
    """Validate a mapping against a model; ConfigError names field, value and rule."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_faults(model, error))) from None


def _faults(model: type[BaseModel], error: ValidationError) -> Iterable[str]:
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f"`{name}` is not known; {near(str(fault['loc'][-1]), model.model_fields)}"
        else:
            yield f"`{name}` (={fault['input']!r}): {fault['msg']}"


def load_suite(name: str) -> Suite:
    """Read a suite by name or path."""
    path = files.find("suites", name)
    suite: Suite = check(Suite, {"name": path.stem, **files.read(path)}, path.name)
    return suite


def load_operator(operator: str | OperatorConfig) -> OperatorConfig:
    """Read an operator's overlay; a registered name without one stands for its defaults."""
    if isinstance(operator, OperatorConfig):
        return operator.model_copy(update={"label": operator.label or operator.operator or "host"})
    if operator not in files.known("operators") and not operator.endswith((".yaml", ".yml")):
        from bench import operators

        if operator not in operators.names():
            choices = sorted({*files.known("operators"), *operators.names()})
            raise ConfigError(f"`operator` (={operator!r}) is not known; {near(operator, choices)}")
        return OperatorConfig(label=operator, operator=operator)
    path = files.find("operators", operator)
    arm: OperatorConfig = check(OperatorConfig, {"label": path.stem, **files.read(path)}, path.name)
    return arm


def load_host(host: str | HostConfig) -> HostConfig:
    """Read a host's overlay; any other name stands for the timm model of that name."""
    if isinstance(host, HostConfig):
        return host.model_copy(update={"label": host.label or host.host})
    if host not in files.known("hosts") and not host.endswith((".yaml", ".yml")):
        return HostConfig(label=host, host=host)
    path = files.find("hosts", host)
    made: HostConfig = check(HostConfig, {"label": path.stem, **files.read(path)}, path.name)
    return made
