"""EDO on a trained supernet: the dilation of least error is chosen for every channel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.operators.base import ConvSpec
from bench.operators.edo import (
    Reading,
    Supernet,
    choose,
    expectations,
    output_errors,
    pattern_of,
    weight_errors,
)

if TYPE_CHECKING:
    from tasks.base import TaskModule
    from tasks.data.module import TaskData


@dataclass(frozen=True)
class Layer:
    """What was chosen for one slot: a reading → the dilation (height, width) of each channel."""

    name: str
    spec: ConvSpec
    chosen: dict[Reading, Tensor]

    def pattern(self, reading: Reading, dmax: int) -> dict[str, int]:
        """Return the slot's pattern for `icconv`."""
        return pattern_of(
            self.chosen[reading], dmax, 1 if self.spec.depthwise else self.spec.groups
        )


@dataclass(frozen=True)
class Found:
    """The outcome of a search over a network."""

    layers: list[Layer]
    images: int
    """Over which the expectations are the means."""
    measuring_seconds: float
    choosing_seconds: float

    @property
    def seconds(self) -> float:
        """What the search took after the supernet's training."""
        return self.measuring_seconds + self.choosing_seconds

    def agreement(self) -> float:
        """Share of the channels for which the two readings choose alike."""
        same = [(one.chosen["output"] == one.chosen["weight"]).all(1) for one in self.layers]
        return float(torch.cat(same).double().mean())

    def plain(self, reading: Reading) -> float:
        """Share of the channels that keep dilation (1, 1)."""
        ones = [(one.chosen[reading] == 1).all(1) for one in self.layers]
        return float(torch.cat(ones).double().mean())


def search(module: TaskModule, data: TaskData, dmax: int, images: int) -> Found:
    """Choose a dilation per channel of every layer of a trained supernet, by both readings.

    Args:
        module: holds `edo` in its backbone's slots.
        data: its data; the training batches are used.
        dmax: the supernet's.
        images: at least so many, in whole batches, unless there are fewer.
    """
    from bench.backbones import swap_report

    module.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    names = swap_report(module.backbone).swapped
    layers = {name: module.backbone.get_submodule(name) for name in names}
    data.prepare_data()
    data.setup("fit")
    taken = 0

    def batches() -> Iterator[Tensor]:
        nonlocal taken
        for batch, _ in data.train_dataloader():
            yield batch.to(module.device)
            taken += len(batch)
            if taken >= images:
                return

    times = [time.perf_counter()]
    means = expectations(module.predict, layers, batches())
    times.append(time.perf_counter())
    chosen = []
    for name, layer in layers.items():
        assert isinstance(layer, Supernet)
        # On the CPU a GPU's coarser products (TF32) play no part; it is one image's worth.
        weight, mean = layer.weight.cpu(), means[name].cpu()
        by_output = output_errors(weight, layer.spec, dmax, mean)
        by_weight = weight_errors(weight, layer.spec, dmax)
        each: dict[Reading, Tensor] = {
            "output": choose(by_output, dmax),
            "weight": choose(by_weight, dmax),
        }
        chosen.append(Layer(name, layer.spec, each))
    times.append(time.perf_counter())
    measuring, choosing = (later - earlier for earlier, later in pairwise(times))
    return Found(chosen, taken, measuring, choosing)
