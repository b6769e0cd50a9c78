"""The operator scope: one layer at a fixed list of shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from bench.operators import registry
from bench.speed.arms import Arm


@dataclass(frozen=True)
class Shape:
    """A layer's place: channels in and out, square map of `size` pixels, kernel, stride."""

    channels: int
    size: int
    kernel_size: int
    stride: int = 1

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the map that enters."""
        return self.size, self.size

    def __str__(self) -> str:
        """Name the shape as boards print it, e.g. '96x56x56-k7'."""
        stride = f"s{self.stride}" if self.stride > 1 else ""
        return f"{self.channels}x{self.size}x{self.size}-k{self.kernel_size}{stride}"


#: The four stages of a small hierarchical network at 224 pixels, with large kernels.
SHAPES = (Shape(48, 56, 7), Shape(96, 28, 7), Shape(192, 14, 7), Shape(384, 7, 7))


def layer(name: str, shape: Shape, options: Mapping[str, Any]) -> nn.Module:
    """Return a registered operator in its training form at a shape, in eval mode.

    Inside a Sequential, so that `bench.backbones.fuse` finds it as it does in a host. An operator
    that absorbs the norm behind it keeps its own; the others are timed without a norm.

    Example:
        >>> import torch
        >>> layer("dwconv", Shape(8, 14, 7), {})(torch.zeros(1, 8, 14, 14)).shape
        torch.Size([1, 8, 14, 14])
    """
    operator = registry.create(
        name,
        in_channels=shape.channels,
        out_channels=shape.channels,
        kernel_size=shape.kernel_size,
        stride=shape.stride,
        resolution=shape.input_size,
        **options,
    )
    return nn.Sequential(operator).eval()


def operator_arms(
    names: Sequence[str], shape: Shape, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Arm]:
    """Return one arm per operator at a shape, for `measure(scope="operator")`.

    Give `measure` the `in_channels` and `input_size` of the shape too.

    Args:
        names: registered operators; the label of an arm is its name.
        shape: the layer's place, e.g. one of SHAPES.
        options: operator → its own options.

    Example:
        >>> [arm.label for arm in operator_arms(["conv", "dwconv"], SHAPES[0])]
        ['conv', 'dwconv']
    """
    chosen = options or {}
    return [Arm(name, partial(layer, name, shape, dict(chosen.get(name, {})))) for name in names]
