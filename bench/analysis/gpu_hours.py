"""How long a cell would train on a GPU of its own, estimated from what is multiplied and added.

    hours = 2 · 3 · MACs · images · epochs / reached / 3600

A multiply-accumulate is two operations, and a training step does three times a forward pass. MACs
are those of the form that is trained, at the full image size, up to the maps that the head reads or
makes: proposals and their heads, the optimiser and the loading of images are not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.cell import Cell, without_start
from bench.hashing import digest
from bench.memo import remembered
from bench.run.code import code_of

GPU = "A100"
PEAK = 312e12
"""Operations a second of its dense products in bfloat16, as its maker states them."""
SHARE = 0.1
"""Part of the peak that training is taken to reach."""
REACHED = SHARE * PEAK
ASSUMED = (
    f"on an {GPU} at {SHARE:.0%} of its {PEAK / 1e12:.0f} TFLOPS (published speeds come to 6%, "
    "UniRepLKNet-T's 1,804 images/s forward, up to 20%, ResNet-50 in training; --tflops says what "
    "yours reaches)"
)


def hours(macs: int, images: int, epochs: int, reached: float = REACHED) -> float:
    """Return the GPU hours of a training.

    Args:
        macs: of a forward pass on one image.
        images: trained on in an epoch.
        epochs: of them.
        reached: operations a second.

    Example:
        >>> round(hours(4_900_000_000, 1_281_167, 300))  # UniRepLKNet-T on ImageNet
        101
    """
    return 6 * macs * images * epochs / reached / 3600


def gpu_hours(cells: Sequence[Cell], reached: float = REACHED) -> dict[str, float]:
    """Return the estimate of each cell whose suite says how many images it trains on, by its hash.

    Networks are built on the meta device, where nothing is allocated or computed; what they cost is
    remembered by their configuration and the code.
    """
    known: dict[str, int] = {}
    estimates: dict[str, float] = {}
    for cell in cells:
        epochs = cell.config["trainer"].get("max_epochs")
        if cell.train_images is None or not epochs or epochs < 0:
            continue
        model = without_start(_trained(cell.config["model"]))
        network = [model, code_of(cell)]
        key = digest(network)
        if key not in known:
            known[key] = remembered("training-macs", network, partial(training_macs, model))
        estimates[cell.hash] = hours(known[key], cell.train_images, epochs, reached)
    return estimates


def training_macs(model: dict[str, Any]) -> int:
    """Return the multiply-accumulates of a forward pass on one image, in the trained form.

    Args:
        model: the part `model` of a resolved configuration.
    """
    from bench.backbones import macs

    height, width = model["init_args"]["backbone"]["init_args"]["input_size"]
    count, _, _ = macs(_Maps(on_meta(model)), (height, width))
    return count


def on_meta(model: dict[str, Any], num_classes: int = 100) -> nn.Module:
    """Return what a configuration makes of the task's module for inference, on the meta device."""
    from bench.config.lightning import build_module

    with torch.device("meta"):
        return build_module(model, num_classes).inference_module()


class _Maps(nn.Module):
    """A task's network up to the maps before its decisions."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Any:
        compared = getattr(self.inner, "compared", self.inner)
        return compared(images)


def _trained(model: dict[str, Any]) -> dict[str, Any]:
    """Leave out the seed, and the mirror images over which a pose is averaged when it is scored."""
    plain = copy.deepcopy(model)
    for argument in ("seed", "flip_test"):
        plain["init_args"].pop(argument, None)
    return plain
