"""Rules for the convolutions that operators stand in for, by name; a refusal names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.operators.base import ConvSpec

Rule = Literal[
    "depthwise", "odd_kernel", "odd_square", "no_dilation", "same_padding", "zeros", "resolution"
]


def depthwise(spec: ConvSpec) -> str | None:
    """One group per channel, as many channels out as in."""
    for argument, value in (("out_channels", spec.out_channels), ("groups", spec.groups)):
        if value != spec.in_channels:
            return (
                f"is depthwise: `{argument}` (={value}) must equal `in_channels` "
                f"(={spec.in_channels})."
            )
    return None


def odd_kernel(spec: ConvSpec) -> str | None:
    """A kernel of odd height and width."""
    if all(k % 2 for k in spec.kernel_size):
        return None
    return f"centres its taps: `kernel_size` (={spec.kernel_size}) must be odd."


def odd_square(spec: ConvSpec) -> str | None:
    """A square kernel of odd size."""
    kh, kw = spec.kernel_size
    if kh == kw and kh % 2:
        return None
    return (
        f"needs a square kernel of odd size: `kernel_size` (={spec.kernel_size}) must be (K, K) "
        "with K odd."
    )


def no_dilation(spec: ConvSpec) -> str | None:
    """A dilation of 1."""
    if spec.dilation == (1, 1):
        return None
    return f"sets its own taps: `dilation` (={spec.dilation}) must be 1."


def same_padding(spec: ConvSpec) -> str | None:
    """Padding that keeps the size of the map: ⌈H / stride⌉ × ⌈W / stride⌉ pixels leave."""
    reach = [d * (k - 1) for d, k in zip(spec.dilation, spec.kernel_size, strict=True)]
    if all(2 * p == r for p, r in zip(spec.padding, reach, strict=True)):
        return None
    return (
        f"keeps the size of the map: `padding` (={spec.padding}) must be "
        f"dilation * (kernel_size - 1) / 2 (={tuple(r / 2 for r in reach)})."
    )


def zeros(spec: ConvSpec) -> str | None:
    """Zeros around the map."""
    if spec.padding_mode == "zeros":
        return None
    return f"pads with zeros: `padding_mode` (={spec.padding_mode!r}) must be 'zeros'."


def resolution(spec: ConvSpec) -> str | None:
    """A known size of the map that enters."""
    if spec.resolution is not None:
        return None
    return (
        "has weights as large as the map: `resolution` (=None) must be its height and width, "
        "in pixels."
    )


RULES: dict[Rule, Callable[[ConvSpec], str | None]] = {
    "depthwise": depthwise,
    "odd_kernel": odd_kernel,
    "odd_square": odd_square,
    "no_dilation": no_dilation,
    "same_padding": same_padding,
    "zeros": zeros,
    "resolution": resolution,
}


def check(operator: str, rules: tuple[Rule, ...], spec: ConvSpec) -> None:
    """UserError for the first of the rules that `spec` breaks.

    Example:
        >>> from bench.operators.base import ConvSpec
        >>> dilated = ConvSpec.make(in_channels=1, out_channels=1, dilation=2)
        >>> check("mine", ("no_dilation",), dilated)
        Traceback (most recent call last):
            ...
        bench.errors.UserError: mine sets its own taps: `dilation` (=(2, 2)) must be 1.
    """
    for rule in rules:
        breach = RULES[rule](spec)
        if breach is not None:
            raise UserError(f"{operator} {breach}")
