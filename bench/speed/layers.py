"""The operator scope: one layer at a fixed list of shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from bench.backbones.fuse import fuse
from bench.errors import UserError
from bench.operators import registry
from bench.operators.forms import Formed
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

    @classmethod
    def parse_all(cls, text: str) -> list[Self]:
        """Read shapes of which the size, or the kernel, may be a range: FROM..TO.

        Within a range each value is twice the one before, and one more for a kernel, which so stays
        odd: 7..56 is 7, 14, 28, 56 of a size, and 3..31 is 3, 7, 15, 31 of a kernel.

        Raises:
            UserError: it reads otherwise.

        Example:
            >>> [str(shape) for shape in Shape.parse_all("8x7..28-k3")]
            ['8x7x7-k3', '8x14x14-k3', '8x28x28-k3']
            >>> [shape.kernel_size for shape in Shape.parse_all("8x56-k3..31")]
            [3, 7, 15, 31]
        """
        match = re.fullmatch(r"(.*(x|-k))(\d+)\.\.(\d+)(.*)", text)
        if match is None:
            return [cls.parse(text)]
        before, what, first, last, after = match.groups()
        value, values = int(first), []
        while 0 < value <= int(last):
            values.append(value)
            value = 2 * value + (what == "-k")
        if not values:
            raise UserError(f"`shape` (={text!r}) must have a range FROM..TO with 1 <= FROM <= TO.")
        return [cls.parse(f"{before}{value}{after}") for value in values]

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


class InForm(nn.Sequential):
    """An operator alone, that is to be computed in one of its exact forms."""

    def __init__(self, operator: nn.Module, form: str) -> None:
        super().__init__(operator)
        self.form = form


def layer_in_form(name: str, shape: Shape, options: Mapping[str, Any], form: str) -> nn.Module:
    """Return `layer`, marked with the exact form that `fuse_in_form` gives it."""
    return InForm(next(layer(name, shape, options).children()), form).eval()


def fuse_in_form(model: nn.Module) -> nn.Module:
    """Fuse an `InForm`, and let it take its form wherever that can compute the value."""
    fused = fuse(model)
    assert isinstance(fused, InForm)
    for module in fused.modules():
        if isinstance(module, Formed):
            with suppress(UserError):  # it is one of what is inside
                module.form = fused.form
    return fused


def exact_forms(
    name: str,
    shape: Shape,
    options: Mapping[str, Any],
    device: str = "cpu",
    dtype: str = "float32",
) -> list[str]:
    """Return the exact forms in which a fused operator can be computed at a shape, on a device.

    The rule's comes first. Of modules inside of each other those of the inner ones count in place
    of the outer one's rule, which is made of them; an operator of a single form has "direct".

    Raises:
        UserError: the operator cannot stand there.

    Example:
        >>> exact_forms("dwconv", Shape(8, 9, 3), {})
        ['direct', 'padded', 'channels_last']
    """
    there = {"device": device, "dtype": getattr(torch, dtype)}
    fused = fuse(layer(name, shape, options)).to(**there)
    able: dict[str, None] = {}
    open_calls: list[Formed] = []
    outer: set[Formed] = set()

    def enter(module: nn.Module, _: tuple[Tensor]) -> None:
        assert isinstance(module, Formed)
        outer.update(open_calls)
        open_calls.append(module)

    def leave(module: nn.Module, arguments: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(module, Formed)
        open_calls.pop()
        able.update(dict.fromkeys(module.forms(arguments[0])[module in outer :]))

    for module in fused.modules():
        if isinstance(module, Formed):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)
    with torch.inference_mode():
        fused(torch.zeros(1, shape.channels, *shape.input_size, **there))
    return list(able) or ["direct"]
