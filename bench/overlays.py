"""The YAML overlays of configs/: found by name, read safely, merged, checked."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from bench.operators.registry import near
from bench.speed.protocol import COMPILED_END_TO_END

Scope = Literal["backbone", "end_to_end"]
Batches = Annotated[list[PositiveInt], Field(min_length=1)]
Kind = Literal["suites", "tasks", "hosts", "operators", "recipes"]


class OverlayError(ValueError):
    """A configuration file that is not there or is not right; the message says where and why."""


def folders() -> list[Path]:
    """Return where configs are looked for: ./configs, then those that came with the package."""
    package = Path(__file__).parent
    shipped = [package / "configs", package.parent / "configs"]
    return [Path("configs"), *(path for path in shipped if path.is_dir())]


def known(kind: Kind) -> list[str]:
    """Return the names of all configs of a kind."""
    return sorted({path.stem for folder in folders() for path in (folder / kind).glob("*.yaml")})


def find(kind: Kind, name: str) -> Path:
    """Return the file of a config: a path that ends in .yaml, or a name in configs/."""
    if name.endswith((".yaml", ".yml")):
        return existing(name)
    for folder in folders():
        path = folder / kind / f"{name}.yaml"
        if path.is_file():
            return path
    raise OverlayError(f"`{kind[:-1]}` (={name!r}) is not known; {near(name, known(kind))}")


def existing(name: str) -> Path:
    """Return the path of a file that must be there."""
    path = Path(name)
    if not path.is_file():
        raise OverlayError(f"`{name}`: there is no such file.")
    return path


def read(path: Path) -> dict[str, Any]:
    """Read one YAML file as data; nothing in it is executed."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OverlayError(f"{path.name} is not YAML of plain data: {error}") from None
    if not isinstance(value, dict):
        raise OverlayError(f"{path.name} must hold a mapping, not {type(value).__name__}.")
    return value


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another: mappings are merged, everything else is replaced.

    Example:
        >>> merge({"model": {"lr": 1, "wd": 2}}, {"model": {"lr": 3}})
        {'model': {'lr': 3, 'wd': 2}}
    """
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = merge(under, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return merged


def assign(config: dict[str, Any], dotted: str) -> None:
    """Apply one `a.b.c=value` to a configuration; the value is read as YAML."""
    name, equals, text = dotted.partition("=")
    if not equals or not name:
        raise OverlayError(
            f"`--set` (={dotted!r}) must read name=value, e.g. trainer.max_epochs=3."
        )
    at = config
    *path, last = name.split(".")
    for key in path:
        at = at.setdefault(key, {})
        if not isinstance(at, dict):
            raise OverlayError(f"`--set` (={dotted!r}): {key} holds a value, not a mapping.")
    at[last] = yaml.safe_load(text)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Space(_Model):
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


class Tuned(_Model):
    """The study behind a board's settings."""

    study: str
    trials: int = Field(ge=1)


class Arm(_Model):
    """One operator of a suite (configs/operators): a registered name, options, a selection."""

    label: str = ""
    operator: str | None = Field(None, description="registered name; None leaves the host as it is")
    options: dict[str, Any] = {}
    where: dict[str, Any] | None = None
    mix: Literal["pointwise"] | None = None
    tune: dict[str, Space] = Field({}, description="own options that a study searches")
    description: str = ""


class Host(_Model):
    """One host (configs/hosts): a timm model and its options."""

    label: str = ""
    host: str
    host_options: dict[str, Any] = {}
    pretrained: bool = False
    description: str = ""


class SpeedPlan(_Model):
    """How a suite's speed run is made."""

    scopes: dict[Scope, Batches] = Field(
        {"backbone": [1, 8], "end_to_end": [1]}, min_length=1, description="scope → batch sizes"
    )
    processes: int = Field(5, ge=1)
    rounds: int = Field(20, ge=2)
    min_block_ms: float = Field(10, gt=0, description="the least time of one sample")
    warmup_cap_ms: float = Field(2000, gt=0, description="the longest warm-up")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    compiled: bool = False
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU, if there is")

    @model_validator(mode="after")
    def _compiled_before_decisions(self) -> Self:
        if self.compiled and "end_to_end" in self.scopes:
            raise ValueError(COMPILED_END_TO_END)
        return self


class Board(_Model):
    """One board of a suite: a task, hosts and operators under one recipe."""

    task: str
    hosts: list[str | Host] = Field(min_length=1)
    operators: list[str | Arm] = Field(min_length=1)
    recipe: str
    baseline: str = Field(description="label of the arm to which the others are compared")
    seeds: list[int] | None = None
    where: dict[str, Any] | None = Field(None, description="slots, unless the arm says otherwise")
    tuned: Tuned | None = None
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
    boards: list[Board] = Field(min_length=1)
    speed: SpeedPlan | None = SpeedPlan()
    timeout_minutes: float = Field(24 * 60, gt=0, description="of one cell")

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"`seeds` (={seeds}) must differ.")
        return seeds


def check(model: type[BaseModel], value: dict[str, Any], where: str) -> Any:
    """Validate a mapping against a model; OverlayError names field, value and rule."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise OverlayError(f"{where}: " + "; ".join(_faults(model, error))) from None


def _faults(model: type[BaseModel], error: ValidationError) -> Iterable[str]:
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f"`{name}` is not known; {near(str(fault['loc'][-1]), model.model_fields)}"
        else:
            yield f"`{name}` (={fault['input']!r}): {fault['msg']}"


def load_suite(name: str) -> Suite:
    """Read a suite by name or path."""
    path = find("suites", name)
    suite: Suite = check(Suite, {"name": path.stem, **read(path)}, path.name)
    return suite


def load_arm(operator: str | Arm) -> Arm:
    """Read an operator's overlay; a registered name without one stands for its defaults."""
    if isinstance(operator, Arm):
        return operator.model_copy(update={"label": operator.label or operator.operator or "host"})
    if operator not in known("operators") and not operator.endswith((".yaml", ".yml")):
        from bench import operators

        if operator not in operators.names():
            choices = sorted({*known("operators"), *operators.names()})
            raise OverlayError(
                f"`operator` (={operator!r}) is not known; {near(operator, choices)}"
            )
        return Arm(label=operator, operator=operator)
    path = find("operators", operator)
    arm: Arm = check(Arm, {"label": path.stem, **read(path)}, path.name)
    return arm


def load_host(host: str | Host) -> Host:
    """Read a host's overlay; any other name stands for the timm model of that name."""
    if isinstance(host, Host):
        return host.model_copy(update={"label": host.label or host.host})
    if host not in known("hosts") and not host.endswith((".yaml", ".yml")):
        return Host(label=host, host=host)
    path = find("hosts", host)
    made: Host = check(Host, {"label": path.stem, **read(path)}, path.name)
    return made
