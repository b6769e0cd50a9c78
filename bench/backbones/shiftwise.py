"""Shiftwise networks: UniRepLKNet's layout with the Shiftwise operator in every block."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models import register_model
from torch import nn

from bench.backbones.registration import configs
from bench.backbones.unireplknet import create_network
from bench.operators.base import Operator
from bench.operators.registry import create

# The size M of the large kernel per stage; the small ones are 3×3.
KERNELS = (51, 49, 47, 13)

default_cfgs = configs(
    {
        name: {"first_conv": "stem.0", "classifier": "head.fc"}
        for name in ("shiftwise_t", "shiftwise_s")
    }
)


def _operator(channels: int, kernel_size: int, *, official_tables: bool) -> Operator:
    with torch.device("cpu"):  # the tables are drawn, which the meta device cannot
        op = create(
            "shift",
            in_channels=channels,
            out_channels=channels,
            kernel_size=kernel_size,
            official_tables=official_tables,
        )
    return op.to(torch.get_default_device())


def _network(
    variant: str,
    pretrained: bool,
    channels: int,
    third: int,
    *,
    official_tables: bool = False,
    **kwargs: Any,
) -> nn.Module:
    depths = (3, 3, third, 3)
    paper_settings = {
        "depths": depths,
        "dims": tuple(channels * 2**i for i in range(4)),
        "kernel_sizes": tuple((k,) * d for k, d in zip(KERNELS, depths, strict=True)),
        "operator": partial(_operator, official_tables=official_tables),
    }
    return create_network(variant, pretrained, **{**paper_settings, **kwargs})


@register_model
def shiftwise_t(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """SW-T (ShiftwiseConv, CVPR 2025): 31.0 M parameters for inference.

    `official_tables=True` lays the kernels out as the public networks do.
    """
    return _network("shiftwise_t", pretrained, 80, 18, **kwargs)


@register_model
def shiftwise_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """SW-S (ShiftwiseConv, CVPR 2025): 56.0 M parameters for inference.

    `official_tables=True` lays the kernels out as the public networks do.
    """
    return _network("shiftwise_s", pretrained, 96, 27, **kwargs)
