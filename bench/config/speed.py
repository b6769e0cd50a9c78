"""How a suite's speed run is made: every key with its type, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from bench.config.keys import Keys, check
from bench.errors import ConfigError
from bench.speed.protocol import Engine, Forms, Layout, Scope, check_engine

Batches = Annotated[list[PositiveInt], Field(min_length=1)]


class SpeedConfig(Keys):
    """How a suite's speed run is made."""

    scopes: dict[Scope, Batches] = Field(
        {"backbone": [1, 8], "end_to_end": [1]},
        min_length=1,
        description="what is timed → its batch sizes: `operator` is one layer at fixed shapes, "
        "`backbone` image to feature pyramid, `end_to_end` image to labels, boxes, masks or poses, "
        "`training` a training step of the backbone",
        examples=[{"backbone": [1, 8]}],
    )
    processes: int = Field(
        5, ge=1, description="fresh processes; intervals are over them", examples=[5]
    )
    rounds: int = Field(20, ge=2, description="turns of every arm in each process", examples=[20])
    min_block_ms: float = Field(
        10, gt=0, description="the least time of one sample, in ms", examples=[10]
    )
    warmup_cap_ms: float = Field(
        2000, gt=0, description="the longest warm-up of an arm, in ms", examples=[1000]
    )
    threads: PositiveInt | None = Field(
        None,
        description="CPU threads; null: every core that the process may use, or OMP_NUM_THREADS "
        "where that is fewer",
        examples=[1],
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of weights and input", examples=["bfloat16"]
    )
    layout: Layout = Field(
        "fastest",
        description="of weights and maps in memory; fastest: each arm's own, by measuring",
        examples=["channels_last"],
    )
    memory: bool = Field(True, description="measure peak memory too", examples=[False])
    forms: Forms = Field(
        "measured",
        description="exact forms of operators: the fastest, by measuring, or those of the rule",
        examples=["rule"],
    )
    form: Literal["train", "fused"] = Field(
        "fused",
        description="of operators: as they are trained, or fused for inference; training steps are "
        "always those of the form that is trained",
        examples=["train"],
    )
    engine: Engine = Field(
        "torch",
        description="what runs the form: torch as it is or under its compiler, not end to end; or "
        "ONNX Runtime or OpenVINO, for inference in float32 on a CPU alone",
        examples=["compile"],
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="auto: a GPU, if there is one that the engine runs on",
        examples=["cuda"],
    )

    @model_validator(mode="after")
    def _engine_can_run_it(self) -> Self:
        device = "cpu" if self.device == "auto" else self.device
        for scope in self.scopes:
            check_engine(self.engine, scope, self.dtype, self.layout, device)
        return self


BATCHES: dict[Scope, list[int]] = {
    "operator": [1, 8],
    "backbone": [1, 8],
    "end_to_end": [1],
    "training": [8],
}
"""Batch sizes of a scope that is asked for by name alone."""


def speed_plan(
    plan: SpeedConfig, scope: Scope | None = None, batches: str | None = None, **values: Any
) -> SpeedConfig:
    """Return a plan with what a command line says laid over it.

    Args:
        plan: a suite's, or the default one.
        scope: time this alone, at the plan's batch sizes of it or else at those of BATCHES.
        batches: comma-separated, in place of the batch sizes of every scope.
        **values: more keys of SpeedConfig; what is None stays as it is.

    Raises:
        ConfigError: a value that SpeedConfig does not allow, or training steps of the fused form;
            it names key, value and rule.

    Example:
        >>> speed_plan(SpeedConfig(), "backbone", "1,4", dtype="bfloat16").scopes
        {'backbone': [1, 4]}
    """
    scopes: dict[Any, Any] = dict(plan.scopes)
    if scope is not None:
        scopes = {scope: scopes.get(scope, BATCHES[scope])}
    if batches is not None:
        scopes = {name: [part.strip() for part in batches.split(",")] for name in scopes}
    given = {name: value for name, value in values.items() if value is not None}
    if scope == "training" and given.get("form") == "fused":
        raise ConfigError("`form` (='fused') must be 'train' for scope 'training'.")
    planned: SpeedConfig = check(
        SpeedConfig, {**plan.model_dump(), "scopes": scopes, **given}, "speed"
    )
    return planned
