"""A study: how an arm was tuned, with its whole budget and every trial."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bench.record.parts import Part


class Objective(Part):
    """What a study makes better."""

    name: str = Field(description="the headline, or 'time ratio': time over the default's")
    unit: str = Field(description="'fraction' for values in 0…1")
    higher_is_better: bool


class Trial(Part):
    """One trial of a study."""

    number: int = Field(ge=0)
    state: Literal["complete", "pruned", "failed"]
    values: list[float] = Field([], description="one for each objective, if it is complete")
    params: dict[str, Any] = Field({}, description="name of a setting → value that was drawn")
    epochs: int = Field(0, ge=0, description="that it was trained for")
    default: bool = Field(False, description="the recipe and the operator as they are")
    best: bool = Field(False, description="none is better; with two objectives, in both")
    error: str | None = Field(None, description="why it has no score")


class Study(Part):
    """The budget of one arm's tuning, and what came of it."""

    name: str = Field(description="of the study in Optuna")
    sampler: str
    pruner: str
    held_out: float = Field(
        gt=0, lt=1, description="share of the training set that scores trials; none is trained on"
    )
    objectives: list[Objective] = Field(min_length=1, max_length=2)
    searched: dict[str, dict[str, Any]] = Field(
        description="dotted name of a setting → its space: values, or low, high and log"
    )
    trials: list[Trial] = Field(min_length=1)
    importances: dict[str, float] = Field(
        {}, description="name of a setting → its share in what the first objective hangs on"
    )
    seconds: float = Field(ge=0, description="that its trials took, one after the other")
