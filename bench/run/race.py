"""A race: arms that are timed together. What of them is timed is handed in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.config.speed import SpeedConfig
from bench.hashing import digest
from bench.machine import machine, software
from bench.record import Data, Entry, Recipe
from bench.speed.protocol import EXPORTED, PROTOCOL, Scope
from bench.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from bench.speed import Arm


def form_of(scope: Scope, plan: SpeedConfig) -> Literal["training", "fused"]:
    """Return the form in which arms are timed.

    Example:
        >>> form_of("training", SpeedConfig()), form_of("backbone", SpeedConfig())
        ('training', 'fused')
    """
    return "training" if scope == "training" or plan.form == "train" else "fused"


def device_of(plan: SpeedConfig) -> str:
    """Return the device on which a plan times: what it says, else a GPU where torch sees one."""
    import torch

    if plan.device != "auto":
        return plan.device
    if plan.engine in EXPORTED:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Contender:
    """One arm of a race, as its records tell of it.

    Attributes:
        entry: what it is; its label is the arm's.
        key: a JSON value, of all that its times depend on beside the code of its operator.
        recipe: how its weights were trained, where they were.
    """

    entry: Entry
    key: Any
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Timed:
    """What is handed to the protocol.

    Attributes:
        arms: one for each contender, of the same label.
        images: what they are timed on, in place of noise.
        data: where the images come from.
        prepare: makes the timed form of a training form, in place of `bench.backbones.fuse`.
        imports: modules that are imported as the arms are built.
    """

    arms: list[Arm]
    images: NDArray[np.float32] | None = None
    data: Data | None = None
    prepare: Callable[[nn.Module], nn.Module] | None = None
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Race:
    """Arms that are timed together, and how.

    Attributes:
        title: a name for people.
        words: the target and flags of `convboard speed` that ask for it.
        scope: what is timed; a key of the plan's `scopes`.
        plan: how it is timed.
        contenders: the arms, the baseline among them.
        input_size: height and width of what enters, in pixels.
        load: returns what is timed; what it needs of weights is read from the store into a
            folder. It is called when the race begins.
        in_channels: channels of what enters.
        suite: the suite that it belongs to, if any.
    """

    title: str
    words: str
    scope: Scope
    plan: SpeedConfig
    contenders: tuple[Contender, ...]
    input_size: tuple[int, int]
    load: Callable[[Store, Path], Timed]
    in_channels: int = 3
    suite: str | None = None

    @property
    def baseline(self) -> str:
        """Label of the arm to which the others are compared."""
        return next(c.entry.label for c in self.contenders if c.entry.baseline)

    @property
    def batches(self) -> list[int]:
        """The batch sizes that are timed."""
        return self.plan.scopes[self.scope]

    @functools.cached_property
    def hash(self) -> str:
        """Hash of everything that the result depends on."""
        return digest(
            {
                "protocol": PROTOCOL,
                "plan": self.plan.model_dump(exclude={"scopes"}),
                "scope": [self.scope, self.batches, self.input_size, self.in_channels],
                "arms": {
                    c.entry.label: [c.key, c.entry.baseline, c.entry.operator_sha256]
                    for c in self.contenders
                },
                "machine": machine().model_dump(),
                "software": software(),
            }
        )[:12]
