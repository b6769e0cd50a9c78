"""How the learning rate moves: linear warm-up, then a cosine, a straight line, or steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.errors import UserError, near, require

Shape = Literal["cosine", "linear", "steps"]
SHAPES = ("cosine", "linear", "steps")
DROP = 0.1
"""Factor of the learning rate at each milestone."""


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate at every step.

    It rises to 1 as (step + 1)/(warmup + 1). Then, with p from 0 to 1 over what is left:

    - cosine: e + (1 − e)(1 + cos πp)/2, which ends at e = `final`.
    - linear: e + (1 − e)(1 − p), mmsegmentation's "poly" of power 1.
    - steps: 0.1 to the power of the milestones that are passed.

    Args:
        shape: "cosine", "linear" or "steps"; None for "cosine".
        warmup_epochs: of linear warm-up; may be a fraction, >= 0.
        final: share of the peak at the end, in [0, 1); None for 0.
        milestones: rising epochs, of "steps" alone.

    Raises:
        ValueError: names the argument, its value and the rule.

    Example:
        >>> steps = Schedule("steps", milestones=(8, 11))
        >>> [round(steps.factor(s, 120, 12), 3) for s in (0, 79, 80, 110)]
        [1.0, 1.0, 0.1, 0.01]
        >>> [round(Schedule(final=0.1).factor(s, 10, 1), 2) for s in (0, 5, 10)]
        [1.0, 0.55, 0.1]
    """

    shape: Shape | None = None
    warmup_epochs: float = 0.0
    final: float | None = None
    milestones: Sequence[float] = ()

    def __post_init__(self) -> None:
        shape, marks, end = self.shape, tuple(self.milestones), self.final
        if shape is not None and shape not in SHAPES:
            raise UserError(f"`schedule` (={shape!r}) is not known; {near(str(shape), SHAPES)}")
        require("warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, ">= 0")
        stepped = shape == "steps"
        require("final_lr", end, end is None or (0 <= end < 1 and not stepped),
                "in [0, 1), or None; None for `schedule` 'steps'")  # fmt: skip
        rising = marks == tuple(sorted({*marks})) and all(mark > 0 for mark in marks)
        require("milestones", marks, rising and bool(marks) == stepped,
                "rising epochs for `schedule` 'steps', and none for others")  # fmt: skip

    def factor(self, step: int, total: int, epochs: float) -> float:
        """Return the factor at a step of `total`, which are `epochs`, > 0."""
        warmup = round(self.warmup_epochs * total / epochs)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.shape == "steps":
            return DROP ** sum(step >= round(mark * total / epochs) for mark in self.milestones)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        left = 1 - progress if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        end = self.final or 0.0
        return end + (1 - end) * left
