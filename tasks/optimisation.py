"""The optimiser: which parameters decay, how the learning rate moves, when one kernel does it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import nn

FUSED_DEVICES = ("cpu", "cuda")
"""Devices whose kernels do a whole step of AdamW and SGD at once."""


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Return the factor of the learning rate: (step + 1)/(warmup + 1) rising, then a cosine to 0.

    Example:
        >>> [round(warmup_cosine(s, 10, 2), 2) for s in (0, 1, 2, 6, 10)]
        [0.33, 0.67, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trained parameters of a module into those with and without weight decay.

    Biases and all parameters with at most one axis longer than 1 (norms, layer scales, GRN's
    (1, 1, 1, C)) get none.

    Example:
        >>> groups = parameter_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), 0.1)
        >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
        [(1, 0.1), (3, 0.0)]
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        axes = sum(size > 1 for size in parameter.shape)
        (plain if axes <= 1 or name.endswith("bias") else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def can_fuse(parameters: Iterable[nn.Parameter], precision: Precision, clipped: bool) -> bool:
    """Say whether the optimiser may be a fused one.

    Under mixed precision a fused optimiser unscales the gradients by itself, after the time at
    which they would be clipped, so Lightning refuses to clip.

    Args:
        parameters: all that are trained, where they will train.
        precision: Lightning's plugin.
        clipped: whether gradients are clipped.

    Example:
        >>> half = MixedPrecision("bf16-mixed", "cpu")
        >>> weights = list(nn.Linear(2, 2).parameters())
        >>> can_fuse(weights, half, clipped=False), can_fuse(weights, half, clipped=True)
        (True, False)
    """
    if clipped and isinstance(precision, MixedPrecision):
        return False
    return all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in parameters)


def make_optimizer(
    name: str, groups: list[dict[str, Any]], *, lr: float, momentum: float, fused: bool
) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov momentum, over groups of parameters.

    Args:
        name: "adamw" or "sgd".
        groups: as `parameter_groups` returns them.
        lr: learning rate.
        momentum: of SGD.
        fused: whether one kernel does a step; see `can_fuse`.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
