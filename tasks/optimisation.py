"""The optimiser: which parameters decay, and when one kernel does a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import nn

FUSED_DEVICES = ("cpu", "cuda")
"""Devices whose kernels do a whole step of AdamW and SGD at once."""


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    lr: float | None = None,
    rates: Mapping[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """Split the trained parameters of a module into those with and without weight decay.

    Biases and all parameters with at most one axis longer than 1 (norms, layer scales, GRN's
    (1, 1, 1, C)) get none.

    Args:
        module: whose parameters are trained.
        weight_decay: of those that decay.
        lr: learning rate, of which `rates` are factors.
        rates: parameter → factor of its learning rate, where it is not 1; then there are two
            groups of every factor.

    Example:
        >>> groups = parameter_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), 0.1)
        >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
        [(1, 0.1), (3, 0.0)]
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    if not rates:
        groups = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        axes = sum(size > 1 for size in parameter.shape)
        decays = axes > 1 and not name.endswith("bias")
        groups.setdefault((decays, (rates or {}).get(parameter, 1.0)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0}
        | ({"lr": lr * rate} if rates and lr else {})
        for (decays, rate), parameters in groups.items()
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
    name: str,
    groups: list[dict[str, Any]],
    *,
    lr: float,
    momentum: float,
    fused: bool,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with momentum, over groups of parameters.

    Args:
        name: "adamw" or "sgd".
        groups: as `parameter_groups` returns them.
        lr: learning rate.
        momentum: of SGD.
        fused: whether one kernel does a step; see `can_fuse`.
        nesterov: whether the momentum of SGD is Nesterov's.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=fused
    )
