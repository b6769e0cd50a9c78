"""How a board came to its decision on an arm, where seeds were added until it was decided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.record.parts import Part


class Decision(Part):
    """Why an arm was run with no more seeds."""

    outcome: Literal["best", "leads", "same", "worse", "beaten", "open"] = Field(
        description="best: surely the best arm of its board; leads: of the best mean, others are "
        "the same or open; same: surely within the margin of it; worse: worse than it, by a test "
        "of these two; beaten: likewise, by an arm that is surely faster too; open: none is known"
    )
    by: str | None = Field(None, description="label of the arm that it was compared with")
    least: float | None = Field(
        None, description="by how much it is worse at least, in the headline's unit"
    )
    rounds: int = Field(ge=2, description="seeds of this arm when it was judged")
    seeds_max: int = Field(ge=2, description="seeds at most; there is a look after every one but 1")
    margin: float = Field(gt=0, description="differences below it count as none")
    risk: float = Field(gt=0, lt=1, description="that a wrong arm is called the best")
