"""The operator scope: one layer at a fixed list of shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

from torch import nn

from bench.errors import UserError
from bench.operators import registry
from bench.speed.arms import Arm


@dataclass(frozen=True)
class Shape:
    """A layer's place: channels in and out, square map of `size` pixels, kernel, stride."""

    channels: int
    size: int
    kernel_size: int
    stride: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a shape as boards print it; '96x56-k7' is short for '96x56x56-k7'.

        Raises:
            UserError: it reads otherwise.

        Example:
            >>> Shape.parse("96x56-k7s2")
            Shape(channels=96, size=56, kernel_size=7, stride=2)
        """
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?:x\2)?-k([1-9]\d*)(?:s([1-9]\d*))?", text)
        if match is None:
            raise UserError(
                f"`shape` (={text!r}) must read CHANNELSxSIZE-kKERNEL, with sSTRIDE behind it "
                "where that is not 1: 96x56-k7, 96x56-k7s2."
            )
        channels, size, kernel_size, stride = (int(number or 1) for number in match.groups())
        return cls(channels, size, kernel_size, stride)

    def to_json(self) -> dict[str, int]:
        """Return the fields as a JSON object."""
        return asdict(self)

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

    Args:
        name: a registered operator.
        shape: where it stands.
        options: its own, or `kernel_size`, `groups` and `dilation` in place of the shape's.

    Raises:
        UserError: it cannot stand there, or does not have these options.

    Example:
        >>> import torch
        >>> layer("dwconv", Shape(8, 14, 7), {})(torch.zeros(1, 8, 14, 14)).shape
        torch.Size([1, 8, 14, 14])
    """
    arguments = {
        "in_channels": shape.channels,
        "out_channels": shape.channels,
        "kernel_size": shape.kernel_size,
        "stride": shape.stride,
        "resolution": shape.input_size,
    }
    return nn.Sequential(registry.create(name, **{**arguments, **options})).eval()


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
